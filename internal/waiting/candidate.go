package waiting

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// usualWindow is how long a grant sets a key, unless the ttl is shorter or the nodes
	// are far: a process that is stopped keeps the key no longer.
	usualWindow = 500 * time.Millisecond
	// longestHeartbeat is the longest pause between the joins of a candidate that is far
	// back in the queues, unless half a window is longer.
	longestHeartbeat = 2 * time.Second
	// longestRest is how many windows a candidate stays away, at most, after it has given
	// up votes that made no quorum.
	longestRest = 16
	// recheck is how long after a vote a quorum is waited for, at least, before the
	// candidate asks again: a push may have been lost, or the votes be split.
	recheck = 5 * time.Millisecond
	// remembered is how many calls a vote may be late by.
	remembered = 64
)

// candidate is what this process has in the nodes' queues for one key. Its claim changes:
// what it has been granted is given up by releasing the claim, and it goes on with another
// one, of the same age. It is guarded by its Queue's mutex.
type candidate struct {
	queue *Queue
	line  *line
	terms node.Terms
	ttl   time.Duration // of the waiter that it was made for
	order int64         // the wall clock when the process began to wait, in ms
	since clock.Instant // the same by the Clock
	over  bool

	claim  *node.Claim
	window time.Duration // of the claim: never changed under one token, see renew
	base   int64         // the number of the last call before the claim's first
	voted  clock.Instant // since when the claim has had votes, void ones too; 0 if it has none

	number int64                     // of the last call
	sent   [remembered]clock.Instant // when it was made, by number
	seats  []seat                    // by node
	timer  *time.Timer               // of the next call
	due    clock.Instant             // when that is, unless it rests
	phase  phase
	rested clock.Instant // the end of a rest, unless it ends sooner
	outage bool          // the rest is for nodes that could not be reached
	pause  time.Duration // until the next call while there are votes, but no quorum
	asked  int           // how often it has asked in this phase
	holder string        // the token of the owner that was found to hold the key
	away   uint64        // the nodes, as bits, that the candidate left to the holder
}

// seat is what is known of one node.
type seat struct {
	nonce   string        // what pushes of this node to this claim carry
	at      clock.Instant // of the last call
	open    []int64       // the calls that are not answered, in order, whatever claim they were for
	rank    int           // how many are before the candidate
	vote    int64         // the highest number that a grant has carried; 0 if none
	fence   int64         // what the latest grant was numbered; 0 without a fence
	floor   int64         // votes with a lower number are void
	owner   string        // the token of the other owner that has the node's vote, by an answer to the last call; empty if that is not known
	told    string        // owner, also while the answer to the last call is still to come
	err     error         // of the last call
	unknown bool          // it may have run, and been granted
}

// phase is what the candidate's timer stands for.
type phase uint8

const (
	calm    phase = iota // the next heartbeat: it has no votes, or void ones
	waiting              // a question again: the rest of the votes is late, or a push was lost, or votes are split
	resting              // the end of a rest: it has given up votes that made no quorum, and is in no queue
)

// newCandidate returns a candidate for w, as old as order and since say. q.mu is held.
func newCandidate(q *Queue, w *Waiter, order int64, since clock.Instant) *candidate {
	c := &candidate{queue: q, line: w.line, terms: w.terms, ttl: w.ttl, order: order, since: since, seats: make([]seat, q.nodes.Len())}
	c.timer = time.AfterFunc(time.Hour, c.beat)
	c.timer.Stop()
	c.renew()
	c.calm()
	return c
}

// renew goes on with another claim of the same age, and returns the one before, which is
// to be released. It gives up what the candidate was granted and keeps its place. (A call
// that gave a key up and kept its claim could be late, run by a node when that has granted
// the claim once more, and take the key from its holder.)
//
// The window changes with the claim only: a node keeps the number of the call that was
// made last, but the window of the one that arrived last, so with two windows under one
// token a vote's validity could be overcounted. q.mu is held.
func (c *candidate) renew() *node.Claim {
	q, old := c.queue, c.claim
	if old != nil {
		delete(q.candidates, old.Token)
	}
	c.claim = node.NewClaim([]string{c.line.key}, node.Tag(node.CandidateToken(c.order), c.terms.Metadata), q.nodes.Len())
	c.claim.Ask(c.terms)
	c.window, _ = q.windowOf(c.ttl)
	c.base, c.voted = c.number, 0
	c.phase, c.asked = calm, 0 // and the pause goes on growing, if the next claim fares no better
	for i := range c.seats {
		s := &c.seats[i]
		s.nonce, s.vote, s.fence, s.floor, s.owner, s.unknown = rand.Text()[:16], 0, 0, 0, "", false
	}
	q.candidates[c.claim.Token] = c
	return old
}

