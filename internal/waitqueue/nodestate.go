package waitqueue

import (
	"crypto/rand"

	"github.com/redis-kit/redlock/internal/clock"
)

// nodeState is what a candidate knows of one node.
type nodeState struct {
	nonce      string        // pushes of this node to this claim carry it
	lastJoin   clock.Instant // when the last join was sent to the node
	unanswered []int64       // numbers of the joins without an answer, in order, of any claim
	rank       int           // number of candidates before this one
	vote       int64         // the highest join number that a grant has carried; 0 if none
	fence      int64         // of the latest grant; 0 without a fence
	voidBelow  int64         // votes with a lower number are void
	owner      string        // token of the owner that has the node's vote, by the answer to the last join; empty if not known
	lastOwner  string        // like owner, but kept until the next answer
	err        error         // of the last join
	unheard    error         // why the candidate cannot subscribe to the node, though it may answer joins; else nil
	unknown    bool          // the last join may have run, and been granted
}

// reset forgets the state of the old claim, for a new one. Joins without an answer, the rank,
// and what is reported to the caller stay.
func (s *nodeState) reset() {
	s.nonce, s.vote, s.fence, s.voidBelow, s.owner, s.unknown = rand.Text()[:16], 0, 0, 0, "", false
}

// voted reports whether the node has voted for the claim and has not refused it since.
func (s *nodeState) voted() bool { return s.vote > 0 && s.vote >= s.voidBelow }

// overdue reports whether the node has left a join unanswered for longer than a window.
func (c *candidate) overdue(i int, now clock.Instant) bool {
	unanswered := c.states[i].unanswered
	return len(unanswered) > 0 && (unanswered[0] <= c.number-joinWindow || now.Sub(c.sent[unanswered[0]%joinWindow]) > c.window)
}

// unreachable reports whether so many nodes have failed, or are overdue, that no quorum is
// possible.
func (c *candidate) unreachable(now clock.Instant) bool {
	failed := 0
	for i, s := range c.states {
		if s.err != nil || c.overdue(i, now) || c.queue.muteSince(i) != nil {
			failed++
		}
	}
	return failed > len(c.states)-c.queue.need()
}

// rank is the candidate's best rank, 0 for the first.
func (c *candidate) rank() int {
	rank := c.states[0].rank
	for _, s := range c.states[1:] {
		rank = min(rank, s.rank)
	}
	return rank
}
