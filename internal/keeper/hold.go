package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Terms are the conditions of a hold.
type Terms struct {
	TTL     time.Duration
	Grace   time.Duration // the hold ends this long before its validity does
	MaxHold time.Duration // validity never goes further than this from the start; 0: no limit
	// Until is the end of the validity that was granted, if that is not by TTL.
	Until Instant
	// Raise has the hold extended to its TTL at once, as part of its beginning.
	Raise bool
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

	// The starts of the latest extension that was carried, and of the latest that
	// was carried in time; before the first, that of the hold, less 1.
	carried, extended atomic.Int64

	failed atomic.Pointer[failure] // of the last extension that failed

	// Guarded by keeper.mu:
	kept        bool                    // the Keeper knows of it
	threshold   time.Duration           // extend when less than this remains; 0: not by itself
	raise       time.Duration           // between the tries to extend it to its TTL for the first time; 0: that is done
	due         Instant                 // of the next extension
	round       *round                  // the latest extension
	slots       []node.PendingExtension // by node; nil before the first extension
	index       int32                   // in keeper.schedule, or -1
	extending   bool                    // Config.Extend is running, or is to be run when it is the hold's turn
	queued      bool                    // the latter
	turn        *taken                  // the latest
	extendAgain bool                    // and is to be run again
	done        bool                    // Done was called
	parting     *time.Timer             // releases the claim at the end of validity; nil unless a grace keeps it
}

// failure is why an extension failed: for its votes, or else for err.
type failure struct {
	start  Instant
	ballot *quorum.Ballot
	err    error
}

// Loss says how a hold was lost.
type Loss struct {
	Claim  *node.Claim
	Until  time.Time      // the end of its validity
	Capped bool           // it was held for as long as its terms allow
	Ballot *quorum.Ballot // of the last extension, if it was not carried
	Err    error          // why the last extension was not even tried; nil if it was
	Jump   *Jump          // of the clock, if that skipped the end of the hold
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

// Bind calls cancel, with the cause, when the hold ends: directly, and not
// through one more goroutine. A hold binds one.
//
// The hold may end at the same time. endAt swaps the deadline and then loads
// bound; Bind stores bound and then loads the deadline. In whatever order these
// four happen, at least one of the two sees what the other wrote, and calls
// cancel. Both may, which does no harm: only the first call counts. endAt may not
// have ended ctx yet when Bind sees that the hold is over, so Bind waits for the
// cause; endAt waits for nobody on its way there.
func (h *Hold) Bind(cancel context.CancelCauseFunc) {
	h.bound.Store(&cancel)
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
		h.lost(0)
	}
}

// lost cleans up after a hold that ended without being released, and calls
// Config.Ended and Config.Lost. Validity may go on until the given instant, for a
// hold with a grace: until then the claim is kept, for whoever is still stopping
// under it, unless Done is called.
//
// A hold may end before Keeper.Hold has entered it. Then Keeper.Hold sees that, and
// its caller cleans up.
func (h *Hold) lost(until Instant) {
	k := h.keeper
	k.mu.Lock()
	kept := h.kept
	k.unschedule(h)
	k.mu.Unlock()
	if !kept {
		return
	}
	if k.config.Ended != nil {
		k.config.Ended(h)
	}
	if k.config.Lost != nil {
		k.running.Go(func() { k.config.Lost(h) })
	}
	k.mu.Lock()
	left := until.Sub(k.clock.now())
	if waits := left > 0 && !h.done && !k.closed; waits {
		h.parting = time.AfterFunc(left, h.part)
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	h.part()
}

// Done says that nobody does anything under the hold any more. If it has ended, and
// its claim is still kept for that, the claim is released.
func (h *Hold) Done() {
	k := h.keeper
	k.mu.Lock()
	h.done = true
	parting := h.parting
	k.mu.Unlock()
	if parting != nil {
		parting.Stop()
		h.part()
	}
}

// part releases the claim in the background, and is the last that the hold does. To
// do it twice does no harm.
func (h *Hold) part() {
	for _, n := range h.keeper.config.Nodes {
		n.Abandon(h.claim)
	}
	h.keeper.forget(h)
}

// fire is what the hold's own timer runs, on its own goroutine.
func (h *Hold) fire() {
	if h.Expire() > 0 {
		h.arm() // an extension moved the deadline meanwhile
	}
}

// arm sets the timer to the deadline.
//
// Two extensions may set it at once, and the earlier deadline win: then it fires
// early, and is set again. This goroutine may be stopped between its look at the
// clock and Reset, which would make the timer late by as much: so it looks again
// after Reset (invariant 2). And the hold may end, and stop the timer, just before
// Reset.
func (h *Hold) arm() {
	for {
		deadline, before := h.deadline.Load(), h.keeper.clock.now()
		if deadline < 0 {
			h.timer.Stop()
			return
		}
		h.timer.Reset(Instant(deadline).Sub(before))
		if h.deadline.Load() >= 0 && h.keeper.clock.now().Sub(before) < late {
			return
		}
	}
}

// late is by how much arm may be stopped without setting the timer again.
const late = margin / 4

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
		// One that had been given up may have been carried after.
		if failed := h.failed.Load(); failed != nil && int64(failed.start) > h.extended.Load() {
			loss.Ballot, loss.Err = failed.ballot, failed.err
		}
		if h.endAt(deadline, h.keeper.config.Cause(loss)) {
			h.lost(end)
			return 0
		}
	}
}