// calm ends the phase in which the candidate asks again.
func (c *candidate) calm() {
	c.phase, c.asked = calm, 0
	c.pause = min(max(recheck, 2*c.queue.trip()), c.heartbeat())
}

// heartbeat is the pause between two joins. A vote counts from the last of them, so the
// first places join often, and the others are told when they are among these.
func (c *candidate) heartbeat() time.Duration {
	half := c.window / 2
	return min(half*time.Duration(max(2, c.rank()))/2, max(longestHeartbeat, half))
}

// rank is the candidate's best place, 0 for the first.
func (c *candidate) rank() int {
	rank := c.seats[0].rank
	for _, s := range c.seats[1:] {
		rank = min(rank, s.rank)
	}
	return rank
}

// fits reports whether what the candidate is granted is of use to w.
func (c *candidate) fits(w *Waiter) bool {
	if c.terms.Metadata != w.terms.Metadata || c.terms.Floor == 0 && w.terms.Floor > 0 {
		return false
	}
	// The key is set for no longer than asked for, and for as long as is of use.
	window, _ := c.queue.windowOf(w.ttl)
	return c.window <= w.ttl && (c.ttl >= w.ttl || c.window >= window)
}

// cameBefore reports whether a token is that of a candidate that is older. It is the same
// for all that compare the two, whatever their clocks, and the nodes', say. An attempt
// gives up by itself.
func (c *candidate) cameBefore(token string) bool {
	order, ok := node.CandidateOrder(token)
	return ok && (order < c.order || order == c.order && token < c.claim.Token)
}

// join joins a node, or all with everyNode. A node that has not answered for a window is
// not asked again: the calls would renew grants of which nothing is heard. q.mu is held;
// the calls are made once it is not.
func (c *candidate) join(to int) {
	q, now := c.queue, c.queue.clock.Now()
	if c.over || c.phase == resting {
		return
	}
	if to == everyNode {
		c.wake(c.heartbeat())
	}
	var nodes uint64
	for i := range c.seats {
		if (to == everyNode || to == i) && c.away&(1<<i) == 0 && !c.overdue(i, now) {
			nodes |= 1 << i
		}
	}
	if nodes == 0 {
		return
	}
	c.number++
	c.sent[c.number%remembered] = now // before it is sent
	entry := &node.Entry{
		Number: c.number, Order: c.order, Waited: now.Sub(c.since), Channel: q.channel, Window: c.window,
		Lease: c.heartbeat() + c.window, // one that joins later comes back to its place
	}
	if c.terms.Floor > 0 {
		entry.Floor = q.floor()
	}
	claim := c.claim
	nonces := make([]string, len(c.seats))
	for i := range c.seats {
		if s := &c.seats[i]; nodes&(1<<i) != 0 {
			s.at, s.open = now, append(s.open, c.number)
			nonces[i] = s.nonce
		}
	}
	q.later(func() {
		for i, n := range q.nodes.All() {
			if nodes&(1<<i) != 0 {
				n.Join(claim, entry, nonces[i], c)
			}
		}
	})
}

const everyNode = -1

// overdue reports whether a node owes an answer for longer than a window.
func (c *candidate) overdue(i int, now clock.Instant) bool {
	open := c.seats[i].open
	return len(open) > 0 && (open[0] <= c.number-remembered || now.Sub(c.sent[open[0]%remembered]) > c.window)
}

// wake sets the timer, but not beyond the moment at which the votes are hopeless.
func (c *candidate) wake(d time.Duration) {
	now := c.queue.clock.Now()
	if c.voted > 0 {
		d = min(d, max(c.voted.Add(c.patience()).Sub(now), 0))
	}
	c.due = now.Add(d)
	c.timer.Reset(d)
}

// patience is how long votes may make no quorum: a window, in which the votes of a
// candidate that has died end too, and a bit for the answers.
func (c *candidate) patience() time.Duration { return c.window + c.window/4 }

// Joined implements node.Joiner.
func (c *candidate) Joined(i int, command *node.Command) {
	q := c.queue
	q.mu.Lock()
	defer q.unlock()
	s, number := &c.seats[i], command.Entry.Number
	s.open = slices.DeleteFunc(s.open, func(n int64) bool { return n == number })
	if c.over {
		return
	}
	if answered := command.Outcome == node.Done || command.Outcome == node.Refused; answered && number > c.number-remembered {
		q.trips[i] = trip{q.clock.Now().Sub(c.sent[number%remembered]), q.clock.Now()}
	}
	if command.Claim != c.claim {
		return
	}
	s.err = command.Err
	s.unknown = command.Outcome == node.Unknown && !errors.Is(command.Err, node.ErrNotRun)
	switch command.Outcome {
	case node.Done:
		c.granted(i, number, command.Fence)
	case node.Refused:
		s.floor, s.owner, s.told, s.rank = max(s.floor, number), command.Owner, command.Owner, max(command.Rank, 0)
		if command.Owner != c.holder {
			c.away = 0
		}
		if beat := c.heartbeat(); c.phase == calm && q.clock.Now().Add(beat) < c.due {
			c.wake(beat) // it has come nearer to the front
		}
		if c.rank() <= 1 && command.Held >= 0 && command.Held < c.heartbeat() && c.phase == calm {
			// A dead holder wakes no waiter.
			c.wake(command.Held + time.Millisecond)
		}
	}
	c.count()
}

