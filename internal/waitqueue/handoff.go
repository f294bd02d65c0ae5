package waitqueue

import (
	"context"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// batchTime bounds how long a lock is handed over inside the process before other
	// processes have their turn.
	batchTime = 100 * time.Millisecond
	// maxSkipped bounds the number of consecutive batches that end without a question to the
	// nodes.
	maxSkipped = 15
	// handoffMargin is the time that a hand-over takes in addition to the round trips of an
	// extension.
	handoffMargin = 2 * time.Millisecond
)

// handoffBatch is the consecutive hand-overs of a key inside the process. At its end other
// processes have their turn.
//
// To give other processes their turn takes two calls to every node, one after the other, even
// if no other process waits. So the holder first asks the nodes whether their queues are
// empty (queuesAreEmpty). If a quorum answers yes, another batch begins. This decides only
// which waiter is next; no lock's safety depends on it.
//
// Another process that has joined a quorum of the nodes waits for one batch at most: one of
// the nodes that answer has that process in its queue. If a node answers that its queue is
// empty just before the process joins it, the question was sent before the join, and the new
// batch counts from the question.
type handoffBatch struct {
	handed int       // number of hand-overs
	since  time.Time // start of the batch; zero if it has not begun
}

// done reports whether the batch has come to its end.
func (b handoffBatch) done(handoffs int, now time.Time) bool {
	return b.handed >= handoffs || b.handed > 0 && now.Sub(b.since) >= batchTime
}

// askBackoff decides which batches of a localQueue end with that question. While other
// processes wait, the question costs a round trip for nothing, so it becomes rare.
type askBackoff struct {
	skip int // number of batches to come that end without a question
	last int // value of skip after the latest question
}

// due reports whether the batch that ends now ends with a question.
func (b *askBackoff) due() bool {
	if b.skip == 0 {
		return true
	}
	b.skip--
	return false
}

func (b *askBackoff) answered(empty bool) {
	b.last = min(2*b.last+1, maxSkipped)
	if empty {
		b.last = 0
	}
	b.skip = b.last
}

// Next takes the waiter that a holder about to release may pass the key to, or returns nil.
// It returns nil if no caller waits, if it is the turn of other processes, or if the waiter
// needs a new token (for a fence, or for other metadata) or a shorter ttl than the keys
// still have. left is the rest of the lock's validity; it must suffice to extend the lock
// (invariant 12).
//
// When Next returns nil, the claim is no longer the key's holder here, and a candidate has
// joined the nodes' queues for a waiter of this process. The caller then releases the claim:
// the candidate must be in the queues by then.
//
// At the end of a batch Next may ask the nodes whether other processes wait. Then it blocks
// until they answer.
func (q *Queue) Next(key string, claim *node.Claim, left time.Duration) *Waiter {
	w, undecided := q.nextInBatch(key, claim, left, true)
	if undecided != nil {
		asked := time.Now() // before the question is sent
		empty := q.queuesAreEmpty(claim)
		w = q.nextAfterAnswer(undecided, claim, left, asked, empty)
	}
	return w
}

// NextAtOnce is Next for a holder that waits for no node: at the end of a batch it is the turn of
// other processes.
func (q *Queue) NextAtOnce(key string, claim *node.Claim, left time.Duration) *Waiter {
	w, _ := q.nextInBatch(key, claim, left, false)
	return w
}

// nextInBatch is Next without a question. If the nodes have to be asked first, and mayAsk, it
// leaves the decision to nextAfterAnswer, and returns the localQueue.
func (q *Queue) nextInBatch(key string, claim *node.Claim, left time.Duration, mayAsk bool) (w *Waiter, undecided *localQueue) {
	q.mu.Lock()
	defer q.unlock()
	if l := q.localQueueOf(key, claim); l != nil {
		w = q.take(l, left)
		switch {
		case w != nil:
		case mayAsk && q.questionDue(l, left):
			undecided = l
		default:
			q.clearHolder(l)
		}
	}
	return w, undecided
}

