package waiting

import (
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

const (
	// longestWindow is for how long a grant sets a key, unless the ttl is shorter or
	// the nodes are far: a process that is stopped keeps the key no longer.
	longestWindow = 500 * time.Millisecond
	// recheck is how long after a vote a quorum is waited for, at least, before the
	// contender asks again: a push may have been lost, or the votes be split.
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
	terms node.Terms
	order int64
	over  bool

	window, lease, heartbeat time.Duration

	number int64                      // of the last call
	sent   [remembered]keeper.Instant // when it was made, by number
	seats  []seat                     // by node
	timer  *time.Timer                // of the next call
	phase  phase
	pause  time.Duration // until the next call while there are votes, but no quorum
	short  time.Duration // with what that begins
	holder string        // the token of who was found to hold the key
	away   uint64        // the nodes, as bits, that the contender left to the holder
}

// seat is what is known of one node.
type seat struct {
	vote  int64  // the highest number that a grant has carried; 0 if none
	fence int64  // what the latest grant was numbered; 0 without a fence
	floor int64  // votes with a lower number are void
	owner string // the token of whoever else has the node's vote, by an answer to the last call; empty if that is not known
	told  string // owner, also while the answer to the last call is still to come
	err   error  // of the last call
}

// phase is what comes next while there are votes, but no quorum.
type phase uint8

const (
	calm    phase = iota // no votes, or a quorum
	waiting              // for the rest of the votes
	asked                // again: a push may have been lost
)

// newContender returns a contender for the first in line, as old as order says.
func newContender(q *Queue, l *line, order int64) *contender {
	trip := time.Duration(0)
	for _, n := range q.nodes {
		trip = max(trip, n.Trip([]string{l.key}))
	}
	c := &contender{
		queue:  q,
		line:   l,
		terms:  l.waiters[0].terms,
		order:  order,
		window: min(max(longestWindow, 8*trip), l.waiters[0].ttl),
		seats:  make([]seat, len(q.nodes)),
	}
	c.claim = c.newClaim()
	c.heartbeat = c.window / 2
	c.lease = 3 * c.heartbeat
	c.short = min(max(recheck, 2*trip), c.heartbeat)
	c.pause = c.short
	c.timer = time.AfterFunc(time.Hour, c.beat)
	c.timer.Stop()
	return c
}

// newClaim returns a claim whose token tells how old the contender is.
func (c *contender) newClaim() *node.Claim {
	token := rand.Text() + "-" + strconv.FormatInt(c.order, 10)
	claim := node.NewClaim([]string{c.line.key}, node.Tag(token, c.terms.Metadata), len(c.queue.nodes))
	claim.Ask(c.terms)
	return claim
}

// fits reports whether what the contender is granted is of use to w.
func (c *contender) fits(w *Waiter) bool {
	return c.terms.Metadata == w.terms.Metadata && (c.terms.Floor > 0 || w.terms.Floor == 0)
}

// cameBefore reports whether a token is that of a contender that is older. It is
// the same for all who compare the two, whatever their clocks, and the nodes', say.
func (c *contender) cameBefore(token string) bool {
	untagged, _, _ := strings.Cut(token, ".") // metadata may look like an order
	_, text, _ := strings.Cut(untagged, "-")
	order, err := strconv.ParseInt(text, 10, 64)
	return err == nil && (order < c.order || order == c.order && token < c.claim.Token)
}

func (c *contender) begin() { c.join(everyNode) }

// leave gives up: the keys that nodes have granted, or still grant, go to whoever
// is next. The contender is over.
func (c *contender) leave() { c.queue.release(c.claim) }

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
	if c.terms.Floor > 0 {
		entry.Floor = q.floor()
	}
	claim, away := c.claim, c.away
	q.mu.Unlock()
	for i, n := range q.nodes {
		if (to == everyNode || to == i) && away&(1<<i) == 0 {
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
		s.granted(number, command.Fence)
		c.away = 0
	case node.Refused:
		s.floor, s.owner, s.told = max(s.floor, number), command.Owner, command.Owner
		if command.Owner != c.holder {
			c.away = 0
		}
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
		c.win(valid[len(valid)-need], c.fences(now))
		return
	}
	switch {
	case len(valid) == 0:
		c.phase = calm
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

// granted counts a vote. Votes may come out of order; a later one has the larger fence.
func (s *seat) granted(number, fence int64) {
	s.vote, s.fence, s.owner, s.told = max(s.vote, number), max(s.fence, fence), "", ""
}

// fences are what the nodes whose votes are valid numbered them; nil without a fence.
func (c *contender) fences(now keeper.Instant) []int64 {
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
func (c *contender) win(until keeper.Instant, fences []int64) {
	q, l := c.queue, c.line
	w := l.next() // a contender is there only while somebody waits
	l.holder = c.claim
	q.end(l)
	w.grant <- Grant{Claim: c.claim, Until: until, Fences: fences}
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
	case calm:
		c.pause = c.short
	case waiting:
		c.phase, next = asked, c.pause
	case asked:
		c.pause = min(2*c.pause, c.heartbeat)
		next = c.pause
		switch c.holder = c.held(); {
		case c.holder != "":
			// The rest is of no use, and the holder does without it.
			away := c.voters()
			yielded, next = c.yield(), c.heartbeat
			c.away = away
		case c.hasRival():
			// Whoever came first never yields: that is what ends split votes.
			yielded, next = c.yield(), c.heartbeat
		}
	}
	for i := range c.seats { // the answers will tell
		c.seats[i].owner = ""
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
	c.claim = c.newClaim()
	q.contenders[c.claim.Token] = c
	for i := range c.seats {
		c.seats[i].vote, c.seats[i].fence, c.seats[i].floor = 0, 0, 0
	}
	c.phase = calm
	return old
}

// hasRival reports whether one that came before holds the vote of some node.
func (c *contender) hasRival() bool {
	return slices.ContainsFunc(c.seats, func(s seat) bool { return c.cameBefore(s.owner) })
}

// held is the token of who has a quorum of the votes, empty if nobody is known to.
func (c *contender) held() string {
	votes := make(map[string]int)
	for _, s := range c.seats {
		if votes[s.owner]++; s.owner != "" && votes[s.owner] == c.queue.need() {
			return s.owner
		}
	}
	return ""
}

// voters are the nodes, as bits, of which the contender has a vote.
func (c *contender) voters() (bits uint64) {
	now := c.queue.keeper.Now()
	for i, s := range c.seats {
		if c.until(s) > now {
			bits |= 1 << i
		}
	}
	return bits
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
