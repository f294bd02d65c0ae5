package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// HoldOptions are the conditions of a hold.
type HoldOptions struct {
	TTL     time.Duration
	Grace   time.Duration // the hold ends this long before its validity does
	MaxHold time.Duration // validity never goes further than this from the start; 0: no limit
	// Until is the end of the validity that was granted, if that is not by TTL.
	Until clock.Instant
	// ExtendNow has the hold extended to its TTL at once, as part of its start.
	ExtendNow bool
}

// Hold is a claim that a quorum has granted, for as long as it is valid. Start fills it in.
//
// It ends once: by release, or because its deadline has passed, or because a quorum has
// become impossible, or with its Keeper. Its ctx ends then.
type Hold struct {
	keeper  *Keeper
	owner   Owner
	claim   *node.Claim
	options HoldOptions
	max     clock.Instant // validity never goes beyond

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

	// The starts of the latest extension that a quorum granted, and of the latest that
	// was granted in time; before the first, that of the hold, less 1.
	granted, extended atomic.Int64

	failed atomic.Pointer[failure] // of the last extension that failed

	// Guarded by keeper.mu:
	kept        bool                    // the Keeper knows of it
	threshold   time.Duration           // extend when less than this remains; 0: not automatically
	startPause  time.Duration           // between the tries of the extension that is part of its start; 0: that is done
	due         clock.Instant           // of the next extension
	round       *round                  // the latest extension
	slots       []node.PendingExtension // by node; nil before the first extension
	index       int32                   // in keeper.schedule, or -1
	extending   bool                    // Owner.Extend is running, or is to be run when it is the hold's turn
	queued      bool                    // the latter
	turn        *taken                  // the latest
	extendAgain bool                    // and is to be run again
	done        bool                    // Done was called
	releasing   *time.Timer             // releases the claim at the end of validity; nil unless a grace keeps it
}

// failure is why an extension failed: for its votes, or else for err.
type failure struct {
	start clock.Instant
	tally *quorum.Tally
	err   error
}

// Loss says how a hold was lost.
type Loss struct {
	Claim  *node.Claim
	Until  time.Time     // the end of its validity
	Capped bool          // it was held for as long as its options allow
	Tally  *quorum.Tally // of the last extension, if a quorum did not grant it
	Err    error         // why the last extension was not even tried; nil if it was
	Jump   *clock.Jump   // of the clock, if that skipped the end of the hold
}

// Start keeps a claim that a quorum granted in an attempt that began at start, for owner. It
// fills in h, a zero Hold. It reports false, and the claim is the caller's to release, if
// nothing is left of its validity by now or if the Keeper is closed. The hold's ctx is a
// child of ctx.
func (h *Hold) Start(ctx context.Context, k *Keeper, owner Owner, claim *node.Claim, start clock.Instant, options HoldOptions) bool {
	h.keeper, h.owner, h.claim, h.options, h.max, h.index = k, owner, claim, options, clock.Never, -1
	if options.MaxHold > 0 {
		h.max = start.Add(options.MaxHold)
	}
	h.granted.Store(int64(start) - 1)
	h.extended.Store(int64(start) - 1)
	deadline := start.Add(k.Lasts(options))
	if options.Until > 0 {
		deadline = min(options.Until, h.max).Add(-options.Grace)
	}
	h.deadline.Store(int64(deadline))
	if deadline <= k.clock.Now() {
		return false
	}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	// Reset orders the write of h.timer before fire, which reads it.
	h.timer = time.AfterFunc(time.Hour, h.fire)
	// The timer is set before the Keeper's mutex is waited for (invariant 2). So the hold
	// may end before it is kept: then lost finds that it is not, and leaves it to this call.
	h.arm()

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || h.ended() {
		h.timer.Stop()
		h.cancel(nil)
		return false
	}
	h.kept = true
	k.holds[h] = struct{}{}
	now := k.clock.Now()
	k.plan(now.Add(tick))
	if options.ExtendNow {
		h.startPause = max(deadline.Sub(now)/tries, time.Millisecond)
		k.reschedule(h, 0)
	}
	return true
}

// Context ends, with a cause, when the hold does.
func (h *Hold) Context() context.Context { return h.ctx }

// Until returns the end of validity, which no longer changes after the hold has ended. It
// carries a monotonic reading.
func (h *Hold) Until() time.Time {
	deadline := h.deadline.Load()
	return h.keeper.clock.Time(clock.Instant(max(deadline, -deadline)).Add(h.options.Grace))
}

// Valid reports whether the hold has not ended, by the clock and not only by whether its
// timer has run.
func (h *Hold) Valid() bool {
	deadline := h.deadline.Load()
	return deadline > 0 && h.keeper.clock.Now() < clock.Instant(deadline)
}

func (h *Hold) ended() bool { return h.deadline.Load() < 0 }

// Bind calls cancel, with the cause, when the hold ends: directly, and not
// through one more goroutine. A hold binds one.
//
// The hold may end at the same time. endAt swaps the deadline and then loads
// bound; Bind stores bound and then loads the deadline. In whatever order these
// four happen, at least one of the two sees what the other wrote, and calls
// cancel. Both may, which does no harm: only the first call counts. endAt may not
// have ended ctx yet when Bind sees that the hold is over, so Bind waits for the
// cause; endAt waits for nothing on its way there.
func (h *Hold) Bind(cancel context.CancelCauseFunc) {
	h.bound.Store(&cancel)
	if h.ended() {
		<-h.ctx.Done()
		cancel(context.Cause(h.ctx))
	}
}

