package redlock

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/leasthold"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// Lock is a lock that has been acquired. Its methods are safe for concurrent use.
//
// A lock ends when it is released, when its validity ends without an extension,
// when so many nodes answer that they do not hold it that no quorum is left, or
// when its [Locker] is closed. It never becomes valid again.
type Lock struct {
	locker  *Locker
	claim   *node.Claim // &own, or another claim: of a grant, or of the previous holder
	own     node.Claim  // of an attempt
	hold    keeper.Hold
	config  lockConfig
	ttl     time.Duration
	fence   int64 // 0 without WithFence
	context heldContext

	releasing sync.Once
	released  error // what Release returned; guarded by releasing
}

// Key returns the key of the lock: the first of [Lock.Keys].
func (l *Lock) Key() string { return l.claim.Keys[0] }

// Keys returns the keys of the lock, sorted and without duplicates.
func (l *Lock) Keys() []string { return slices.Clone(l.claim.Keys) }

// Token returns the value of the keys on the nodes. It is random, and a new one is
// made for every attempt. The metadata of [WithMetadata] is part of it, encoded.
func (l *Lock) Token() string { return l.claim.Token }

// Until returns the end of validity. No other process can own the lock before
// then, as long as clocks run within the drift allowance and no node loses its
// data. Each extension moves it forward. It has a monotonic clock reading.
func (l *Lock) Until() time.Time { return l.hold.Until() }

// Valid reports whether the lock is still held. It compares the clock with the
// end of validity, less the grace of [WithGrace], and asks no node.
func (l *Lock) Valid() bool { return l.hold.Valid() }

// Context returns a context that ends when the lock does, with a cause that
// matches [ErrLost], [ErrReleased] or [ErrClosed]. It has the values of the ctx
// that the lock was acquired with, but does not end with that ctx.
func (l *Lock) Context() context.Context { return l.hold.Context() }

// Extend makes the lock valid for at least ttl from now, less the drift
// allowance. A ttl of 0 means the ttl that the lock was acquired with. Extend never
// shortens a lock, and never goes beyond [WithMaxHold].
//
// The error matches [ErrNotHeld] if the lock had ended, or if the nodes answered
// that it is lost; the lock then ends at once. It matches [ErrNoQuorum] if too many nodes
// failed or timed out; the lock then stays valid until [Lock.Until], as before.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl == 0 {
		ttl = l.ttl
	}
	if l.locker.chain == nil {
		return l.extend(ctx, ttl, nil)
	}
	op := l.op(OpExtend, ttl, runExtend)
	if err := l.through(ctx, op); err != nil || op.ran {
		return err
	}
	return l.notRun(op)
}

func (l *Lock) extend(ctx context.Context, ttl time.Duration, op *Op) error {
	if err := l.checkExtension(ttl); err != nil {
		return err
	}
	if !l.locker.begin() {
		return l.notHeld("extend")
	}
	defer l.locker.operations.Done()
	if !l.Valid() {
		return l.notHeld("extend")
	}
	start := op.now()
	tally, extended := l.hold.Extend(ctx, ttl, l.locker.config.timeoutOf(ttl))
	op.record(start, tally)
	if extended {
		return nil
	}
	return l.notExtended(tally).because(ctxErrors(ctx))
}

func (l *Lock) checkExtension(ttl time.Duration) error {
	if outOfRange(ttl) {
		return opErrorf("extend", l.Keys(), "ttl %v: must be 0 (as acquired) or from %v to %v", ttl, MinTTL, MaxTTL)
	}
	if validity := l.locker.clock.Validity(ttl); validity <= l.config.grace {
		return opErrorf("extend", l.Keys(), "ttl %v: its validity, %v, must be above the grace, %v", ttl, validity, l.config.grace)
	}
	if err := l.locker.config.checkLongest(ttl, l.config.fence); err != nil {
		return &opError{op: "extend", keys: l.Keys(), what: err}
	}
	return nil
}

func (l *Lock) notExtended(tally *quorum.Tally) *QuorumError {
	if !l.Valid() {
		return l.locker.quorumError("extend", l.Keys(), tally, ErrNotHeld, l.cause())
	}
	return l.locker.quorumError("extend", l.Keys(), tally, ErrNoQuorum)
}