// heard takes what a node pushes to the claim. A user that may only publish could repeat
// the push of another node, which has another nonce; and the fence is checked as that of an
// answer is.
func (c *candidate) heard(i int, p node.Push) {
	if p.Nonce != c.seats[i].nonce {
		return
	}
	switch {
	case p.Number == 0:
		if c.queue.clock.Now().Sub(c.seats[i].at) >= c.window/2 { // else it is as good as a heartbeat
			c.refresh(i)
		}
	case p.Number > c.base && p.Number <= c.number && c.counts(p.Fence):
		c.granted(i, p.Number, p.Fence)
		c.count()
	}
}

// refresh joins a node again, unless it owes an answer.
func (c *candidate) refresh(i int) {
	if len(c.seats[i].open) == 0 {
		c.join(i)
	}
}

// counts reports whether a fence is one that the claim can have.
func (c *candidate) counts(fence int64) bool {
	if c.terms.Floor == 0 {
		return fence == 0
	}
	return fence >= c.terms.Floor && fence < node.MaxFence
}

// granted notes a vote. Votes may come out of order; a later one has the larger fence.
func (c *candidate) granted(i int, number, fence int64) {
	q, s := c.queue, &c.seats[i]
	s.vote, s.fence, s.owner, s.told, s.rank = max(s.vote, number), max(s.fence, fence), "", "", 0
	c.away = 0
	now := q.clock.Now()
	if s.vote < s.floor || c.until(*s) > now {
		return
	}
	// It is void, as it came too late. If nodes are as far as that, it takes a longer window,
	// and so another token. Otherwise the call that it counts from was an old one.
	if window, ok := q.windowOf(c.ttl); ok && window > c.window*3/2 {
		q.releaseLater(c.renew())
		c.join(everyNode)
		return
	}
	c.refresh(i)
}

// count gives the key to a waiter if a quorum of votes is valid: for as long as the q-th
// latest of them is.
func (c *candidate) count() {
	q, now := c.queue, c.queue.clock.Now()
	var valid []clock.Instant
	votes := false             // void ones too
	lost := c.unreachable(now) // then joins whose answers were lost may have been granted
	for _, s := range c.seats {
		votes = votes || s.vote > 0 && s.vote >= s.floor || s.unknown && lost
		if until := c.until(s); until > now {
			valid = append(valid, until)
		}
	}
	if need := q.need(); len(valid) >= need {
		slices.Sort(valid)
		c.win(valid[len(valid)-need], c.fences(now))
		return
	}
	switch {
	case !votes:
		c.voted = 0
	case c.voted == 0:
		c.voted = now
	}
	switch {
	case c.phase == resting:
	case len(valid) == 0 && c.phase == waiting:
		c.calm()
		c.wake(c.heartbeat())
	case len(valid) > 0 && c.phase == calm:
		c.phase = waiting
		c.wake(c.pause)
	}
}

// until is the end of the validity of a seat's vote, 0 if there is none.
func (c *candidate) until(s seat) clock.Instant {
	if s.vote == 0 || s.vote < s.floor || s.vote <= c.number-remembered {
		return 0
	}
	return c.sent[s.vote%remembered].Add(c.queue.clock.Validity(c.window))
}

// fences are what the nodes whose votes are valid numbered them; nil without a fence.
func (c *candidate) fences(now clock.Instant) []int64 {
	if c.terms.Floor == 0 {
		return nil
	}
	fences := make([]int64, len(c.seats))
	for i, s := range c.seats {
		if c.until(s) > now {
			fences[i] = s.fence
		}
	}
	return fences
}

// win gives the key to the first in line. q.mu is held.
func (c *candidate) win(until clock.Instant, fences []int64) {
	q, l := c.queue, c.line
	l.holder, l.rest = c.claim, 0
	q.end(l)
	l.waiters.pop().give(Grant{Claim: c.claim, Until: until, Fences: fences}) // a candidate is there only while somebody waits
}

