package waitqueue

import (
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
)

// Waiter is a caller that waits for a key, in the localQueue of the key.
type Waiter struct {
	queue   *Queue
	local   *localQueue
	ttl     time.Duration
	options node.ClaimOptions
	grant   chan Grant // has room for one, so that give never blocks
	notify  func()     // called when the grant has come; may be nil

	before, after *Waiter // in the waiterList
	queued        bool    // it is in the waiterList
	taken         bool    // Next has taken it: Pass or Restore follows
	leaving       bool    // Leave was called while it was taken
	far           error   // set when it was removed because the nodes are too far away
}

// Grant gives the key to a Waiter: its claim holds the key until Until.
type Grant struct {
	Claim  *node.Claim
	Until  clock.Instant
	Handed bool // handed over by the previous holder, in this process
	// Fences are the fences with which the nodes granted the claim, by node; 0 for nodes
	// whose vote was not counted. It is nil for a claim without a fence.
	Fences []int64
}

// Grant returns the channel on which the Waiter receives the key. A nil Waiter never
// receives it.
func (w *Waiter) Grant() <-chan Grant {
	if w == nil {
		return nil
	}
	return w.grant
}

// Notify has f called when the grant comes, or at once if it has come already. f must not
// block. A nil f ends that.
func (w *Waiter) Notify(f func()) {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	w.notify = f
	if len(w.grant) > 0 && f != nil {
		q.afterUnlock(f)
	}
}

// Far returns an error if the Waiter was removed from its localQueue because the nodes are too
// far away for its ttl.
func (w *Waiter) Far() error {
	w.queue.mu.Lock()
	defer w.queue.unlock()
	return w.far
}

// Failure returns an error if too few nodes keep a queue for the candidate to win, or push its
// grants. Each Queue returns such an error only once.
func (w *Waiter) Failure() error {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	if q.warned {
		return nil
	}
	err := q.failure(w.local.key)
	if c := w.local.candidate; c != nil {
		err = c.failure()
	}
	if err == nil {
		err = q.refusals.failure(q.need())
	}
	q.warned = err != nil
	return err
}

// Leave ends the wait. A grant that has come, or is about to come, goes to the next waiter.
func (w *Waiter) Leave() {
	if w.leave() {
		g := <-w.grant // without the mutex, which Pass and Restore need to send it
		if g.Claim != nil {
			w.queue.passOn(w.local.key, g)
		}
	}
}

// leave removes w from its localQueue. It reports whether a grant for w has come already, or is
// about to come because Next has taken w.
func (w *Waiter) leave() (granted bool) {
	q, l := w.queue, w.local
	q.mu.Lock()
	defer q.unlock()
	granted, w.leaving = w.taken || len(w.grant) > 0, w.taken
	l.waiters.remove(w)
	if !granted {
		q.updateCandidate(l)
	}
	return granted
}

// Pass gives the key to w, which Next took.
func (w *Waiter) Pass(g Grant) {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	w.local.holder = g.Claim
	w.local.taken--
	w.taken = w.leaving // if it is leaving, Leave receives the grant
	w.give(g)           // under the mutex: a Leave in between would find w neither taken nor granted
}

// Restore puts w, which Next took, back to the front: the holder has lost the key.
func (w *Waiter) Restore() {
	q, l := w.queue, w.local
	q.mu.Lock()
	defer q.unlock()
	w.taken = false
	l.taken--
	if w.leaving {
		w.give(Grant{})
	} else {
		l.waiters.pushFront(w)
	}
	q.updateCandidate(l)
}

// give sends w its grant. q.mu is held.
func (w *Waiter) give(g Grant) {
	w.grant <- g
	if w.notify != nil {
		w.queue.afterUnlock(w.notify)
	}
}
