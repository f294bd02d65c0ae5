package waitqueue

import (
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// localQueue is the process's own queue for one key. It also has the claim that holds the key,
// if this process holds it. It is created when the first caller waits: most held locks need
// none.
type localQueue struct {
	key       string
	waiters   waiterList
	taken     int           // number of Waiters that Next has taken
	holder    *node.Claim   // of this Locker; nil if it does not hold the key
	candidate *candidate    // nil while there is a holder, or no waiter
	restBound time.Duration // upper bound of the candidate's last rest; 0 once it has won
	batch     handoffBatch  // of the holder
	backoff   askBackoff
}

func (l *localQueue) empty() bool { return l.holder == nil && l.waiters.n == 0 && l.taken == 0 }

// localQueue returns the localQueue of a key, with its holder. q.mu is held.
func (q *Queue) localQueue(key string) *localQueue {
	l := q.local[key]
	if l == nil {
		l = &localQueue{key: key, holder: q.held[key]}
		q.local[key] = l
		delete(q.held, key)
	}
	return l
}

// localQueueOf returns the localQueue whose key is held by claim, nil if there is none. A
// claim that holds the key without a localQueue is removed: it no longer holds the key.
// q.mu is held.
func (q *Queue) localQueueOf(key string, claim *node.Claim) *localQueue {
	if q.held[key] == claim {
		delete(q.held, key)
	}
	if l := q.local[key]; l != nil && l.holder == claim {
		return l
	}
	return nil
}

// clearHolder notes that this process no longer holds the key. A candidate then joins the nodes'
// queues for the first waiter. q.mu is held.
func (q *Queue) clearHolder(l *localQueue) {
	l.holder, l.batch = nil, handoffBatch{}
	q.updateCandidate(l)
}

// updateCandidate starts, replaces or ends the candidate, as the first waiter needs. It first
// removes waiters at the front whose ttl has become too short for the nodes' distance. q.mu is
// held.
func (q *Queue) updateCandidate(l *localQueue) {
	if l.holder != nil || q.closed || !q.enabled(l.key) {
		q.withdraw(l)
		return
	}
	for w := l.waiters.first; w != nil; w = l.waiters.first {
		if _, ok := q.windowOf(w.ttl); ok {
			q.ensureCandidate(l, w)
			return
		}
		w.far = q.tooFar(w.ttl) // the nodes were nearer when it entered
		l.waiters.remove(w)
	}
	q.withdraw(l)
}

// ensureCandidate keeps the candidate if it fits w. Otherwise it starts another one of the
// same age for w: the process has waited that long. q.mu is held.
func (q *Queue) ensureCandidate(l *localQueue, w *Waiter) {
	switch c := l.candidate; {
	case c == nil:
		startCandidate(w, time.Now().UnixMilli(), q.clock.Now())
	case !c.fits(w):
		q.endCandidate(l)
		q.releaseAfterUnlock(c.claim)
		startCandidate(w, c.order, c.since)
	}
}

// withdraw ends the candidate, if there is one: keys that nodes have granted it, or still
// grant it, go to the next candidate. q.mu is held.
func (q *Queue) withdraw(l *localQueue) {
	if c := l.candidate; c != nil {
		q.endCandidate(l)
		q.releaseAfterUnlock(c.claim)
	} else if l.empty() {
		delete(q.local, l.key)
	}
}

// endCandidate ends the candidate, and drops the localQueue if it is empty. q.mu is held.
func (q *Queue) endCandidate(l *localQueue) {
	c := l.candidate
	l.candidate = nil
	delete(q.candidates, c.claim.Token)
	c.ended = true
	c.timer.Stop()
	q.listener.unsubscribe(l.key)
	if l.empty() {
		delete(q.local, l.key)
	}
}
