package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Auto extends the hold by its ttl whenever less than threshold remains of its validity,
// until it ends.
func (h *Hold) Auto(threshold time.Duration) {
	k := h.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	h.threshold = threshold
	k.reschedule(h, 0)
}

// StopAuto stops what Auto started.
func (h *Hold) StopAuto() { h.Auto(0) }

// Extend extends the hold once, to ttl from now. It waits for timeout per node, see
// [quorum.Poll.Wait], and no longer than the hold is valid. It returns the votes, and whether
// the hold was extended.
func (h *Hold) Extend(ctx context.Context, ttl, timeout time.Duration) (*quorum.Tally, bool) {
	k := h.keeper
	start := k.clock.Now() // before the first byte is sent (invariant 1)
	// If the hold has ended since, the nodes refuse at once, and need no patience.
	patience := node.Patience{Timeout: timeout, Limit: max(h.left(start), clock.Margin)}
	poll, verdict := k.askToExtend(ctx, node.Extension{Claim: h.claim, TTL: h.keyTTL(start, ttl), Due: h.deadlineTime()}, patience)
	tally := poll.Tally()
	poll.Close()
	return tally, h.settle(start, ttl, verdict, tally)
}

// ExtendClaim extends a claim that has no Hold yet, and is valid until the given instant, by
// the ttl of options. It returns the new end of validity, or 0 if the nodes did not extend the
// claim in time.
func (k *Keeper) ExtendClaim(ctx context.Context, claim *node.Claim, options HoldOptions, until clock.Instant, timeout time.Duration) clock.Instant {
	start := k.clock.Now() // before the first byte is sent (invariant 1)
	patience := node.Patience{Timeout: timeout, Limit: until.Sub(start)}
	poll, verdict := k.askToExtend(ctx, node.Extension{Claim: claim, TTL: k.clock.KeyTTL(options.TTL, options.MaxHold)}, patience)
	poll.Close()
	if verdict != quorum.Won || k.clock.Now() >= until {
		return 0
	}
	return start.Add(k.clock.Validity(options.TTL))
}

// askToExtend sends an extension to every node and waits for the verdict.
func (k *Keeper) askToExtend(ctx context.Context, e node.Extension, p node.Patience) (*quorum.Poll, quorum.Verdict) {
	p.Stop = k.stop
	pending := make([]node.PendingExtension, k.config.Nodes.Len()) // not Hold.pending, where a later extension replaces this one: every vote of a poll must be cast
	return k.config.Nodes.Ask(ctx, e.Claim, p, func(i int, n *node.Node, reply node.ReplyHandler) {
		n.Extend(node.Extension{Pending: &pending[i], Claim: e.Claim, TTL: e.TTL, Due: e.Due, Handler: reply})
	})
}

// ExtendDue extends a hold by ttl, as part of an Owner.Extend, and waits for the result until
// the next try is due. A quorum that comes later still counts.
func (h *Hold) ExtendDue(ttl time.Duration) (*quorum.Tally, bool) {
	k := h.keeper
	k.mu.Lock()
	patience := h.retryPause()
	r := h.newRound(k.clock.Now(), ttl)
	r.settled = make(chan struct{})
	k.mu.Unlock()
	k.dispatch(r)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	waited := true
	select {
	case <-r.settled:
	case <-timer.C:
		r.giveUp(patience)
	case <-h.ctx.Done():
		waited = false
	case <-k.stop:
		waited = false
	}
	k.mu.Lock()
	k.endTurn(h) // a middleware may still run after this: that time is not part of the turn
	k.mu.Unlock()
	return r.outcome(patience, waited)
}

// settle applies the result of an extension. It reports whether the hold is now valid for as
// long as the extension asked. tally is needed only if a quorum did not grant the extension.
func (h *Hold) settle(start clock.Instant, ttl time.Duration, verdict quorum.Verdict, tally *quorum.Tally) bool {
	k := h.keeper
	if verdict != quorum.Won {
		switch {
		case int64(start) < h.granted.Load():
			// Outdated: a quorum has extended the hold since.
		case tally.Denied():
			// So many nodes answered that they do not hold our key that no quorum is
			// left, whatever the rest answer: the hold is over now (invariant 2). A node
			// that has set the key again counts as one of them, since another owner may
			// have held the key in between (invariant 3).
			h.lose(tally)
		default:
			h.failed.Store(&failure{start: start, tally: tally})
		}
		return false
	}
	// Before the deadline moves: from then on refusals of older rounds are outdated.
	storeMax(&h.granted, start)
	if !h.advance(start.Add(k.clock.Validity(ttl))) {
		return false
	}
	storeMax(&h.extended, start)
	k.mu.Lock()
	if ttl >= h.options.TTL { // a shorter ttl does not complete the extension at the start
		h.startPause = 0
	}
	k.reschedule(h, start)
	k.mu.Unlock()
	return true
}

// storeMax sets latest to start, unless latest is later.
func storeMax(latest *atomic.Int64, start clock.Instant) {
	for old := latest.Load(); int64(start) > old && !latest.CompareAndSwap(old, int64(start)); {
		old = latest.Load()
	}
}

// keyTTL returns the ttl that an extension from start sets on the keys.
func (h *Hold) keyTTL(start clock.Instant, ttl time.Duration) time.Duration {
	if h.max == clock.Never {
		return ttl
	}
	return max(h.keeper.clock.KeyTTL(ttl, h.max.Sub(start)), time.Millisecond)
}

// advance moves the end of validity forward to until, unless the hold has ended or its
// deadline has passed (invariant 1). It reports whether the hold is valid until then, or for
// as long as MaxHold allows.
//
// The deadline may pass between the look at the clock and the swap. If the timer
// has ended the hold by then, the swap fails. If the timer is late, the swap
// succeeds, which is safe: a quorum of keys was ours when the round ran, and lives
// until after the new deadline.
func (h *Hold) advance(until clock.Instant) bool {
	deadline := int64(min(until, h.max).Add(-h.options.Grace))
	for {
		old, now := h.deadline.Load(), h.keeper.clock.Now()
		if old < 0 || now >= clock.Instant(old) {
			return false
		}
		if deadline <= old {
			return true
		}
		if h.deadline.CompareAndSwap(old, deadline) {
			h.arm()
			return true
		}
	}
}