// AutoExtend starts to extend the lock by its ttl whenever less than threshold
// remains of its validity. It goes on until the lock ends, [Lock.StopAutoExtend]
// is called or [WithMaxHold] is reached. A threshold of 0 means that of
// [WithExtendThreshold], by default two thirds of the ttl. Any other must be below
// the ttl and above the grace. The error matches [ErrNotHeld] if the lock has ended.
func (l *Lock) AutoExtend(threshold time.Duration) error {
	if threshold == 0 {
		threshold = l.config.thresholdOf(l.ttl)
	}
	if threshold <= l.config.grace || threshold >= l.ttl {
		return opErrorf("extend", l.Keys(), "threshold %v: must be 0 (the default) or above the grace, %v, and below the ttl, %v", threshold, l.config.grace, l.ttl)
	}
	if !l.Valid() {
		return l.notHeld("extend")
	}
	l.hold.Auto(threshold)
	return nil
}

// StopAutoExtend stops what [Lock.AutoExtend] or [With] started. The lock then ends
// with its validity, unless [Lock.Extend] extends it.
func (l *Lock) StopAutoExtend() { l.hold.StopAuto() }

// Release ends the lock and deletes its keys where they still hold its token. It
// returns as soon as a quorum has confirmed, and waits for silent nodes no longer
// than the node timeout ([WithNodeTimeout]). Where the release failed, it is retried in
// the background, until it succeeds or the ttl has passed.
//
// Release uses the values of ctx and ignores its end, so it works under a ctx that
// has ended. With [WithBackgroundRelease] it waits for no node.
//
// Release is idempotent: later calls wait for the first and return its error. A middleware
// must not call Release on the lock being released: it would deadlock. The error matches
// [ErrNotHeld] if the lock had ended before, and [ErrNoQuorum] if too many nodes did not
// confirm.
func (l *Lock) Release(ctx context.Context) error {
	l.releasing.Do(func() {
		if l.config.background {
			l.released = l.releaseInBackground(ctx)
		} else {
			l.released = l.releaseNow(ctx)
		}
	})
	return l.released
}

func (l *Lock) releaseNow(ctx context.Context) error {
	if l.locker.chain == nil {
		return l.release(nil)
	}
	defer l.drop() // whatever the middleware does
	panicked := true
	defer func() {
		if panicked { // for later calls of Release
			l.released = &opError{op: "release", keys: l.claim.Keys, what: ErrNoQuorum, how: "a middleware panicked"}
		}
	}()
	err := l.through(ctx, l.op(OpRelease, l.ttl, runRelease))
	panicked = false
	return err
}

func (l *Lock) release(op *Op) error {
	if !l.locker.begin() {
		return l.notHeld("release")
	}
	defer l.locker.operations.Done()
	if keysLeft, err := l.endHold(); !keysLeft {
		return err
	}
	began := op.now()
	poll, verdict := l.locker.nodes.Ask(context.Background(), l.claim, l.releasePatience(), func(_ int, n *node.Node, reply node.ReplyHandler) {
		n.Release(l.claim, reply)
	})
	defer poll.Close()
	op.recordPoll(began, poll)
	if verdict == quorum.Won {
		return nil
	}
	return l.releaseError(verdict, poll.Tally())
}

// endHold ends the hold. It reports whether the keys are left for the caller to release, and the
// error of Release if there was no hold to end.
func (l *Lock) endHold() (keysLeft bool, err error) {
	if l.handOver() { // to a waiter of this process
		return false, nil
	}
	// To any process: each node gives its vote to the first candidate in its queue.
	if !l.hold.End(ErrReleased) {
		l.hold.Done()
		return false, l.notHeld("release")
	}
	return true, nil
}

func (l *Lock) releasePatience() node.Patience {
	return node.Patience{Timeout: l.locker.config.timeoutOf(l.ttl), Limit: l.ttl}
}

func (l *Lock) releaseError(verdict quorum.Verdict, tally *quorum.Tally) error {
	switch {
	case verdict == quorum.Won:
		return nil
	case tally.Denied():
		return l.locker.quorumError("release", l.Keys(), tally, ErrNotHeld)
	}
	return l.locker.quorumError("release", l.Keys(), tally, ErrNoQuorum)
}

