package waitqueue

import (
	"errors"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
)

const (
	// usualWindow is the usual window: the time for which a grant sets a key. It bounds how
	// long a stopped process keeps the key. The window is shorter if the ttl is, and longer if
	// the nodes are far away.
	usualWindow = 500 * time.Millisecond
	// joinWindow is the number of joins after which a late vote is ignored.
	joinWindow = 64
)

// allNodes is a set of nodes, as bits, that contains them all.
const allNodes = ^uint64(0)

// candidate stands in the nodes' queues for the first waiter of one key. Its claim changes: to
// give up votes, it releases the claim, and goes on with another one of the same age. The
// Queue's mutex guards it.
type candidate struct {
	queue   *Queue
	local   *localQueue
	options node.ClaimOptions
	ttl     time.Duration // of the waiter that it was made for
	order   int64         // the wall clock when the process began to wait, in ms
	since   clock.Instant // the same moment by queue.clock
	ended   bool

	claim      *node.Claim
	window     time.Duration // of the claim: it never changes under one token, see renew
	base       int64         // the number of the last join before the claim's first
	votesSince clock.Instant // since then the claim has had votes, valid or void; 0 if it has none

	number int64                     // of the last join
	sent   [joinWindow]clock.Instant // when each join was sent, by number
	states []nodeState               // by node
	holder string                    // token of the owner that recheck found to have a quorum; empty if none
	ceded  uint64                    // nodes, as bits, that the candidate does not join: it left their votes to the holder

	phase    phase
	timer    *time.Timer   // runs onTimer
	due      clock.Instant // when the timer fires, unless the candidate rests
	pause    time.Duration // until the next recheck
	rechecks int           // number of rechecks in this phase
	restEnd  clock.Instant // the latest end of a rest
	outage   bool          // the rest is for nodes that could not be reached
}

// startCandidate starts the localQueue's candidate for w. order and since say when the process
// began to wait. q.mu is held.
func startCandidate(w *Waiter, order int64, since clock.Instant) {
	q := w.queue
	c := &candidate{
		queue: q, local: w.local, options: w.options, ttl: w.ttl, order: order, since: since, states: make([]nodeState, q.nodes.Len()),
	}
	c.timer = time.AfterFunc(time.Hour, c.onTimer)
	c.timer.Stop()
	c.renew()
	c.enterCalm()
	c.local.candidate = c
	q.listener.subscribe(w.local.key)
	c.joinAll()
}

// renew releases the claim and goes on with another one of the same age, which keeps its
// place in the queues. It returns the nodes, as bits, whose votes for the old claim were
// valid. (The token must change: a release that reused it could run late, after the node had
// granted the token again, and delete the holder's key.)
//
// The window changes only with the claim: a node keeps the number of the join that was sent
// last, but the window of the join that arrived last. So with two windows under one token,
// the candidate could overestimate the validity of a vote. q.mu is held.
func (c *candidate) renew() (votedFor uint64) {
	q := c.queue
	if old := c.claim; old != nil {
		votedFor = c.voters() // before the states are reset
		delete(q.candidates, old.Token)
		q.releaseAfterUnlock(old)
	}
	c.claim = node.NewClaim([]string{c.local.key}, node.Tag(node.CandidateToken(c.order), c.options.Metadata), q.nodes.Len())
	c.claim.Ask(c.options)
	c.window, _ = q.windowOf(c.ttl)
	c.base, c.votesSince = c.number, 0
	c.phase, c.rechecks = calm, 0 // not enterCalm, so that the pause goes on growing if the next claim fares no better
	for i := range c.states {
		c.states[i].reset()
	}
	q.candidates[c.claim.Token] = c
	return votedFor
}

// fits reports whether w can use a grant to the candidate.
func (c *candidate) fits(w *Waiter) bool {
	if c.options.Metadata != w.options.Metadata || c.options.Floor == 0 && w.options.Floor > 0 {
		return false
	}
	// A grant must not set the key for longer than w asks for, nor for less than w can use.
	window, _ := c.queue.windowOf(w.ttl)
	return c.window <= w.ttl && (c.ttl >= w.ttl || c.window >= window)
}

// joinAll joins all nodes, and sets the timer to the next heartbeat. q.mu is held.
func (c *candidate) joinAll() {
	c.wake(c.heartbeat())
	c.join(allNodes)
}

// join joins the queues of some nodes, given as bits. q.mu is held; the joins are sent after it
// is released.
func (c *candidate) join(nodes uint64) {
	q, now := c.queue, c.queue.clock.Now()
	nodes = c.joinable(nodes, now)
	if nodes == 0 {
		return
	}
	c.number++
	c.sent[c.number%joinWindow] = now // before it is sent (invariant 1)
	claim, entry := c.claim, c.entry(now, node.LockerChannel(q.nonce))
	ofKey := entry
	if len(q.listener.perKey) > 0 {
		ofKey = c.entry(now, node.KeyChannel(c.local.key, q.nonce))
	}
	nonces := make([]string, len(c.states))
	for i := range c.states {
		if s := &c.states[i]; nodes&(1<<i) != 0 {
			s.lastJoin, s.unanswered = now, append(s.unanswered, c.number)
			nonces[i] = s.nonce
		}
	}
	q.afterUnlock(func() {
		for i, n := range q.nodes.All() {
			switch {
			case nodes&(1<<i) == 0:
			case n.Channels() == node.ChannelPerKey:
				n.Join(claim, ofKey, nonces[i], c)
			default:
				n.Join(claim, entry, nonces[i], c)
			}
		}
	})
}

