package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// slack is what an extension must gain at least, to be worth its round trip.
const slack = 2 * time.Millisecond

// freshen returns the terms of a hold whose claim is granted until an instant, and extends
// the claim before, if too little is left (invariant 12). start is when the hold begins, for
// WithMaxHold, and trip about a round trip to a quorum; 0 if the claim is known to last for
// three. how is how the claim was granted.
//
// A lock without automatic extension has at least nine tenths of its validity. It has less
// where a round trip takes more than the rest: then an extension would gain nothing. A lock
// that is extended automatically is extended first if it would not last for three round
// trips, or if its end, less a grace, is too near; else at once, while it is held already.
// One that is handed over on and on is extended first, too: its holds may be so short that
// each is over before its extension is.
func (l *Locker) freshen(ctx context.Context, r *request, claim *node.Claim, start, until keeper.Instant, trip time.Duration, how WaitKind) (keeper.Terms, error) {
	terms := keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold}
	now, validity := l.keeper.Now(), l.keeper.Validity(r.ttl)
	full := validity // that an extension could bring, but for its round trip
	if r.config.maxHold > 0 {
		full = min(full, start.Add(r.config.maxHold).Sub(now))
	}
	left := min(until.Sub(now), full)
	terms.Until = now.Add(left)
	short := left < full/10*9
	if r.auto {
		terms.Raise = how != WaitNone && left < validity/3*2
		short = left-r.config.grace < 3*trip+slack || terms.Raise && how == WaitHandedOver
	}
	if how != WaitNone && left <= 2*r.config.grace { // the hold would end, or nearly so, before it is extended
		short = true
	}
	if gain := full - trip - left; !short || gain <= slack {
		return terms, l.lasts(r, left, full, trip)
	}
	extended := l.extendGrant(ctx, r, claim, until)
	switch {
	case extended > 0:
		terms.Until, terms.Raise = extended, false
	case !r.auto:
		return terms, errNotExtended
	}
	return terms, l.lasts(r, terms.Until.Sub(l.keeper.Now()), full, trip)
}

var errNotExtended = errors.New("the nodes did not extend it to its ttl in time")

// lasts says why a lock that is extended automatically would not last until it is extended.
// One that has all that WithMaxHold allows is not to be extended.
func (l *Locker) lasts(r *request, left, full, trip time.Duration) error {
	if left >= full {
		return nil
	}
	if left -= r.config.grace; !r.auto || left >= 3*trip {
		return nil
	}
	// By the distance: a node that is just busy may be faster with the extension.
	if distance := node.Distance(l.nodes); left < 3*distance {
		return fmt.Errorf("valid for %v, and to be extended it needs three round trips of %v: use a longer ttl", left, distance)
	}
	return nil
}

// extendGrant extends what was granted to its ttl, and returns the end of its
// validity, or 0 if that failed.
func (l *Locker) extendGrant(ctx context.Context, r *request, claim *node.Claim, until keeper.Instant) keeper.Instant {
	start := l.keeper.Now() // before the first byte is sent (invariant 1)
	poll := l.panel.Open()
	defer poll.Close()
	slots := make([]node.PendingExtension, len(l.nodes))
	for i, n := range l.nodes {
		n.Extend(node.Extension{Pending: &slots[i], Claim: claim, TTL: l.keeper.KeyTTL(r.ttl, r.config.maxHold), Voter: poll})
	}
	verdict := poll.Wait(ctx, l.closing, l.config.timeoutOf(r.ttl), until.Sub(start), func(i int) (time.Time, error) {
		return l.nodes[i].Unsent(claim)
	})
	if verdict != quorum.Carried || l.keeper.Now() >= until {
		return 0
	}
	return start.Add(l.keeper.Validity(r.ttl))
}

// trip is about a round trip to a quorum of the nodes, 0 if it is not known.
func (l *Locker) trip() time.Duration {
	if l.queue != nil {
		return l.queue.Trip()
	}
	return node.Distance(l.nodes)
}