// cause returns the cause with which the lock's context ended. It blocks until then: call it
// only for a lock that is no longer valid.
func (l *Lock) cause() error {
	l.hold.Expire() // Valid goes by the clock; the timer may not have run yet
	<-l.Context().Done()
	return context.Cause(l.Context())
}

func (l *Lock) notHeld(op string) error {
	return &opError{op: op, keys: l.claim.Keys, what: ErrNotHeld, why: l.cause()}
}

// heldContext gives a lock's context the values of the ctx that acquired it,
// and the lock itself, but not that ctx's end.
type heldContext struct {
	values context.Context
	lock   *Lock
}

func (heldContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (heldContext) Done() <-chan struct{}       { return nil }
func (heldContext) Err() error                  { return nil }

func (c heldContext) Value(key any) any {
	switch key {
	case lockKey{}:
		return c.lock
	case leasthold.Key{}:
		return leasthold.Keep(c.lock.keep)
	}
	return c.values.Value(key)
}

// owner implements [keeper.Owner] for a Lock, and keeps the methods that the Keeper calls out
// of Lock's API.
type owner Lock

func (o *owner) Cause(loss keeper.Loss) error { return o.locker.lostError(loss) }

func (o *owner) Ended() { (*Lock)(o).noteEnded() }

func (o *owner) Extend() error { return (*Lock)(o).extendDue() }

func (o *owner) Lost() { (*Lock)(o).tellLost() }

// waitQueue returns the queue that the lock takes part in, or nil.
func (l *Lock) waitQueue() *waitqueue.Queue {
	if len(l.claim.Keys) > 1 {
		return nil
	}
	return l.locker.queue
}

// noteHeld tells the queue that an attempt has acquired the lock.
func (l *Lock) noteHeld() {
	q := l.waitQueue()
	if q == nil {
		return
	}
	q.Hold(l.Key(), l.claim)
	if l.Context().Err() != nil { // it ended before Hold, and noteEnded found nothing
		l.noteEnded()
	}
}

// noteEnded tells the queue that the lock is no longer held.
func (l *Lock) noteEnded() {
	if q := l.waitQueue(); q != nil {
		q.Released(l.Key(), l.claim)
	}
}

// handOver passes a lock that is being released to the next waiter of this process, if it may
// have the lock ([waitqueue.Queue.Next]). It reports false if not. Then a process whose own
// callers wait has joined the nodes' queues already, to compete with other processes for the
// release that follows.
func (l *Lock) handOver() bool {
	q := l.waitQueue()
	if q == nil {
		return false
	}
	var next *waitqueue.Waiter
	if left := time.Until(l.hold.Until()); l.config.background {
		next = q.NextAtOnce(l.Key(), l.claim, left)
	} else {
		next = q.Next(l.Key(), l.claim, left)
	}
	if next == nil {
		return false
	}
	until, ok := l.hold.Pass(ErrReleased)
	if !ok {
		next.Restore()
		return false
	}
	next.Pass(waitqueue.Grant{Claim: l.claim, Until: until, Handed: true})
	return true
}

// keep is the [leasthold.Keep] of the lock.
func (l *Lock) keep(until time.Time) bool {
	l.locker.mu.Lock()
	defer l.locker.mu.Unlock()
	if until.IsZero() {
		delete(l.locker.kept, l)
		return true
	}
	if l.locker.closed {
		return false
	}
	if l.locker.kept == nil {
		l.locker.kept = make(map[*Lock]time.Time)
	}
	l.locker.kept[l] = until
	return true
}

// leaveKept ends the locks whose keys must outlive the Locker, and returns them. It does not end
// their claims, so the keys stay until their ttl is over. The Locker is closed, so no lock is
// added.
func (l *Locker) leaveKept() (left []*Lock) {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	now := time.Now()
	for lock, until := range kept {
		if !now.Before(until) {
			continue
		}
		if _, ok := lock.hold.Pass(ErrClosed); ok {
			left = append(left, lock)
		}
	}
	return left
}