// End ends the hold for the caller's cause. The caller then releases the claim. End reports
// false if the hold had ended before, or should have.
func (h *Hold) End(cause error) bool {
	h.Expire()
	if !h.end(cause) {
		return false
	}
	h.keeper.forget(h)
	return true
}

// lose ends the hold because a quorum is impossible.
func (h *Hold) lose(tally *quorum.Tally) {
	if h.end(h.owner.Cause(Loss{Claim: h.claim, Until: h.Until(), Tally: tally})) {
		h.lost(0)
	}
}

// lost cleans up after a hold that ended without being released, and tells its owner.
// Validity may go on until the given instant, for a hold with a grace. Until then the claim
// is kept for the protected work, which is still stopping, unless Done is called.
//
// A hold may end before Start has entered it. Then Start sees that, and its caller cleans
// up.
func (h *Hold) lost(until clock.Instant) {
	k := h.keeper
	k.mu.Lock()
	kept := h.kept
	k.unschedule(h)
	k.mu.Unlock()
	if !kept {
		return
	}
	h.owner.Ended()
	if k.config.Middleware {
		k.running.Go(h.owner.Lost)
	}
	k.mu.Lock()
	left := until.Sub(k.clock.Now())
	if waits := left > 0 && !h.done && !k.closed; waits {
		h.releasing = time.AfterFunc(left, h.releaseClaim)
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	h.releaseClaim()
}

// Done marks the protected work as finished. If the hold has ended, and its claim is still
// kept for that work, the claim is released.
func (h *Hold) Done() {
	k := h.keeper
	k.mu.Lock()
	h.done = true
	releasing := h.releasing
	k.mu.Unlock()
	if releasing != nil {
		releasing.Stop()
		h.releaseClaim()
	}
}

// releaseClaim releases the claim in the background. It is the hold's last step, and
// idempotent.
func (h *Hold) releaseClaim() {
	h.keeper.config.Nodes.Abandon(h.claim)
	h.keeper.forget(h)
}

// fire is what the hold's own timer runs, on its own goroutine.
func (h *Hold) fire() {
	if h.Expire() > 0 {
		h.arm() // an extension has moved the deadline
	}
}

// arm sets the timer to the deadline.
//
// Two extensions may set it at once, and the earlier deadline win: then it fires early, and
// is set again. This goroutine may be stopped between its look at the clock and Reset, which
// would make the timer late by as much, so it looks again after Reset (invariant 2). And the
// hold may end, and stop the timer, just before Reset.
func (h *Hold) arm() {
	for {
		deadline, before := h.deadline.Load(), h.keeper.clock.Now()
		if deadline < 0 {
			h.timer.Stop()
			return
		}
		h.timer.Reset(clock.Instant(deadline).Sub(before))
		if h.deadline.Load() >= 0 && h.keeper.clock.Now().Sub(before) < rearmAfter {
			return
		}
	}
}

// rearmAfter is the pause in arm above which the timer is set again.
const rearmAfter = clock.Margin / 4

// Expire ends the hold if its deadline has passed, without waiting for its
// timer to say so. Otherwise it returns what is left.
func (h *Hold) Expire() time.Duration {
	for {
		deadline := h.deadline.Load()
		if deadline < 0 {
			return 0
		}
		if left := clock.Instant(deadline).Sub(h.keeper.clock.Now()); left > 0 {
			return left
		}
		end := clock.Instant(deadline).Add(h.options.Grace)
		loss := Loss{Claim: h.claim, Until: h.keeper.clock.Time(end), Capped: end >= h.max, Jump: h.keeper.clock.Skipped(clock.Instant(deadline))}
		// One that had been given up may have been granted after all.
		if failed := h.failed.Load(); failed != nil && int64(failed.start) > h.extended.Load() {
			loss.Tally, loss.Err = failed.tally, failed.err
		}
		if h.endAt(deadline, h.owner.Cause(loss)) {
			h.lost(end)
			return 0
		}
	}
}

// left returns what remains at an instant until the hold's deadline, even if it has ended
// before.
func (h *Hold) left(now clock.Instant) time.Duration {
	deadline := h.deadline.Load()
	return clock.Instant(max(deadline, -deadline)).Sub(now)
}

// deadlineTime returns the hold's deadline as a time.
func (h *Hold) deadlineTime() time.Time {
	deadline := h.deadline.Load()
	return h.keeper.clock.Time(clock.Instant(max(deadline, -deadline)))
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

// endAt ends the hold if deadline is still its deadline. Of all who may end it at
// the same time (the timer, a release, a loss, Close) only the one whose swap
// succeeds goes on. An extension that moves the deadline first makes the swap fail;
// the caller then looks again.
func (h *Hold) endAt(deadline int64, cause error) bool {
	if !h.leaveAt(deadline, cause) {
		return false
	}
	h.claim.End()
	return true
}

// leaveAt is endAt without the end of the claim.
func (h *Hold) leaveAt(deadline int64, cause error) bool {
	if !h.deadline.CompareAndSwap(deadline, -deadline) {
		return false
	}
	h.cancel(cause)
	if cancel := h.bound.Load(); cancel != nil {
		(*cancel)(cause)
	}
	// Nothing before this line waits for anything.
	h.timer.Stop()
	return true
}

// Pass ends the hold for the caller's cause, but not its claim, which is then for another
// hold. It returns the end of the validity that is left. It reports false if the hold had
// ended before, or should have.
func (h *Hold) Pass(cause error) (until clock.Instant, ok bool) {
	for h.Expire() > 0 {
		deadline := h.deadline.Load()
		if deadline > 0 && h.leaveAt(deadline, cause) {
			h.keeper.forget(h)
			return clock.Instant(deadline).Add(h.options.Grace), true
		}
	}
	return 0, false
}
