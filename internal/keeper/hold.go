package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Terms are what a hold was agreed on.
type Terms struct {
	TTL     time.Duration
	Grace   time.Duration // the hold ends this long before its validity does
	MaxHold time.Duration // validity never goes further than this from the start; 0: no limit
}

// Hold is a claim that a quorum has granted, for as long as it is valid. It is
// filled in by Keeper.Hold.
//
// It ends once: by release, or because its deadline has passed, or because a
// quorum has become impossible, or with its Keeper. Its ctx ends then.
type Hold struct {
	keeper *Keeper
	claim  *node.Claim
	terms  Terms
	max    Instant // validity never goes beyond

	// deadline is the instant at which the hold ends, validity less grace; it
	// is negated once the hold has ended. It is one word and changed by
	// compare-and-swap alone: so the timer that ends the hold waits for no lock
	// (invariant 2), and an extension moves only a deadline that has not passed
	// (invariant 1).
	deadline atomic.Int64

	ctx    context.Context
	cancel context.CancelCauseFunc
	bound  atomic.Pointer[context.CancelCauseFunc]
	timer  *time.Timer

	failed atomic.Pointer[failure] // of the last extension, if it failed

	// Guarded by keeper.mu:
	threshold time.Duration // extend when less than this remains; 0: not by itself
	due       Instant       // of the next extension
	round     *round        // the latest extension
	queued    uint64        // the lanes in which this hold waits, as bits
	index     int32         // in keeper.queue, or -1
	extending bool          // Config.Extend is running
}

// failure is why an extension failed: for its votes, or else for err.
type failure struct {
	ballot *quorum.Ballot
	err    error
}

// Context ends, with a cause, when the hold does.
func (h *Hold) Context() context.Context { return h.ctx }

// Claim is what is held.
func (h *Hold) Claim() *node.Claim { return h.claim }

// Until is the end of validity, and the last one after the hold has ended. It
// carries a monotonic reading.
func (h *Hold) Until() time.Time {
	deadline := h.deadline.Load()
	return h.keeper.clock.time(Instant(max(deadline, -deadline)).Add(h.terms.Grace))
}

// Valid tells whether the hold has not ended, by the clock and not only by
// whether its timer has run.
func (h *Hold) Valid() bool {
	deadline := h.deadline.Load()
	return deadline > 0 && h.keeper.clock.now() < Instant(deadline)
}

func (h *Hold) over() bool { return h.deadline.Load() < 0 }

// Bind has cancel called, with the cause, when the hold ends: directly, and
// not through one more goroutine. A hold binds one.
func (h *Hold) Bind(cancel context.CancelCauseFunc) {
	h.bound.Store(&cancel)
	// endAt ends ctx and then looks at bound: either it sees cancel, or the
	// hold is over here.
	if h.over() {
		<-h.ctx.Done()
		cancel(context.Cause(h.ctx))
	}
}

// End ends the hold for a reason of the caller's, who then releases the claim.
// It reports false if the hold had ended before, or should have.
func (h *Hold) End(cause error) bool {
	h.Expire()
	if !h.end(cause) {
		return false
	}
	h.keeper.forget(h)
	return true
}

// lose ends the hold because a quorum is impossible.
func (h *Hold) lose(ballot *quorum.Ballot) {
	if h.end(h.keeper.config.Cause(Loss{Claim: h.claim, Until: h.Until(), Ballot: ballot})) {
		h.lost()
	}
}

// lost is what follows when a hold has ended that was not released: its claim
// is, in the background, and Config.Lost is told.
func (h *Hold) lost() {
	k := h.keeper
	for _, n := range k.config.Nodes {
		n.Abandon(h.claim)
	}
	if k.config.Lost != nil {
		k.running.Go(func() { k.config.Lost(h) })
	}
	k.forget(h)
}

// fire is what the hold's own timer runs, on its own goroutine.
func (h *Hold) fire() {
	if left := h.Expire(); left > 0 {
		h.arm(left) // an extension moved the deadline meanwhile
	}
}

// arm sets the timer. Of two that set it at once the earlier deadline may win;
// then it fires early, and is set again.
func (h *Hold) arm(left time.Duration) {
	h.timer.Reset(left)
	if h.over() { // it may have been stopped just before it was set
		h.timer.Stop()
	}
}

// Expire ends the hold if its deadline has passed, without waiting for its
// timer to say so. Otherwise it returns what is left.
func (h *Hold) Expire() time.Duration {
	for {
		deadline := h.deadline.Load()
		if deadline < 0 {
			return 0
		}
		if left := Instant(deadline).Sub(h.keeper.clock.now()); left > 0 {
			return left
		}
		end := Instant(deadline).Add(h.terms.Grace)
		loss := Loss{Claim: h.claim, Until: h.keeper.clock.time(end), Capped: end >= h.max, Jump: h.keeper.clock.over(Instant(deadline))}
		if failed := h.failed.Load(); failed != nil {
			loss.Ballot, loss.Err = failed.ballot, failed.err
		}
		if h.endAt(deadline, h.keeper.config.Cause(loss)) {
			h.lost()
			return 0
		}
	}
}

// end ends the hold whatever its deadline is.
func (h *Hold) end(cause error) bool {
	for {
		deadline := h.deadline.Load()
		if deadline < 0 {
			return false
		}
		if h.endAt(deadline, cause) {
			return true
		}
	}
}

func (h *Hold) endAt(deadline int64, cause error) bool {
	if !h.deadline.CompareAndSwap(deadline, -deadline) {
		return false
	}
	h.cancel(cause)
	if cancel := h.bound.Load(); cancel != nil {
		(*cancel)(cause)
	}
	// Nothing before this line waits for anybody.
	h.claim.End()
	h.timer.Stop()
	return true
}

// advance moves the end of validity to until, unless the hold has ended or
// should have (invariant 1), and never back. It reports whether the hold is
// valid until then, or for as long as its terms let it be.
func (h *Hold) advance(until Instant) bool {
	deadline := int64(min(until, h.max).Add(-h.terms.Grace))
	for {
		old, now := h.deadline.Load(), h.keeper.clock.now()
		if old < 0 || now >= Instant(old) {
			return false
		}
		if deadline <= old {
			return true
		}
		if h.deadline.CompareAndSwap(old, deadline) {
			h.arm(Instant(deadline).Sub(now))
			return true
		}
	}
}
