package waiting

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

const (
	// longestWindow is for how long a grant sets a key, unless the ttl is shorter or
	// the nodes are far: a process that is stopped keeps the key no longer.
	longestWindow = 500 * time.Millisecond
	// recheck is how long after a vote a quorum is waited for before the contender
	// asks again: a push may have been lost, or the votes be split.
	recheck = 5 * time.Millisecond
	// remembered is how many calls a vote may be late by.
	remembered = 64
)

// contender is this process's candidate for one key. It is guarded by its
// Queue's mutex.
type contender struct {
	queue *Queue
	line  *line
	claim *node.Claim
	order int64
	over  bool

	window, lease, heartbeat time.Duration

	number int64                      // of the last call
	sent   [remembered]keeper.Instant // when it was made, by number
	seats  []seat                     // by node
	timer  *time.Timer                // of the next call
	phase  phase
	pause  time.Duration // until the next call while votes are split
}

// seat is what is known of one node.
type seat struct {
	vote  int64 // the highest number that a grant has carried; 0 if none
	floor int64 // votes with a lower number are void
	first int64 // the order of who was first, by the last answer
	err   error // of the last call
}

// phase is what comes next while there are votes, but no quorum.
type phase uint8

const (
	calm    phase = iota // no votes, or a quorum
	waiting              // for the rest of the votes
	asked                // again: a push may have been lost
	parting              // about to yield, after a random pause
)

func newContender(q *Queue, l *line) *contender {
	trip := time.Duration(0)
	for _, n := range q.nodes {
		trip = max(trip, n.Trip([]string{l.key}))
	}
	ttl := l.waiters[0].ttl
	c := &contender{
		queue:  q,
		line:   l,
		claim:  node.NewClaim([]string{l.key}, rand.Text(), len(q.nodes)),
		order:  time.Now().UnixMilli(),
		window: min(max(longestWindow, 8*trip), ttl),
		seats:  make([]seat, len(q.nodes)),
		pause:  recheck,
	}
	c.heartbeat = c.window / 2
	c.lease = 3 * c.heartbeat
	c.timer = time.AfterFunc(time.Hour, c.beat)
	c.timer.Stop()
	return c
}

func (c *contender) begin() {
	c.queue.ears.open()
	c.join(everyNode)
}

// leave gives up: the keys that nodes have granted, or still grant, go to whoever
// is next. The contender is over.
func (c *contender) leave() {
	c.queue.release(c.claim)
	c.queue.ears.rest()
}

// join joins a node, or all with everyNode.
func (c *contender) join(to int) {
	q := c.queue
	q.mu.Lock()
	if c.over {
		q.mu.Unlock()
		return
	}
	c.number++
	number := c.number
	c.sent[number%remembered] = q.keeper.Now() // before it is sent
	c.timer.Reset(c.heartbeat)
	entry := &node.Entry{Number: number, Order: c.order, Channel: q.channel, Window: c.window, Lease: c.lease}
	claim := c.claim
	q.mu.Unlock()
	for i, n := range q.nodes {
		if to == everyNode || to == i {
			n.Join(claim, entry, c)
		}
	}
}

const everyNode = -1

// Joined implements node.Joiner.
func (c *contender) Joined(i int, command *node.Command) {
	q := c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.over || command.Claim != c.claim {
		return
	}
	s, number := &c.seats[i], command.Entry.Number
	s.err = command.Err
	switch command.Outcome {
	case node.Done:
		s.vote = max(s.vote, number)
	case node.Refused:
		s.floor, s.first = max(s.floor, number), command.First
		if command.Held >= 0 && command.Held < c.heartbeat && c.phase == calm {
			// A dead holder wakes nobody.
			c.timer.Reset(command.Held + time.Millisecond)
		}
	}
	c.count()
}

// count gives the key to the first in line if a quorum of votes is valid: for as
// long as the q-th latest of them is.
func (c *contender) count() {
	q, now := c.queue, c.queue.keeper.Now()
	var valid []keeper.Instant
	for _, s := range c.seats {
		if until := c.until(s); until > now {
			valid = append(valid, until)
		}
	}
	if need := q.need(); len(valid) >= need {
		slices.Sort(valid)
		c.win(valid[len(valid)-need])
		return
	}
	switch {
	case len(valid) == 0:
		c.phase, c.pause = calm, recheck
	case c.phase == calm:
		c.phase = waiting
		c.timer.Reset(c.pause)
	}
}

// until is the end of the validity of a seat's vote, 0 if there is none.
func (c *contender) until(s seat) keeper.Instant {
	if s.vote == 0 || s.vote < s.floor || s.vote <= c.number-remembered {
		return 0
	}
	return c.sent[s.vote%remembered].Add(c.queue.keeper.Validity(c.window))
}

// win gives the key to the first in line. q.mu is held.
func (c *contender) win(until keeper.Instant) {
	q, l := c.queue, c.line
	w := l.next() // a contender is there only while somebody waits
	l.holder = c.claim
	q.end(l)
	w.grant <- Grant{Claim: c.claim, Until: until}
	q.ears.rest()
}

// beat makes the next call: the heartbeat, or what the phase asks for.
func (c *contender) beat() {
	q := c.queue
	q.mu.Lock()
	if c.over {
		q.mu.Unlock()
		return
	}
	var yielded *node.Claim
	next := c.heartbeat
	switch c.phase {
	case waiting:
		c.phase, next = asked, c.pause
	case asked:
		// Whoever is first never yields: that is what ends split votes.
		if !c.isFirst() {
			c.phase = parting
			c.timer.Reset(mathrand.N(c.pause))
			q.mu.Unlock()
			return
		}
		c.pause = min(2*c.pause, c.heartbeat)
		next = c.pause
	case parting:
		yielded = c.yield()
	}
	q.mu.Unlock()
	if yielded != nil {
		q.release(yielded)
	}
	c.join(everyNode)
	q.mu.Lock()
	if !c.over && next < c.heartbeat {
		c.timer.Reset(next)
	}
	q.mu.Unlock()
}

// yield gives up what the contender was granted, for others who came before, and
// keeps its place: it goes on with another claim that is as old. The old one is
// released first, so the first other waiter has what it leaves. A call that gave a
// key up and kept its claim could be late, run by a node when that has granted the
// key once more, and take it from a holder. q.mu is held.
func (c *contender) yield() *node.Claim {
	q, old := c.queue, c.claim
	delete(q.contenders, old.Token)
	c.claim = node.NewClaim(old.Keys, rand.Text(), len(q.nodes))
	q.contenders[c.claim.Token] = c
	for i := range c.seats {
		c.seats[i].vote, c.seats[i].floor = 0, 0
	}
	c.phase, c.pause = calm, recheck
	return old
}

// isFirst reports whether no node knows of one who came before.
func (c *contender) isFirst() bool {
	for _, s := range c.seats {
		if s.first > 0 && s.first < c.order {
			return false
		}
	}
	return true
}

// failure is why so few nodes have a queue that the contender cannot win by it.
func (c *contender) failure() error {
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
