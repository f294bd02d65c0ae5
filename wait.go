package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// WaitKind is how a wait for a lock ended.
type WaitKind uint8

const (
	// WaitNone means that there was no wait, or that it was in vain.
	WaitNone WaitKind = iota
	// WaitPolled means that a later attempt found the lock free.
	WaitPolled
	// WaitGranted means that the nodes granted the lock, as it was first in their queues.
	WaitGranted
	// WaitHandedOver means that another goroutine of this process passed the lock on.
	WaitHandedOver
)

var waitNames = [...]string{WaitNone: "none", WaitPolled: "polled", WaitGranted: "granted", WaitHandedOver: "handed over"}

// String returns "none", "polled", "granted" or "handed over".
func (k WaitKind) String() string {
	if int(k) >= len(waitNames) {
		return fmt.Sprintf("WaitKind(%d)", uint8(k))
	}
	return waitNames[k]
}

// wait is what one acquisition has between its attempts: pauses, by the retry policy, and
// from the first refusal on, where there is a queue, a place in it.
type wait struct {
	locker  *Locker
	request request
	op      *Op
	age     int64 // of all its attempts; 0 before the first
	pauses  backoff.BackOff
	pending time.Duration // the next pause, if it is known
	known   bool
	waiter  *waitqueue.Waiter
	far     error    // why it has no place in the queue; nil if it has, or has not asked for one
	last    *refusal // of the latest attempt that was decided
	queued  bool     // after that it has relied on the queue
}

// pauseOutcome is how a pause ended that brought no lock.
type pauseOutcome uint8

const (
	passed      pauseOutcome = iota // it is time for the next attempt
	interrupted                     // ctx ended, or the Locker was closed
	over                            // there was none: the policy allows no more
)

// queues reports whether the acquisition may wait in a queue.
func (w *wait) queues() bool {
	return w.locker.queue != nil && w.request.wait && len(w.request.keys) == 1
}

// asks reports whether this process asks the nodes for the key already, in their queues,
// or holds it: then an attempt would be of no use, or out of turn.
func (w *wait) asks() bool {
	w.queued = w.queues() && w.locker.queue.Contended(w.request.keys[0])
	return w.queued
}

// claim makes c a claim of the acquisition, with a fresh token.
func (w *wait) claim(c *node.Claim) {
	if w.age == 0 {
		w.age = node.NewAge()
	}
	w.locker.claim(c, &w.request, w.age)
}

func (l *Locker) claim(c *node.Claim, r *request, age int64) {
	c.Init(r.keys, node.Tag(node.AttemptToken(age), r.config.metadata), len(l.nodes))
	c.Ask(l.terms(r.config))
}

// renewal returns a function that makes more claims of the acquisition. It holds on to
// copies, so that a wait stays off the heap.
func (w *wait) renewal() func() *node.Claim {
	l, r, age := w.locker, w.request, w.age
	return func() *node.Claim {
		c := new(node.Claim)
		l.claim(c, &r, age)
		return c
	}
}

// settles reports whether split votes are settled at once: no queue follows, in which they
// would be.
func (w *wait) settles() bool {
	if !w.queues() || !w.locker.queue.Enabled() {
		return true
	}
	d, err := w.next()
	return err == nil && d == backoff.Stop
}

// next returns the policy's next pause. It is the same until pause takes it.
func (w *wait) next() (time.Duration, error) {
	if w.pauses == nil {
		if w.pauses = w.request.config.retry(); w.pauses == nil {
			return 0, argumentError("WithRetry: the policy returned nil: must return a backoff.BackOff")
		}
		w.pauses.Reset()
	}
	if !w.known {
		w.pending, w.known = w.pauses.NextBackOff(), true
	}
	return w.pending, nil
}

// pause waits for the policy's next pause, or until the lock is granted. The place in the
// queue is taken when the lock has been refused.
func (w *wait) pause(ctx context.Context, refused bool) (*Lock, pauseOutcome, error) {
	d, err := w.next()
	if err != nil || d == backoff.Stop {
		return nil, over, err
	}
	w.known = false
	if w.waiter == nil && refused && w.queues() {
		w.waiter, w.far = w.locker.queue.Enter(w.request.keys[0], w.request.ttl, w.locker.terms(w.request.config))
	}
	began := w.op.now()
	defer w.op.waited(began)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case g := <-w.waiter.Grant():
		return w.take(ctx, g), passed, nil
	case <-timer.C:
		if w.waiter != nil {
			w.op.queueFailed(w.waiter.Failure())
			if w.far = w.waiter.Far(); w.far != nil {
				w.waiter = nil // it stands in no line any more
			}
		}
		return nil, passed, nil
	case <-ctx.Done():
	case <-w.locker.closing:
	}
	return nil, interrupted, nil
}

// granted returns the lock that has been granted already, nil if none has.
func (w *wait) granted(ctx context.Context) *Lock {
	select {
	case g := <-w.waiter.Grant():
		return w.take(ctx, g)
	default:
		return nil
	}
}

// take returns the lock that a grant makes, or nil if it came too late; then it goes to the
// next.
func (w *wait) take(ctx context.Context, g waitqueue.Grant) *Lock {
	w.waiter = nil
	lock := w.locker.granted(ctx, &w.request, g, w.op)
	if lock == nil {
		w.locker.queue.Return(w.request.keys[0], g)
	}
	return lock
}