// Auto extends the hold by its ttl whenever less than threshold remains of its
// validity, until it ends.
func (h *Hold) Auto(threshold time.Duration) {
	k := h.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	h.threshold = threshold
	k.reschedule(h, 0)
}

// StopAuto stops what Auto started.
func (h *Hold) StopAuto() { h.Auto(0) }

// Extend extends the hold once, now, to ttl from now. It waits for timeout per
// node, see quorum.Poll.Wait, and no longer than the hold is valid. The ballot
// tells what the nodes said; the hold was extended if it is true.
func (h *Hold) Extend(ctx context.Context, ttl, timeout time.Duration) (*quorum.Ballot, bool) {
	k := h.keeper
	start := k.clock.now()
	poll := k.config.Panel.Open()
	slots := make([]node.PendingExtension, len(k.config.Nodes)) // not the hold's: a poll's votes must all be cast
	for i, n := range k.config.Nodes {
		n.Extend(node.Extension{Pending: &slots[i], Claim: h.claim, TTL: h.keyTTL(start, ttl), Due: h.deadlineTime(), Voter: poll})
	}
	// If the hold has ended meanwhile, the nodes say so themselves, at once.
	verdict := poll.Wait(ctx, k.stop, timeout, max(h.left(start), margin), func(i int) (time.Time, error) {
		return k.config.Nodes[i].Unsent(h.claim)
	})
	ballot := poll.Ballot()
	poll.Close()
	return ballot, h.settle(start, ttl, verdict, ballot)
}

// ExtendDue extends a hold by ttl, as part of a Config.Extend, and waits for
// the outcome, but no longer than until the next try is due; a quorum that
// comes later counts all the same.
func (h *Hold) ExtendDue(ttl time.Duration) (*quorum.Ballot, bool) {
	k := h.keeper
	k.mu.Lock()
	patience := h.retry()
	r := h.newRound(k.clock.now(), ttl)
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
	k.endTurn(h) // what the caller does after that is up to the caller
	k.mu.Unlock()
	return r.outcome(patience, waited)
}

// settle draws the consequence of an extension's votes, and reports whether
// validity stands as the extension asked. ballot is needed only if it was not
// carried.
func (h *Hold) settle(start Instant, ttl time.Duration, verdict quorum.Verdict, ballot *quorum.Ballot) bool {
	k := h.keeper
	if verdict != quorum.Carried {
		switch {
		case int64(start) < h.carried.Load():
			// Old news: a quorum has extended the hold since.
		case ballot.Denied():
			// So many nodes answered that they do not hold our key that no quorum is
			// left, whatever the others say: the hold is over now (invariant 2). A
			// node that was refilled counts among them: another owner may have held
			// it in between.
			h.lose(ballot)
		default:
			h.failed.Store(&failure{start: start, ballot: ballot})
		}
		return false
	}
	// Before the deadline moves: from then on refusals of older rounds are old news.
	raise(&h.carried, start)
	if !h.advance(start.Add(k.Validity(ttl))) {
		return false
	}
	raise(&h.extended, start)
	k.mu.Lock()
	if ttl >= h.terms.TTL { // a shorter one does not complete the beginning
		h.raise = 0
	}
	k.reschedule(h, start)
	k.mu.Unlock()
	return true
}

// raise sets latest to start, unless it is later already.
func raise(latest *atomic.Int64, start Instant) {
	for old := latest.Load(); int64(start) > old && !latest.CompareAndSwap(old, int64(start)); {
		old = latest.Load()
	}
}

// keyTTL is for how long an extension that starts then sets the keys.
func (h *Hold) keyTTL(start Instant, ttl time.Duration) time.Duration {
	if h.max == never {
		return ttl
	}
	return max(h.keeper.KeyTTL(ttl, h.max.Sub(start)), time.Millisecond)
}

// left is what remains at an instant until the hold's deadline, even if it has
// ended before.
func (h *Hold) left(now Instant) time.Duration {
	deadline := h.deadline.Load()
	return Instant(max(deadline, -deadline)).Sub(now)
}

// deadlineTime is the hold's deadline as a time.
func (h *Hold) deadlineTime() time.Time {
	deadline := h.deadline.Load()
	return h.keeper.clock.time(Instant(max(deadline, -deadline)))
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
	// Nothing before this line waits for anybody.
	h.timer.Stop()
	return true
}

// Pass ends the hold for a reason of the caller's, but not its claim, which is
// for another hold then. It returns the end of the validity that is left. It
// reports false if the hold had ended before, or should have.
func (h *Hold) Pass(cause error) (until Instant, ok bool) {
	for h.Expire() > 0 {
		deadline := h.deadline.Load()
		if deadline > 0 && h.leaveAt(deadline, cause) {
			h.keeper.forget(h)
			return Instant(deadline).Add(h.terms.Grace), true
		}
	}
	return 0, false
}

// advance moves the end of validity to until, unless the hold has ended or
// should have (invariant 1), and never back. It reports whether the hold is
// valid until then, or for as long as its terms let it be.
//
// The deadline may pass between the look at the clock and the swap. If the timer
// has ended the hold by then, the swap fails. If the timer is late, the swap
// succeeds, which is safe: a quorum of keys was ours when the round ran, and lives
// until after the new deadline.
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
			h.arm()
			return true
		}
	}
}
