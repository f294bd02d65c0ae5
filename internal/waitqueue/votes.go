package waitqueue

import (
	"errors"
	"fmt"
	"slices"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// addVote notes a vote. Votes may come out of order; a later one has the larger fence.
func (c *candidate) addVote(i int, number, fence int64) {
	s := &c.states[i]
	s.vote, s.fence, s.owner, s.lastOwner, s.rank = max(s.vote, number), max(s.fence, fence), "", "", 0
	c.ceded = 0
	if s.voted() && c.until(s) <= c.queue.clock.Now() {
		c.replaceVote(i)
	}
}

// replaceVote joins again after a vote that came too late to be valid. If the nodes have become
// too far away for the window, the candidate takes a longer one, and with it another token.
// Otherwise the vote came from an old join, and a new join replaces it.
func (c *candidate) replaceVote(i int) {
	if window, ok := c.queue.windowOf(c.ttl); ok && window > c.window*3/2 {
		c.renew()
		c.joinAll()
	} else {
		c.refresh(i)
	}
}

// count counts the valid votes. If they make a quorum, the first waiter gets the key, for as
// long as a quorum of the votes stays valid (invariant 1). Otherwise the candidate goes on
// waiting.
func (c *candidate) count() {
	now := c.queue.clock.Now()
	var valid []clock.Instant
	for i := range c.states {
		if until := c.until(&c.states[i]); until > now {
			valid = append(valid, until)
		}
	}
	if need := c.queue.need(); len(valid) >= need {
		slices.Sort(valid)
		c.win(valid[len(valid)-need], c.fences(now))
	} else {
		c.updatePhase(len(valid) > 0, now)
	}
}

// mayHaveVotes reports whether nodes may have voted for the claim, void votes included. If no
// quorum is reachable, a join whose answer was lost counts as a vote too.
func (c *candidate) mayHaveVotes(now clock.Instant) bool {
	lost := c.unreachable(now)
	return slices.ContainsFunc(c.states, func(s nodeState) bool { return s.voted() || s.unknown && lost })
}

// until returns the end of the validity of a node's vote, or 0 if there is no vote.
func (c *candidate) until(s *nodeState) clock.Instant {
	if !s.voted() || s.vote <= c.number-joinWindow {
		return 0
	}
	return c.sent[s.vote%joinWindow].Add(c.queue.clock.Validity(c.window))
}

// voters returns the nodes, as bits, whose votes are valid.
func (c *candidate) voters() (nodes uint64) {
	now := c.queue.clock.Now()
	for i := range c.states {
		if c.until(&c.states[i]) > now {
			nodes |= 1 << i
		}
	}
	return nodes
}

// fences returns the fences of the valid votes, by node, or nil for a claim without a
// fence.
func (c *candidate) fences(now clock.Instant) []int64 {
	if c.options.Floor == 0 {
		return nil
	}
	fences := make([]int64, len(c.states))
	for i := range c.states {
		if s := &c.states[i]; c.until(s) > now {
			fences[i] = s.fence
		}
	}
	return fences
}

// validFence reports whether the claim can have been granted with this fence.
func (c *candidate) validFence(fence int64) bool {
	if c.options.Floor == 0 {
		return fence == 0
	}
	return fence >= c.options.Floor && fence < node.MaxFence
}

// quorumOwner returns the token of the owner that has a quorum of the votes. It is empty if no
// such owner is known.
func (c *candidate) quorumOwner() string {
	votes := make(map[string]int)
	for _, s := range c.states {
		if votes[s.owner]++; s.owner != "" && votes[s.owner] == c.queue.need() {
			return s.owner
		}
	}
	return ""
}

// hasElder reports whether an older candidate has the vote of any node.
func (c *candidate) hasElder() bool {
	return slices.ContainsFunc(c.states, func(s nodeState) bool { return c.isYoungerThan(s.owner) })
}

// isYoungerThan reports whether token belongs to an older candidate. All candidates order two
// tokens alike, whatever their clocks and those of the nodes say. The token of an attempt does
// not count: attempts are short.
func (c *candidate) isYoungerThan(token string) bool {
	order, ok := node.CandidateOrder(token)
	return ok && (order < c.order || order == c.order && token < c.claim.Token)
}

// reply returns a node's latest answer.
func (c *candidate) reply(i int) quorum.Reply {
	switch s := &c.states[i]; {
	case s.err != nil:
		return quorum.Reply{Vote: quorum.Failed, Err: s.err}
	case c.overdue(i, c.queue.clock.Now()):
		return quorum.Reply{Vote: quorum.Failed, Err: fmt.Errorf("%w within %v", quorum.ErrNoReply, c.window)}
	case s.voted():
		return quorum.Reply{Vote: quorum.Granted}
	case s.lastOwner != "":
		return quorum.Reply{Vote: quorum.Refused, Err: node.OwnedBy(s.lastOwner), Owner: s.lastOwner}
	}
	return quorum.Reply{}
}

// failure returns an error if too few nodes keep a queue for the candidate to win.
func (c *candidate) failure() error {
	failed, err := 0, error(nil)
	for i, s := range c.states {
		switch mute := c.queue.muteSince(i); {
		case mute != nil:
			failed, err = failed+1, mute
		case s.unheard != nil:
			failed, err = failed+1, s.unheard
		// A node that is down does not count: it may keep queues when it is back. One that denies
		// the join does, although it has not run it.
		case s.err != nil && (errors.Is(s.err, node.ErrDenied) || !errors.Is(s.err, node.ErrNotRun) && !errors.Is(s.err, node.ErrUnasked)):
			failed, err = failed+1, s.err
		}
	}
	if failed <= len(c.states)-c.queue.need() {
		return nil
	}
	return err
}

// migrating reports whether so many nodes take no join, since the key's slot is being migrated,
// that the candidate cannot win. Attempts go on then: they need the lock's key alone. The
// candidate goes on too, for when the slot has moved.
func (c *candidate) migrating() bool {
	failed := 0
	for _, s := range c.states {
		if errors.Is(s.err, node.ErrMigrating) {
			failed++
		}
	}
	return failed > len(c.states)-c.queue.need()
}
