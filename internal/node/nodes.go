package node

import (
	"context"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// Nodes are the nodes of one Locker, which vote together on every question.
type Nodes struct {
	all   []*Node
	panel *quorum.Panel
}

// NewNodes returns Nodes of these nodes, the i-th of which was made by [New] with index i.
func NewNodes(all ...*Node) *Nodes {
	return &Nodes{all: all, panel: quorum.NewPanel(len(all))}
}

// All returns the nodes by index. The caller must not change the slice.
func (ns *Nodes) All() []*Node { return ns.all }

// Len returns the number of nodes.
func (ns *Nodes) Len() int { return len(ns.all) }

// Need returns the number of nodes in a quorum.
func (ns *Nodes) Need() int { return quorum.Need(len(ns.all)) }

// Name returns what errors call the node with this index.
func (ns *Nodes) Name(i int) string { return ns.all[i].name }

// Patience bounds the wait for a verdict: see [quorum.Poll.Wait].
type Patience struct {
	Timeout time.Duration   // per node
	Limit   time.Duration   // since the question was asked, after which its answer is useless
	Stop    <-chan struct{} // ends the wait when it is closed; may be nil
}

// Ask asks every node a question about a claim, and waits for the verdict. It calls ask once
// for each node: ask sends the question to node, with v to receive the reply. The caller
// closes the Poll, which has the votes.
//
// If validity counts from the question, read the clock before Ask (invariant 1).
func (ns *Nodes) Ask(ctx context.Context, c *Claim, p Patience, ask func(i int, n *Node, v ReplyHandler)) (*quorum.Poll, quorum.Verdict) {
	poll := ns.Put(ask)
	return poll, ns.Await(ctx, poll, c, p)
}

// Put asks every node a question, as Ask does, and does not wait.
func (ns *Nodes) Put(ask func(i int, n *Node, v ReplyHandler)) *quorum.Poll {
	poll := ns.panel.Open()
	for i, n := range ns.all {
		ask(i, n, poll)
	}
	return poll
}

// Await waits for the verdict on a question about a claim.
func (ns *Nodes) Await(ctx context.Context, poll *quorum.Poll, c *Claim, p Patience) quorum.Verdict {
	return poll.Wait(ctx, p.Stop, p.Timeout, p.Limit, func(i int) (time.Time, error) { return ns.all[i].Unsent(c) })
}

// Abandon ends a claim and releases its keys in the background. It waits for no node. When
// it returns, Close of each node waits for the release.
func (ns *Nodes) Abandon(c *Claim) {
	c.End()
	for _, n := range ns.all {
		n.Abandon(c)
	}
}

// ReleaseInBackground ends a claim and calls [Node.ReleaseInBackground] of every node.
func (ns *Nodes) ReleaseInBackground(c *Claim) {
	c.End()
	for _, n := range ns.all {
		n.ReleaseInBackground(c, nil)
	}
}

// Distance returns about the shortest recent round trip to a quorum of the nodes, or 0 if
// it is not known. A node or a process that is busy does not make it longer. Distance takes
// no lock.
func (ns *Nodes) Distance() time.Duration {
	var room [MaxNodes]time.Duration
	trips := room[:len(ns.all)]
	for i, n := range ns.all {
		trips[i] = n.Trip()
	}
	slices.Sort(trips)
	return trips[ns.Need()-1]
}
