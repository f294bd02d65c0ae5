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
	"github.com/redis-kit/redlock/internal/waiting"
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
	pauses  backoff.BackOff
	waiter  *waiting.Waiter
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

// behindOthersHere reports whether this process holds the key, or waits for it: then it is
// of no use to ask the nodes.
func (w *wait) behindOthersHere() bool {
	return w.queues() && w.locker.queue.Busy(w.request.keys[0])
}

// pause waits for the policy's next pause, or until the lock is granted. The place in the
// queue is taken when the lock has been refused.
func (w *wait) pause(ctx context.Context, refused bool) (*Lock, pauseOutcome, error) {
	if w.pauses == nil {
		if w.pauses = w.request.config.retry(); w.pauses == nil {
			return nil, over, argumentError("WithRetry: the policy returned nil: must return a backoff.BackOff")
		}
		w.pauses.Reset()
	}
	d := w.pauses.NextBackOff()
	if d == backoff.Stop {
		return nil, over, nil
	}
	if w.waiter == nil && refused && w.queues() {
		w.waiter = w.locker.queue.Enter(w.request.keys[0], w.request.ttl, w.locker.terms(w.request.config))
	}
	began := w.op.now()
	defer w.op.waited(began)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case g := <-w.waiter.Granted():
		w.waiter = nil
		lock := w.locker.granted(ctx, w.request, g, w.op)
		if lock == nil {
			w.locker.queue.Return(w.request.keys[0], g)
		}
		return lock, passed, nil
	case <-timer.C:
		if w.waiter != nil {
			w.op.queueFailed(w.waiter.Failure())
		}
		return nil, passed, nil
	case <-ctx.Done():
	case <-w.locker.closing:
	}
	return nil, interrupted, nil
}

// end gives the place in the queue up.
func (w *wait) end() {
	if w.waiter != nil {
		w.waiter.Leave()
	}
}

// granted returns the lock that a grant makes, or nil if it came too late.
func (l *Locker) granted(ctx context.Context, r request, g waiting.Grant, op *Op) *Lock {
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl, claim: g.Claim}
	lock.context = heldContext{values: r.values, lock: lock}
	start, validity := l.keeper.Now(), l.keeper.Validity(r.ttl)
	if r.config.fence {
		// Before it is extended: that sets keys where they are gone, and counts nothing.
		if lock.fence = l.grantedFence(ctx, r, g, op); lock.fence == 0 {
			return nil
		}
	}
	terms := keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold, Until: min(g.Until, start.Add(validity))}
	left := g.Until.Sub(l.keeper.Now())
	switch {
	case left <= 2*r.config.grace: // the hold would end, or nearly so, before it is extended
		if terms.Until = l.extendGrant(ctx, r, g, start); terms.Until == 0 {
			return nil
		}
	case g.Handed:
		terms.Raise = left < validity/3*2
	default:
		terms.Raise = true
	}
	if !l.keeper.Hold(&lock.hold, &lock.context, g.Claim, start, terms) {
		return nil
	}
	op.gotBy(g)
	return lock
}

// grantedFence returns the fence of what was granted, or 0 if the nodes could not agree on
// one.
func (l *Locker) grantedFence(ctx context.Context, r request, g waiting.Grant, op *Op) int64 {
	var n numbered
	for i, fence := range g.Fences {
		if fence > 0 {
			n.add(i, fence)
		}
	}
	fence, _ := l.confirm(ctx, g.Claim, n, r.ttl, g.Until, op)
	return fence
}

// extendGrant extends what was granted to its ttl, and returns the end of its
// validity, or 0 if that failed.
func (l *Locker) extendGrant(ctx context.Context, r request, g waiting.Grant, start keeper.Instant) keeper.Instant {
	poll := l.panel.Open()
	defer poll.Close()
	slots := make([]node.Slot, len(l.nodes))
	for i, n := range l.nodes {
		n.Extend(node.Extension{Slot: &slots[i], Claim: g.Claim, TTL: l.keeper.KeyTTL(r.ttl, r.config.maxHold), Voter: poll})
	}
	verdict := poll.Wait(ctx, l.closing, l.config.timeoutOf(r.ttl), g.Until.Sub(l.keeper.Now()), func(i int) (time.Time, error) {
		return l.nodes[i].Unsent(g.Claim)
	})
	if verdict != quorum.Carried || l.keeper.Now() >= g.Until {
		return 0
	}
	return start.Add(l.keeper.Validity(r.ttl))
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
	next.Pass(waiting.Grant{Claim: l.claim, Until: until, Handed: true})
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

var errHeldHere = errors.New("not asked: held or waited for by this process")

// refused is the error of the latest attempt. If there is none, no node has been asked,
// since this process itself holds the key or waits for it.
func (w *wait) refused(last *refusal) *QuorumError {
	l := w.locker
	if last == nil {
		last = &refusal{quorum.NewBallot(len(l.nodes)), ErrNotAcquired}
		for i := range l.nodes {
			last.ballot.Cast(i, quorum.Reply{Vote: quorum.Refused, Err: errHeldHere})
		}
	}
	if w.queues() {
		for i, owner := range l.queue.Owners(w.request.keys[0]) {
			addOwner(&last.ballot.Replies[i], owner)
		}
	}
	return l.quorumError("acquire", w.request.keys, last.ballot, last.reason)
}

// addOwner adds to a node's refusal what is known of the owner, if the node did not tell.
func addOwner(r *quorum.Reply, owner string) {
	held, isHeld := r.Err.(*node.Owned)
	untold := isHeld && held.Metadata == "" || r.Err == errHeldHere
	if metadata := node.Metadata(owner); untold && metadata != "" {
		r.Err = &node.Owned{Metadata: metadata}
	}
}
