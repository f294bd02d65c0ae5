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
	// Until is the end of validity if TTL does not give it; 0 if it does.
	Until clock.Instant
	// ExtendNow has the Keeper extend the hold to its TTL at once, as part of its start.
	ExtendNow bool
}

// Hold is a claim that a quorum has granted, for as long as it is valid. Start fills it in.
//
// A hold ends once: by release (End, Pass), because its deadline has passed (Expire), because
// a quorum has become impossible (lose), or with its Keeper (Keeper.Close). Its ctx ends then.
type Hold struct {
	keeper  *Keeper
	owner   Owner
	claim   *node.Claim
	options HoldOptions
	max     clock.Instant // validity never goes beyond

	// deadline is the instant at which the hold ends: the end of validity less the
	// grace. It is negated once the hold has ended. It is one word, changed only by
	// compare-and-swap: so the timer that ends the hold waits for no mutex
	// (invariant 2), and an extension moves only a deadline that has not passed
	// (invariant 1).
	deadline atomic.Int64

	ctx    context.Context
	cancel context.CancelCauseFunc
	bound  atomic.Pointer[context.CancelCauseFunc]
	timer  *time.Timer

	// granted is the start of the latest extension that a quorum granted, extended that of
	// the latest granted in time. Before the first extension, both are the start of the hold,
	// less 1.
	granted, extended atomic.Int64

	failed atomic.Pointer[failure] // the latest failed extension

	// Guarded by keeper.mu:
	kept        bool                    // it is in keeper.holds
	threshold   time.Duration           // extend when less than this remains; 0: not automatically
	startPause  time.Duration           // between tries of the extension at the start, see ExtendNow; 0: done, or none was asked for
	due         clock.Instant           // of the next extension
	round       *round                  // the latest extension
	pending     []node.PendingExtension // by node; nil before the first extension
	index       int32                   // in keeper.schedule, or -1
	extending   bool                    // Owner.Extend runs, or the hold waits for its turn to run it
	queued      bool                    // the hold waits for its turn
	turn        *turn                   // the latest that it was given
	extendAgain bool                    // Owner.Extend must run again when it has returned
	done        bool                    // Done was called
	releasing   *time.Timer             // releases the claim at the end of validity; nil unless a grace keeps the claim
}

// failure is why an extension failed: its votes, or else err.
type failure struct {
	start clock.Instant
	tally *quorum.Tally
	err   error
}

// Loss says how a hold was lost.
type Loss struct {
	Claim  *node.Claim
	Until  time.Time     // the end of its validity
	Capped bool          // it was held for MaxHold
	Tally  *quorum.Tally // of the last extension, if a quorum did not grant it
	Err    error         // why the last extension was not even tried; nil if it was
	Jump   *clock.Jump   // the jump of the clock that skipped the end of the hold; nil if none did
}

// Start fills in h, a zero Hold, for a claim that a quorum granted owner in an attempt that
// began at start. The hold's ctx is a child of ctx. If the claim is no longer valid, or the
// Keeper is closed, Start reports false, and the caller releases the claim.
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
	// The timer is set before this call waits for the Keeper's mutex (invariant 2). So the
	// hold may end before it is kept: afterLoss then does nothing, and this call cleans up.
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

// left returns the time from now to the hold's deadline. An ended hold keeps its deadline.
func (h *Hold) left(now clock.Instant) time.Duration {
	deadline := h.deadline.Load()
	return clock.Instant(max(deadline, -deadline)).Sub(now)
}

// deadlineTime returns the hold's deadline as a time.
func (h *Hold) deadlineTime() time.Time {
	deadline := h.deadline.Load()
	return h.keeper.clock.Time(clock.Instant(max(deadline, -deadline)))
}

// Bind has the end of the hold call cancel with the cause, directly and without another
// goroutine. Call it at most once.
//
// The hold may end at the same time. endKeepingClaim swaps the deadline and then
// loads bound; Bind stores bound and then loads the deadline. In whatever order
// these four happen, at least one of the two sees what the other wrote, and calls
// cancel. If both do, only the first call counts. When Bind sees that the hold has
// ended, ctx may not have ended yet, so Bind waits for the cause; endKeepingClaim
// waits for nothing before it ends ctx.
func (h *Hold) Bind(cancel context.CancelCauseFunc) {
	h.bound.Store(&cancel)
	if h.ended() {
		<-h.ctx.Done()
		cancel(context.Cause(h.ctx))
	}
}

// arm sets the timer to the deadline.
//
// Two extensions may set the timer at once, and the earlier deadline win: the timer then fires
// early, and is set again. This goroutine may be stopped between its look at the clock and
// Reset, which would make the timer that much late: so it looks again after Reset
// (invariant 2). The hold may also end, and stop the timer, just before Reset.
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

// fire runs when the hold's timer fires, on a goroutine of its own.
func (h *Hold) fire() {
	if h.Expire() > 0 {
		h.arm() // an extension has moved the deadline
	}
}

// Expire ends the hold if its deadline has passed, whether or not its timer has fired.
// Otherwise it returns the time until the deadline.
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
		// A round that was given up may have been won after all. Its failure explains nothing then.
		if failed := h.failed.Load(); failed != nil && int64(failed.start) > h.extended.Load() {
			loss.Tally, loss.Err = failed.tally, failed.err
		}
		if h.endAt(deadline, h.owner.Cause(loss)) {
			h.afterLoss(end)
			return 0
		}
	}
}

// lose ends the hold because a quorum is impossible.
func (h *Hold) lose(tally *quorum.Tally) {
	if h.end(h.owner.Cause(Loss{Claim: h.claim, Until: h.Until(), Tally: tally})) {
		h.afterLoss(0)
	}
}

// End ends the hold with cause. The caller then releases the claim. End reports false if the
// hold had already ended, or its deadline has passed.
func (h *Hold) End(cause error) bool {
	h.Expire()
	if !h.end(cause) {
		return false
	}
	h.keeper.forget(h)
	return true
}

// Pass ends the hold with cause, but not its claim, which the next hold takes over. It returns
// the end of the claim's validity. It reports false if the hold had already ended, or its
// deadline has passed.
func (h *Hold) Pass(cause error) (until clock.Instant, ok bool) {
	for h.Expire() > 0 {
		deadline := h.deadline.Load()
		if deadline > 0 && h.endKeepingClaim(deadline, cause) {
			h.keeper.forget(h)
			return clock.Instant(deadline).Add(h.options.Grace), true
		}
	}
	return 0, false
}

// end ends the hold, even while extensions move its deadline. It reports false if the hold had
// already ended.
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

// endAt ends the hold and its claim if deadline is still the hold's deadline. The timer, a
// release, a loss and Close may all try at the same time: only the one whose swap succeeds
// goes on. An extension that moves the deadline first makes the swap fail; the caller then
// looks again.
func (h *Hold) endAt(deadline int64, cause error) bool {
	if !h.endKeepingClaim(deadline, cause) {
		return false
	}
	h.claim.End()
	return true
}

// endKeepingClaim is endAt, but does not end the claim.
func (h *Hold) endKeepingClaim(deadline int64, cause error) bool {
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

// afterLoss cleans up after a hold that ended without being released, and tells its owner.
// The validity of a hold with a grace may go on until the given instant. Until then, or until
// Done is called, the claim stays for the protected work, which is still stopping.
//
// If the hold ended before Start kept it, the caller of Start cleans up instead.
func (h *Hold) afterLoss(until clock.Instant) {
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
