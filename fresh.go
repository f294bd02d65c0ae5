package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

// slack is the minimum gain that makes an extension worth its round trip.
const slack = 2 * time.Millisecond

// freshen returns the options for the hold of a granted claim. It first extends the claim if
// too little of its validity is left (invariant 12).
//
// A lock without automatic extension starts with at least nine tenths of its validity, or
// with less where a round trip takes more than the last tenth: an extension would then gain
// nothing.
//
// A lock that is extended automatically is extended before its hold starts if it would not
// last for three round trips, or if its end, less a grace, is too near. Otherwise the
// extension runs while the lock is already held. A lock that was handed over waits for its
// extension, too: with one short hold after another, each could end before its extension.
func (a *acquisition) freshen(ctx context.Context, claim *node.Claim, w won) (keeper.HoldOptions, error) {
	l, options := a.locker, a.holdOptions()
	now, validity := l.clock.Now(), l.clock.Validity(a.ttl)
	full := validity // what an extension could bring, less its round trip
	if options.MaxHold > 0 {
		full = min(full, w.start.Add(options.MaxHold).Sub(now))
	}
	left, trip := min(w.until.Sub(now), full), a.tripOf(w)
	options.Until = now.Add(left)
	short := left < full/10*9
	if a.auto {
		options.ExtendNow = w.how != WaitNone && left < validity/3*2
		short = left-options.Grace < 3*trip+slack || options.ExtendNow && w.how == WaitHandedOver
	}
	if w.how != WaitNone && left <= 2*options.Grace { // the hold could end before its extension
		short = true
	}
	if gain := full - trip - left; !short || gain <= slack {
		return options, a.checkLasts(left, full, trip)
	}
	extended := l.keeper.ExtendClaim(ctx, claim, options, w.until, l.config.timeoutOf(a.ttl))
	switch {
	case extended > 0:
		options.Until, options.ExtendNow = extended, false
	case !a.auto:
		return options, errNotExtended
	}
	return options, a.checkLasts(options.Until.Sub(l.clock.Now()), full, trip)
}

var errNotExtended = errors.New("the nodes did not extend it to its ttl in time")

// tripOf estimates the round trip to a quorum. It returns 0 for a claim that was handed over:
// such a claim is known to last for three round trips.
func (a *acquisition) tripOf(w won) time.Duration {
	l := a.locker
	switch w.how {
	case WaitHandedOver:
		return 0
	case WaitGranted:
		return l.trip()
	}
	trip := l.clock.Now().Sub(w.start)     // an upper bound: the attempt has taken a round trip to a quorum
	if trip > l.clock.Validity(a.ttl)/20 { // it may also have settled split votes, or agreed on a fence
		trip = min(trip, l.trip())
	}
	return trip
}

// checkLasts returns an error if a lock that is extended automatically would end before its
// next extension. A lock that already lasts as long as WithMaxHold allows needs none.
func (a *acquisition) checkLasts(left, full, trip time.Duration) error {
	if left >= full {
		return nil
	}
	if left -= a.config.grace; !a.auto || left >= 3*trip {
		return nil
	}
	// The distance ignores the load: a node that is busy now may answer the extension faster.
	if distance := a.locker.nodes.Distance(); left < 3*distance {
		return fmt.Errorf("valid for %v, and to be extended it needs three round trips of %v: use a longer ttl", left, distance)
	}
	return nil
}

// trip estimates the round trip to a quorum of the nodes. It is 0 if none was measured.
func (l *Locker) trip() time.Duration {
	if l.queue != nil {
		return l.queue.Trip()
	}
	return l.nodes.Distance()
}
