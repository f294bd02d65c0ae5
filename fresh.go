package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

// slack is the least that an extension must gain to be worth its round trip.
const slack = 2 * time.Millisecond

// freshen returns the options of the hold of a claim that was granted. It first extends the
// claim if too little of its validity is left (invariant 12).
//
// A lock without automatic extension has at least nine tenths of its validity. It has less
// where a round trip takes more than the rest, since an extension would then gain nothing.
// A lock that is extended automatically is extended first if it would not last for three
// round trips, or if its end, less a grace, is too near. Otherwise it is extended at once,
// while it is held already. One that is handed over again and again is extended first, too:
// its holds may be so short that each is over before its extension is.
func (a *acquisition) freshen(ctx context.Context, claim *node.Claim, g grant) (keeper.HoldOptions, error) {
	l, options := a.locker, a.holdOptions()
	now, validity := l.clock.Now(), l.clock.Validity(a.ttl)
	full := validity // that an extension could bring, but for its round trip
	if options.MaxHold > 0 {
		full = min(full, g.start.Add(options.MaxHold).Sub(now))
	}
	left, trip := min(g.until.Sub(now), full), a.tripOf(g)
	options.Until = now.Add(left)
	short := left < full/10*9
	if a.auto {
		options.ExtendNow = g.how != WaitNone && left < validity/3*2
		short = left-options.Grace < 3*trip+slack || options.ExtendNow && g.how == WaitHandedOver
	}
	if g.how != WaitNone && left <= 2*options.Grace { // the hold would end, or nearly so, before it is extended
		short = true
	}
	if gain := full - trip - left; !short || gain <= slack {
		return options, a.checkLasts(left, full, trip)
	}
	extended := l.keeper.ExtendClaim(ctx, claim, options, g.until, l.config.timeoutOf(a.ttl))
	switch {
	case extended > 0:
		options.Until, options.ExtendNow = extended, false
	case !a.auto:
		return options, errNotExtended
	}
	return options, a.checkLasts(options.Until.Sub(l.clock.Now()), full, trip)
}

var errNotExtended = errors.New("the nodes did not extend it to its ttl in time")

// tripOf returns about a round trip to a quorum, or 0 if the claim is known to last for three
// of them: then it was handed over.
func (a *acquisition) tripOf(g grant) time.Duration {
	l := a.locker
	switch g.how {
	case WaitHandedOver:
		return 0
	case WaitGranted:
		return l.trip()
	}
	trip := l.clock.Now().Sub(g.start)     // at most: the attempt has taken a round trip to a quorum
	if trip > l.clock.Validity(a.ttl)/20 { // it may have settled split votes, or agreed on a fence
		trip = min(trip, l.trip())
	}
	return trip
}

// checkLasts says why a lock that is extended automatically would not last until it is
// extended. One that has all that WithMaxHold allows is not to be extended.
func (a *acquisition) checkLasts(left, full, trip time.Duration) error {
	if left >= full {
		return nil
	}
	if left -= a.config.grace; !a.auto || left >= 3*trip {
		return nil
	}
	// By the distance: a node that is just busy may be faster with the extension.
	if distance := a.locker.nodes.Distance(); left < 3*distance {
		return fmt.Errorf("valid for %v, and to be extended it needs three round trips of %v: use a longer ttl", left, distance)
	}
	return nil
}

// trip returns about a round trip to a quorum of the nodes, or 0 if it is not known.
func (l *Locker) trip() time.Duration {
	if l.queue != nil {
		return l.queue.Trip()
	}
	return l.nodes.Distance()
}