// nextAfterAnswer is Next once the nodes have answered the question that was sent at asked.
// If their queues are empty, the holder's next batch begins.
func (q *Queue) nextAfterAnswer(l *localQueue, claim *node.Claim, left time.Duration, asked time.Time, empty bool) *Waiter {
	q.mu.Lock()
	defer q.unlock()
	l.backoff.answered(empty)
	if l.holder != claim { // its hold ended before the answer came
		return nil
	}
	if empty {
		l.batch = handoffBatch{since: asked}
	}
	w := q.take(l, left-time.Since(asked))
	if w == nil {
		q.clearHolder(l)
	}
	return w
}

// take takes the first waiter, unless the batch is done or the key cannot be passed to it.
// q.mu is held.
func (q *Queue) take(l *localQueue, left time.Duration) *Waiter {
	if !q.passable(l, left) {
		return nil
	}
	now := time.Now()
	if l.batch.since.IsZero() {
		l.batch.since = now
	}
	if l.batch.done(q.handoffs, now) {
		return nil
	}
	l.batch.handed++
	l.taken++
	w := l.waiters.pop()
	w.taken = true
	return w
}

// passable reports whether the holder's key may be passed to the first waiter. q.mu is held.
func (q *Queue) passable(l *localQueue, left time.Duration) bool {
	next := l.waiters.first
	if next == nil || q.closed {
		return false
	}
	fenced := l.holder.Fenced() || next.options.Floor > 0 // each holder needs a fence of its own
	return q.lasts(next, left) && !fenced && l.holder.Options().Metadata == next.options.Metadata
}

// lasts reports whether a key that is valid for left can be passed to w: left is no longer than
// w asks for, and long enough to extend the lock (invariant 12). q.mu is held.
func (q *Queue) lasts(w *Waiter, left time.Duration) bool {
	return left <= w.ttl && left > 3*q.trip()+handoffMargin
}

// questionDue reports whether the batch is done and the holder must ask the nodes whether other
// processes wait. If left, the rest of the key's validity, is short, the turn of other
// processes is better, because its grant is fresh: with one short hold after another, the lock
// would end before an extension. q.mu is held.
func (q *Queue) questionDue(l *localQueue, left time.Duration) bool {
	if !q.passable(l, left) || !q.enabled(l.key) || q.handoffs == 0 || !l.batch.done(q.handoffs, time.Now()) {
		return false
	}
	return left >= min(usualWindow, l.waiters.first.ttl)/2 && l.backoff.due()
}

// queuesAreEmpty reports whether a quorum of the nodes answers that its queue is empty. It
// waits for no longer than a batch lasts.
func (q *Queue) queuesAreEmpty(claim *node.Claim) bool {
	poll, verdict := q.nodes.Ask(context.Background(), claim, node.Patience{Timeout: batchTime, Limit: batchTime}, func(_ int, n *node.Node, reply node.ReplyHandler) {
		n.Look(claim, reply)
	})
	defer poll.Close()
	return verdict == quorum.Won
}

// passOn gives a grant whose waiter has left to the next waiter of this process, or returns it
// to the nodes if that waiter cannot use it.
func (q *Queue) passOn(key string, g Grant) {
	if !q.giveToNext(key, g) {
		q.Return(key, g)
	}
}

func (q *Queue) giveToNext(key string, g Grant) bool {
	q.mu.Lock()
	defer q.unlock()
	l := q.localQueueOf(key, g.Claim)
	if l == nil || !q.suits(l, g) {
		return false
	}
	l.waiters.pop().give(g)
	return true
}

// suits reports whether the first waiter can use a grant. q.mu is held.
func (q *Queue) suits(l *localQueue, g Grant) bool {
	w := l.waiters.first
	return w != nil && !q.closed && g.Claim.Fenced() == (w.options.Floor > 0) && g.Claim.Options().Metadata == w.options.Metadata &&
		q.lasts(w, g.Until.Sub(q.clock.Now()))
}
