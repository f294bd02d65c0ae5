package node

import (
	"sync/atomic"
	"time"
)

// MaxNodes is the most nodes a Claim can keep track of.
const MaxNodes = 64

// Claim is one owner's claim to a set of keys: one attempt, and the hold that
// may come of it. Its token is used for nothing else.
//
// A claim ends once. What its calls leave behind on a node after that, in
// whatever order they and the replies travel, is released (invariant 4).
type Claim struct {
	Keys  []string
	Token string

	ended atomic.Bool
	// traces counts, for each node, the commands that may have left a key of
	// ours there: before each is sent, and no longer once its own answer, or the
	// deletion of its keys, says that it has not.
	traces [MaxNodes]atomic.Int32
	// released has a bit for each node where the release has begun.
	released atomic.Uint64
	// longest is the longest ttl that was asked for: none of the keys lives
	// for longer than this after the last call has run.
	longest atomic.Int64
}

// End ends the claim: nothing is sent for it any more but releases.
func (c *Claim) End() { c.ended.Store(true) }

// Ended tells whether the claim has ended.
func (c *Claim) Ended() bool { return c.ended.Load() }

// send prepares a command that may set keys on node for ttl. It reports false
// if the claim has ended and nothing may be sent.
//
// The trace comes first, then the look at ended; a release is preceded by End
// and looks at the trace. So either the release sees the trace, or the command
// is not sent.
func (c *Claim) send(node int, ttl time.Duration) bool {
	for {
		old := c.longest.Load()
		if int64(ttl) <= old || c.longest.CompareAndSwap(old, int64(ttl)) {
			break
		}
	}
	c.traces[node].Add(1)
	if c.ended.Load() {
		c.untrace(node)
		return false
	}
	return true
}

// untrace takes back what send counted.
func (c *Claim) untrace(node int) { c.traces[node].Add(-1) }

func (c *Claim) traced(node int) bool { return c.traces[node].Load() > 0 }