// untilGranted returns a ctx that also ends once the lock is granted, and what frees it: an
// attempt must not keep a grant lying.
func (w *wait) untilGranted(ctx context.Context) (context.Context, func()) {
	if w.waiter == nil {
		return ctx, func() {}
	}
	waiter := w.waiter
	ctx, cancel := context.WithCancel(ctx)
	waiter.Notify(cancel)
	return ctx, func() {
		waiter.Notify(nil)
		cancel()
	}
}

// end gives the place in the queue up. A grant that has come goes to the next here.
func (w *wait) end() {
	if w.waiter != nil {
		w.waiter.Leave()
	}
}

// granted returns the lock that a grant makes, or nil if it came too late.
func (l *Locker) granted(ctx context.Context, r *request, g waitqueue.Grant, op *Op) *Lock {
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl, claim: g.Claim}
	lock.context = heldContext{values: r.values, lock: lock}
	start := l.keeper.Now()
	if r.config.fence {
		// Before it is extended: that sets keys where they are gone, and counts nothing.
		if lock.fence = l.grantedFence(ctx, r, g, op); lock.fence == 0 {
			return nil
		}
	}
	how, trip := WaitHandedOver, time.Duration(0) // what is handed over is long enough
	if !g.Handed {
		how, trip = WaitGranted, l.trip()
	}
	terms, err := l.freshen(ctx, r, g.Claim, start, g.Until, trip, how)
	if err != nil || !l.keeper.Hold(&lock.hold, &lock.context, g.Claim, start, terms) {
		return nil
	}
	op.gotBy(how)
	return lock
}

// grantedFence returns the fence of what was granted, or 0 if the nodes could not agree on
// one.
func (l *Locker) grantedFence(ctx context.Context, r *request, g waitqueue.Grant, op *Op) int64 {
	var n numbered
	for i, fence := range g.Fences {
		if fence > 0 {
			n.add(i, fence)
		}
	}
	fence, _ := l.confirm(ctx, g.Claim, n, r.ttl, g.Until, op)
	return fence
}

// took notes that an attempt has taken the lock.
func (l *Locker) took(lock *Lock) {
	if l.queue == nil || len(lock.claim.Keys) > 1 {
		return
	}
	l.queue.Hold(lock.Key(), lock.claim)
	if lock.Context().Err() != nil { // it ended before that, and left found nothing
		l.left(lock)
	}
}

// handOver passes a lock that is released on to another goroutine that waits for
// it. It reports false if there is none.
func (l *Lock) handOver() bool {
	q := l.locker.queue
	if q == nil || len(l.claim.Keys) > 1 {
		return false
	}
	next := q.Next(l.Key(), l.claim, time.Until(l.hold.Until()))
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

// left notes that a lock is not held any more.
func (l *Locker) left(lock *Lock) {
	if l.queue != nil && len(lock.claim.Keys) == 1 {
		l.queue.Released(lock.Key(), lock.claim)
	}
}

// ended is left for a lock that was not released.
func (l *Locker) ended(h *keeper.Hold) {
	if lock, ok := FromContext(h.Context()); ok {
		l.left(lock)
	}
}

var errHeldHere = errors.New("not asked: this process holds it")

// refuse notes how an attempt failed, unless a decision came before.
func (w *wait) refuse(verdict quorum.Verdict, failed *refusal) {
	if verdict != quorum.Open || w.last == nil {
		w.last = failed
	}
}

// refused is the error of the latest attempt, with what has become known since without
// one: this process holds the key, or has a place in the nodes' queues.
func (w *wait) refused() *QuorumError {
	l, last := w.locker, w.last
	if last == nil {
		last = &refusal{ballot: quorum.NewBallot(len(l.nodes)), reason: ErrNotAcquired}
	}
	ballot := last.ballot
	if w.queues() {
		ballot = quorum.NewBallot(len(l.nodes))
		for i, known := range l.queue.Replies(w.request.keys[0], errHeldHere) {
			ballot.Cast(i, latest(known, last.ballot.Replies[i], w.queued))
		}
	}
	reason := last.reason
	if w.queued && ballot.Verdict() == quorum.Unreachable {
		reason = ErrNoQuorum
	}
	reasons := []error{reason}
	for _, why := range []error{last.why, w.far} {
		if why != nil {
			reasons = append(reasons, why)
		}
	}
	return l.quorumError("acquire", w.request.keys, ballot, reasons...)
}

// latest returns what a node said last: what is known of it now, if no attempt was made
// since; else the vote of the attempt, with the owner's metadata if only the queue was told.
func latest(known, voted quorum.Reply, queued bool) quorum.Reply {
	if queued && known.Vote != quorum.Pending || voted.Vote == quorum.Pending && known.Vote == quorum.Refused {
		if metadata := node.Metadata(known.Owner); known.Err == errHeldHere && metadata != "" {
			known.Err = &node.Owned{Metadata: metadata}
		}
		return known
	}
	if held, ok := voted.Err.(*node.Owned); ok && held.Metadata == "" && known.Owner != "" {
		voted.Err = node.OwnedBy(known.Owner)
	}
	return voted
}
