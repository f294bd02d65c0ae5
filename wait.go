package redlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// WaitKind is how a wait for a lock ended.
type WaitKind uint8

const (
	// WaitNone means that the acquire did not wait, or gave up waiting.
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

// wait follows an attempt that failed with a verdict. It waits until the lock is granted, but
// no longer than the next pause of the retry policy. From the first refusal on, the
// acquisition has a place in the queue. wait returns the lock if it was granted, an error if
// the acquisition ends, and neither when it is time for the next attempt.
func (a *acquisition) wait(ctx context.Context, verdict quorum.Verdict) (*Lock, error) {
	select {
	case g := <-a.waiter.Grant(): // it came during the attempt
		if lock := a.accept(ctx, g); lock != nil {
			return lock, nil
		}
	default:
	}
	pause, err := a.nextPause(ctx)
	if err != nil {
		return nil, err
	}
	if verdict == quorum.Lost {
		a.enterQueue()
	}
	began := a.op.now()
	defer a.op.waited(began)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select { // the policy's pause is the fallback for a grant that is lost
	case g := <-a.waiter.Grant():
		return a.accept(ctx, g), nil
	case <-timer.C:
		a.checkQueue()
		return nil, nil
	case <-ctx.Done():
	case <-a.locker.closing:
	}
	return nil, a.notAcquired().because(a.locker.interruption(ctx))
}

// nextPause returns the pause before the next attempt, or an error if there is no next attempt.
func (a *acquisition) nextPause(ctx context.Context) (time.Duration, error) {
	if ended := a.locker.interruption(ctx); ended != nil {
		return 0, a.notAcquired().because(ended)
	}
	if a.hopeless() || !a.waits {
		return 0, a.notAcquired().because(a.whyUnsupported())
	}
	pause, err := a.pauses.take()
	switch {
	case err != nil:
		return 0, &opError{op: "acquire", keys: a.keys, what: err, why: a.notAcquired()}
	case pause == backoff.Stop:
		return 0, a.notAcquired().because(a.whyUnsupported())
	}
	return pause, nil
}

// accept makes a lock of a grant. It returns nil if the grant came too late; the grant then
// goes to the next waiter.
func (a *acquisition) accept(ctx context.Context, g waitqueue.Grant) *Lock {
	a.waiter = nil
	how := WaitGranted
	if g.Handed {
		how = WaitHandedOver
	}
	lock := a.newLock()
	lock.claim = g.Claim
	failed := a.startHold(ctx, lock, won{start: a.locker.clock.Now(), until: g.Until, fenceBy: g.Until, numbers: numbersOfGrant(g), how: how})
	if failed != nil {
		a.locker.queue.Return(a.keys[0], g)
		return nil
	}
	a.op.gotBy(how)
	return lock
}

// queues reports whether the acquisition may wait in a queue.
func (a *acquisition) queues() bool {
	return a.locker.queue != nil && a.waits && len(a.keys) == 1
}

// contendedLocally reports whether this process holds the key, or has a candidate for it in
// the nodes' queues. An attempt would then be pointless, or out of turn.
func (a *acquisition) contendedLocally() bool {
	return a.queues() && a.locker.queue.Contended(a.keys[0])
}

// settlesSplitVotes reports whether the attempt must settle split votes itself, because no
// queue follows that would settle them.
func (a *acquisition) settlesSplitVotes() bool {
	if !a.queues() || !a.locker.queue.Enabled(a.keys[0]) {
		return true
	}
	pause, err := a.pauses.peek()
	return err == nil && pause == backoff.Stop
}

// enterQueue takes a place in the queue, unless the acquisition has one.
func (a *acquisition) enterQueue() {
	if a.waiter == nil && a.queues() {
		a.waiter, a.tooFar = a.locker.queue.Enter(a.keys[0], a.ttl, a.locker.claimOptions(a.config))
	}
}

// checkQueue notes whether the queue has failed, and whether the queue has removed the waiter.
func (a *acquisition) checkQueue() {
	if a.waiter == nil {
		return
	}
	a.op.queueFailed(a.waiter.Failure())
	if a.tooFar = a.waiter.Far(); a.tooFar != nil {
		a.waiter = nil
	}
}

// leaveQueue gives up the place in the queue. A grant that has already come goes to the next
// waiter.
func (a *acquisition) leaveQueue() {
	if a.waiter != nil {
		a.waiter.Leave()
	}
}

// untilGranted returns a ctx that also ends once the lock is granted, so that an attempt does
// not keep a grant waiting. The caller calls done when the attempt is over.
func (a *acquisition) untilGranted(ctx context.Context) (asking context.Context, done func()) {
	if a.waiter == nil {
		return ctx, func() {}
	}
	waiter := a.waiter
	ctx, cancel := context.WithCancel(ctx)
	waiter.Notify(cancel)
	return ctx, func() {
		waiter.Notify(nil)
		cancel()
	}
}

var errHeldHere = errors.New("not asked: this process holds it")

// noteFailure notes how an attempt failed. An interrupted attempt says less than an earlier
// one that the nodes decided, and does not replace it.
func (a *acquisition) noteFailure(failed *failure) {
	if failed.verdict != quorum.Pending || a.last == nil {
		a.last = failed
	}
}

// notAcquired returns the error of an acquisition that ends without the lock: each node's
// vote on the latest attempt, or its later answer to the candidate that this process has in
// the queues.
func (a *acquisition) notAcquired() *QuorumError {
	l, last := a.locker, a.last
	if last == nil {
		last = &failure{verdict: quorum.Lost, tally: quorum.NewTally(l.nodes.Len())}
	}
	tally := last.tally
	if a.queues() {
		tally = quorum.NewTally(l.nodes.Len())
		for i, known := range l.queue.Replies(a.keys[0], errHeldHere) {
			tally.Cast(i, latestReply(known, last.tally.Replies[i], a.skipped))
		}
	}
	reason := last.sentinel()
	if a.unsupported() {
		tally, reason = a.withLacking(tally), ErrNoQuorum
	}
	if a.skipped && tally.Verdict() == quorum.Unreachable {
		reason = ErrNoQuorum
	}
	reasons := []error{reason}
	for _, why := range []error{last.why, a.tooFar} {
		if why != nil {
			reasons = append(reasons, why)
		}
	}
	return l.quorumError("acquire", a.keys, tally, reasons...)
}

// latestReply returns a node's latest reply. If the latest attempt was skipped, that is what
// the queue knows. Otherwise it is the vote on the attempt, with the owner's metadata if only
// the queue has learned it.
func latestReply(known, voted quorum.Reply, skipped bool) quorum.Reply {
	if skipped && known.Vote != quorum.Awaited || voted.Vote == quorum.Awaited && known.Vote == quorum.Refused {
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
