// Package waitqueue queues callers for held locks. Within a process, callers queue per
// key, first come, first served (localQueue). For the first caller, one candidate per key
// joins the queue that each node keeps for the key. A release gives the node's vote to the
// first candidate in that node's queue, and the node pushes the vote at once. A candidate
// with a quorum of votes holds the key, and gives it to the first caller of its localQueue.
//
// The way of a key from its release to the next waiter in another process, in reading order:
//
//   - Queue.Enter (queue.go) adds a Waiter to its key's localQueue and starts a candidate
//     for it (localqueue.go).
//   - candidate.join (candidate.go) sends joins. The node runs join.lua: its queue now has
//     the candidate.
//   - The holder's process releases the key by leave.lua, which gives the node's vote to the
//     first candidate and pushes it. The push comes through listener.go and Queue.heard to
//     candidate.heard. A vote may also come as the answer to a join, to candidate.Joined.
//   - candidate.count (votes.go) counts the valid votes. With a quorum, candidate.win gives
//     the key to the Waiter (waiter.go), for which acquisition.wait of package redlock waits.
//   - Until then the candidate's timer (timer.go) joins again, gives way to others or rests.
//   - A holder that releases may pass the key on inside the process instead (handoff.go).
//
// A candidate does not see when a node grants its vote. The vote carries the number of the
// last of the candidate's joins that the node had run. The candidate knows when it sent that
// join, and the grant came later. So a vote is valid for the window from the sending of the join
// whose number it carries, whether it comes as an answer or as a push, in time or late
// (invariant 1). It is void once a later join has been refused. No node's clock is read.
// Correctness depends on no push, and on no queue being there, complete or in order
// (invariant 8).
package waitqueue

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Queue is the wait queue of one Locker. All its methods are safe for concurrent use.
type Queue struct {
	clock    *clock.Clock
	nodes    *node.Nodes
	handoffs int          // hand-overs per batch
	floor    func() int64 // returns a lower bound for a fence
	nonce    string       // names the channels where the nodes push votes for this Queue
	listener listener

	// mu guards what follows, and everything in each localQueue, Waiter and candidate. A
	// goroutine that holds it sends nothing, and takes only listener.mu and Node.mu. It defers
	// to unlock what must run without mu.
	mu         sync.Mutex
	deferred   []func()
	running    int                    // goroutines that run deferred functions
	idle       sync.Cond              // signalled when running becomes 0
	held       map[string]*node.Claim // by key: this Locker holds it, and it has no localQueue
	local      map[string]*localQueue // by key
	candidates map[string]*candidate  // by token
	trips      []trip                 // by node
	refusals   refusals
	mute       []muteness // by node
	closed     bool
	warned     bool // Waiter.Failure has returned an error
}

// New returns a Queue that allows at most handoffs consecutive local hand-overs of a key.
// floor returns the lower bound of a fence.
func New(c *clock.Clock, nodes *node.Nodes, handoffs int, floor func() int64) *Queue {
	q := &Queue{
		clock:      c,
		nodes:      nodes,
		handoffs:   handoffs,
		floor:      floor,
		nonce:      rand.Text(),
		held:       make(map[string]*node.Claim),
		local:      make(map[string]*localQueue),
		candidates: make(map[string]*candidate),
		trips:      make([]trip, nodes.Len()),
		refusals:   make(refusals, nodes.Len()),
		mute:       make([]muteness, nodes.Len()),
	}
	q.idle.L = &q.mu
	q.listener.init(q)
	return q
}

// Enabled reports whether enough nodes keep a queue for the key for a waiter to be granted it.
func (q *Queue) Enabled(key string) bool {
	q.mu.Lock()
	defer q.unlock()
	return q.enabled(key)
}

// Enter adds a waiter that wants the key for ttl. If the options have a floor, the granted
// claim has a fence. Enter returns an error if the nodes are so far away that a grant for this
// ttl would end before the lock could be extended (invariant 13).
func (q *Queue) Enter(key string, ttl time.Duration, options node.ClaimOptions) (*Waiter, error) {
	q.mu.Lock()
	defer q.unlock()
	if _, ok := q.windowOf(ttl); !ok {
		return nil, q.tooFar(ttl)
	}
	l := q.localQueue(key)
	w := &Waiter{queue: q, local: l, ttl: ttl, options: options, grant: make(chan Grant, 1)}
	l.waiters.push(w)
	q.updateCandidate(l)
	return w, nil
}