// beat is what the timer runs.
func (c *candidate) beat() {
	q := c.queue
	q.mu.Lock()
	defer q.unlock()
	if c.over {
		return
	}
	now := q.clock.Now()
	next := c.heartbeat()
	switch c.phase {
	case resting:
		if now < c.rested && !c.reachable() {
			c.timer.Reset(min(c.window/4, c.rested.Sub(now)))
			return
		}
		c.calm()
		c.window, _ = q.windowOf(c.ttl) // the claim is new, and no node knows it
		q.contend(c.line)               // the nodes may be too far by now
		if c.over {
			return
		}
	case calm:
		if c.voted > 0 && now.Sub(c.voted) >= c.patience() {
			c.giveUp(now)
			return
		}
		c.calm()
	case waiting:
		next = c.pause
		if c.asked++; c.asked == 1 {
			break // a push may have been lost
		}
		c.pause = min(2*c.pause, c.heartbeat())
		next = c.pause
		switch c.holder = c.held(); {
		case c.holder != "":
			// The rest is of no use, and the holder does without it.
			away := c.voters()
			q.releaseLater(c.renew())
			c.away, next = away, c.heartbeat()
		case c.hasRival():
			// The candidate that came first never yields: that is what ends split votes.
			q.releaseLater(c.renew())
			next = c.heartbeat()
		case now.Sub(c.voted) >= c.patience(), c.asked > 1 && c.unreachable(now):
			c.giveUp(now)
			return
		}
	}
	for i := range c.seats { // the answers will tell
		c.seats[i].owner = ""
	}
	c.join(everyNode)
	if next < c.heartbeat() {
		c.wake(next)
	}
}

// giveUp releases votes that make no quorum (invariant 13): another process may reach more
// nodes, or have a faster way to them. The candidate stays away for a random time, which
// grows, and comes back as old as it is. If it gave up since nodes could not be reached, it
// comes back as soon as enough of them can.
func (c *candidate) giveUp(now clock.Instant) {
	c.outage = c.unreachable(now)
	c.queue.releaseLater(c.renew())
	c.line.rest = min(max(2*c.line.rest, c.window), longestRest*c.window)
	c.phase, c.rested = resting, now.Add(mathrand.N(c.line.rest))
	c.timer.Reset(min(c.window/4, c.rested.Sub(now)))
}

// reachable reports whether the outage is over for which the candidate rests.
func (c *candidate) reachable() bool {
	up := 0
	for _, n := range c.queue.nodes.All() {
		if n.Answers(c.claim.Keys) {
			up++
		}
	}
	return c.outage && up >= c.queue.need()
}

// hasRival reports whether one that came before holds the vote of some node.
func (c *candidate) hasRival() bool {
	return slices.ContainsFunc(c.seats, func(s seat) bool { return c.cameBefore(s.owner) })
}

// held is the token of the owner that has a quorum of the votes, empty if none is known.
func (c *candidate) held() string {
	votes := make(map[string]int)
	for _, s := range c.seats {
		if votes[s.owner]++; s.owner != "" && votes[s.owner] == c.queue.need() {
			return s.owner
		}
	}
	return ""
}

// voters are the nodes, as bits, of which the candidate has a vote.
func (c *candidate) voters() (bits uint64) {
	now := c.queue.clock.Now()
	for i, s := range c.seats {
		if c.until(s) > now {
			bits |= 1 << i
		}
	}
	return bits
}

// unreachable reports whether so many nodes failed, or do not answer, that no quorum is
// possible.
func (c *candidate) unreachable(now clock.Instant) bool {
	failed := 0
	for i, s := range c.seats {
		if s.err != nil || c.overdue(i, now) {
			failed++
		}
	}
	return failed > len(c.seats)-c.queue.need()
}

// reply is what a node said last.
func (c *candidate) reply(i int) quorum.Reply {
	switch s := &c.seats[i]; {
	case s.err != nil:
		return quorum.Reply{Vote: quorum.Failed, Err: s.err}
	case c.overdue(i, c.queue.clock.Now()):
		return quorum.Reply{Vote: quorum.Failed, Err: fmt.Errorf("%w within %v", quorum.ErrNoReply, c.window)}
	case s.vote > 0 && s.vote >= s.floor:
		return quorum.Reply{Vote: quorum.Granted}
	case s.told != "":
		return quorum.Reply{Vote: quorum.Refused, Err: node.OwnedBy(s.told), Owner: s.told}
	}
	return quorum.Reply{}
}

// failure is why so few nodes have a queue that the candidate cannot win by it.
func (c *candidate) failure() error {
	failed, err := 0, error(nil)
	for _, s := range c.seats {
		// A node that is away has no vote for anybody.
		if s.err != nil && !errors.Is(s.err, node.ErrNotRun) && !errors.Is(s.err, node.ErrUnasked) {
			failed, err = failed+1, s.err
		}
	}
	if failed <= len(c.seats)-c.queue.need() {
		return nil
	}
	return err
}