// joinable returns those of the nodes that the candidate may join now. It may not join a node
// that has not answered for a window: the joins would renew grants without the candidate
// hearing of them (invariant 13). It does not join a node that cannot push. A candidate that
// rests joins no node.
func (c *candidate) joinable(nodes uint64, now clock.Instant) (joinable uint64) {
	for i := range c.states {
		if c.phase != resting && nodes&^c.ceded&(1<<i) != 0 && !c.overdue(i, now) && c.queue.muteSince(i) == nil {
			joinable |= 1 << i
		}
	}
	return joinable
}

// entry returns the candidate's entry in the nodes' queues for its latest join.
func (c *candidate) entry(now clock.Instant, channel string) *node.Entry {
	entry := &node.Entry{
		Number: c.number, Order: c.order, Waited: now.Sub(c.since), Channel: channel, Window: c.window,
		Lease: c.heartbeat() + c.window, // a candidate that joins later than that returns to its place
	}
	if c.options.Floor > 0 {
		entry.Floor = c.queue.floor()
	}
	return entry
}

// refresh joins a node again, unless an answer of the node is outstanding.
func (c *candidate) refresh(i int) {
	if len(c.states[i].unanswered) == 0 {
		c.join(1 << i)
	}
}

// Joined implements node.Joiner.
func (c *candidate) Joined(i int, command *node.Command) {
	q := c.queue
	q.mu.Lock()
	defer q.unlock()
	c.noteAnswer(i, command)
	if !c.ended && command.Claim == c.claim {
		c.noteOutcome(i, command)
		c.count()
	}
}

// noteAnswer notes the answer to a join, of this claim or an earlier one, and how long the
// node took.
func (c *candidate) noteAnswer(i int, command *node.Command) {
	s, number := &c.states[i], command.Entry.Number
	s.unanswered = slices.DeleteFunc(s.unanswered, func(n int64) bool { return n == number })
	answered := command.Outcome == node.Done || command.Outcome == node.Refused
	if answered && !c.ended && number > c.number-joinWindow {
		now := c.queue.clock.Now()
		c.queue.trips[i] = trip{now.Sub(c.sent[number%joinWindow]), now}
	}
}

// noteOutcome notes the outcome of one of the claim's joins.
func (c *candidate) noteOutcome(i int, command *node.Command) {
	s := &c.states[i]
	s.err = command.Err
	s.unknown = command.Outcome == node.Unknown && !errors.Is(command.Err, node.ErrNotRun)
	switch command.Outcome {
	case node.Done:
		c.addVote(i, command.Entry.Number, command.Fence)
	case node.Refused:
		c.noteRefusal(i, command)
	}
}

// noteRefusal notes that another owner has the node's vote. It sets the timer earlier if the
// candidate has come nearer to the front of the queue.
func (c *candidate) noteRefusal(i int, command *node.Command) {
	s := &c.states[i]
	s.voidBelow, s.rank = max(s.voidBelow, command.Entry.Number), max(command.Rank, 0)
	s.owner, s.lastOwner = command.Owner, command.Owner
	if command.Owner != c.holder {
		c.ceded = 0
	}
	if beat := c.heartbeat(); c.phase == calm && c.queue.clock.Now().Add(beat) < c.due {
		c.wake(beat) // the candidate is nearer to the front than at its last join
	}
	if c.rank() <= 1 && command.Held >= 0 && command.Held < c.heartbeat() && c.phase == calm {
		c.wake(command.Held + time.Millisecond) // the key may expire: a dead holder wakes no waiter
	}
}

// heard handles a node's push. A Redis user that may only publish could replay the push of
// one node on another: so the claim gives each node a nonce of its own. The fence is checked
// as in an answer.
func (c *candidate) heard(i int, p node.Push) {
	switch {
	case p.Nonce != c.states[i].nonce: // not from this node, or not to this claim
	case p.Number == 0: // the node asks the candidate to join again; a recent join will do
		if c.queue.clock.Now().Sub(c.states[i].lastJoin) >= c.window/2 {
			c.refresh(i)
		}
	case p.Number > c.base && p.Number <= c.number && c.validFence(p.Fence):
		c.addVote(i, p.Number, p.Fence)
		c.count()
	}
}

// win gives the key to the first waiter: a candidate exists only while there is one. q.mu
// is held.
func (c *candidate) win(until clock.Instant, fences []int64) {
	q, l := c.queue, c.local
	l.holder, l.restBound = c.claim, 0
	q.endCandidate(l)
	l.waiters.pop().give(Grant{Claim: c.claim, Until: until, Fences: fences})
}