// Contended reports whether this Locker holds the key, or has a candidate for it in the
// nodes' queues. Then an attempt is pointless: a join takes a free key too, and sets it for
// no longer than a window. A candidate that cannot win, since too many nodes refuse to keep
// a queue, or move it to another server, does not count.
func (q *Queue) Contended(key string) bool {
	q.mu.Lock()
	defer q.unlock()
	if q.held[key] != nil {
		return true
	}
	l := q.local[key]
	if l == nil {
		return false
	}
	if l.holder != nil {
		return true
	}
	q.updateCandidate(l) // the nodes may be nearer by now
	return l.candidate != nil && l.candidate.failure() == nil && !l.candidate.migrating()
}

// Replies returns what is known of each node without a request. If this Locker holds the key
// itself, every node refuses with the error inside. Otherwise the reply is the node's latest
// answer to the candidate. The vote of a node without an answer is Awaited.
func (q *Queue) Replies(key string, inside error) []quorum.Reply {
	replies := make([]quorum.Reply, q.nodes.Len())
	q.mu.Lock()
	defer q.unlock()
	holder, l := q.held[key], q.local[key]
	if l != nil {
		holder = l.holder
	}
	for i := range replies {
		switch {
		case holder != nil:
			replies[i] = quorum.Reply{Vote: quorum.Refused, Err: inside, Owner: holder.Token}
		case l != nil && l.candidate != nil:
			replies[i] = l.candidate.reply(i)
		}
	}
	return replies
}

// Hold notes that this Locker holds the key by claim.
func (q *Queue) Hold(key string, claim *node.Claim) {
	q.mu.Lock()
	defer q.unlock()
	l := q.local[key]
	if l == nil {
		q.held[key] = claim
		return
	}
	l.holder = claim
	q.updateCandidate(l)
}

// Released notes that a claim is no longer held.
func (q *Queue) Released(key string, claim *node.Claim) {
	q.mu.Lock()
	defer q.unlock()
	if l := q.localQueueOf(key, claim); l != nil {
		q.clearHolder(l)
	}
}

// Return releases the claim of a grant that the waiter could not use.
func (q *Queue) Return(key string, g Grant) {
	q.release(g.Claim)
	q.Released(key, g.Claim)
}

// release ends a claim. Each node gives the key to the next candidate in its queue.
func (q *Queue) release(c *node.Claim) { q.nodes.Abandon(c) }

// Close ends every candidate. No caller may enter from then on. When Close returns, the nodes
// have been told to release every claim that needs it (invariant 4).
func (q *Queue) Close() {
	q.endCandidates()
	q.listener.close()
	q.waitForDeferred()
}

func (q *Queue) endCandidates() {
	q.mu.Lock()
	defer q.unlock()
	q.closed = true
	for _, l := range q.local {
		q.updateCandidate(l)
	}
}

// waitForDeferred waits until no goroutine runs deferred functions.
func (q *Queue) waitForDeferred() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.running > 0 {
		q.idle.Wait()
	}
}

// afterUnlock defers f until the mutex is released. q.mu is held.
func (q *Queue) afterUnlock(f func()) { q.deferred = append(q.deferred, f) }

// releaseAfterUnlock releases a claim once the mutex is released. q.mu is held.
func (q *Queue) releaseAfterUnlock(c *node.Claim) { q.afterUnlock(func() { q.release(c) }) }

// unlock releases the mutex and runs the deferred functions, in order. It takes them off the
// Queue before it releases the mutex, so each goroutine runs exactly what it deferred.
func (q *Queue) unlock() {
	deferred := q.deferred
	if len(deferred) == 0 {
		q.mu.Unlock()
		return
	}
	q.deferred = nil
	q.running++
	q.mu.Unlock()
	for _, f := range deferred {
		f()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running--; q.running == 0 {
		q.idle.Broadcast()
	}
}

// heard passes a node's push to its candidate.
func (q *Queue) heard(i int, p node.Push) {
	q.mu.Lock()
	defer q.unlock()
	if c := q.candidates[p.Token]; c != nil { // otherwise the claim has been given up and is being released
		c.heard(i, p)
	}
}

func (q *Queue) need() int { return q.nodes.Need() }
