package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waiting"
)

// WaitKind is how a wait for a lock ended.
type WaitKind uint8

const (
	// WaitNone: there was no wait, or it was in vain.
	WaitNone WaitKind = iota
	// WaitPolled: the lock was free when it was asked for again.
	WaitPolled
	// WaitGranted: the nodes gave the lock to whoever was first in their queues.
	WaitGranted
	// WaitHandedOver: another goroutine of this process passed the lock on.
	WaitHandedOver
)

var waitNames = [...]string{WaitNone: "none", WaitPolled: "polled", WaitGranted: "granted", WaitHandedOver: "handed over"}

func (k WaitKind) String() string {
	if int(k) >= len(waitNames) {
		return fmt.Sprintf("WaitKind(%d)", uint8(k))
	}
	return waitNames[k]
}

// queues reports whether those who ask for r wait in a queue.
func (l *Locker) queues(r request) bool { return l.queue != nil && r.wait && len(r.keys) == 1 }

// granted returns the lock that a grant makes, or nil if it came too late.
func (l *Locker) granted(ctx context.Context, r request, g waiting.Grant, op *Op) *Lock {
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl, claim: g.Claim}
	lock.context = heldContext{values: r.values, lock: lock}
	start, validity := l.keeper.Now(), l.keeper.Validity(r.ttl)
	terms := keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold, Until: min(g.Until, start.Add(validity))}
	left := g.Until.Sub(start)
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

// extendGrant extends what was granted to its ttl, and returns the end of its
// validity, or 0 if that failed.
func (l *Locker) extendGrant(ctx context.Context, r request, g waiting.Grant, start keeper.Instant) keeper.Instant {
	poll := l.panel.Open()
	defer poll.Close()
	slots := make([]node.Slot, len(l.nodes))
	for i, n := range l.nodes {
		n.Extend(node.Extension{Slot: &slots[i], Claim: g.Claim, TTL: l.keeper.KeyTTL(r.ttl, r.config.maxHold), Voter: poll})
	}
	verdict := poll.Wait(ctx, l.closing, l.config.timeoutOf(r.ttl), g.Until.Sub(start), func(i int) (time.Time, error) {
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

// heldHere is the error of an acquisition that has asked no node, since this
// process itself holds the key or waits for it.
func (l *Locker) heldHere(r request) *QuorumError {
	ballot := quorum.NewBallot(len(l.nodes))
	for i := range l.nodes {
		ballot.Cast(i, quorum.Reply{Vote: quorum.Refused, Err: errHeldHere})
	}
	return l.quorumError("acquire", r.keys, ballot, ErrNotAcquired)
}
