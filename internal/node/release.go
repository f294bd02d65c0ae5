package node

import (
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// Release deletes what the claim holds here. The claim must have ended. A release that fails
// is retried in the background until it succeeds or the keys have expired. v gets a refusal if
// there is nothing to delete, and a failure if a release is already under way.
func (n *Node) Release(c *Claim, v ReplyHandler) {
	n.release(c, v, false)
}

// ReleaseInBackground is Release for a process that may ask for the keys again before the release
// is done: an acquisition that the claim refuses until then asks again. v may be nil.
func (n *Node) ReleaseInBackground(c *Claim, v ReplyHandler) { n.release(c, v, true) }

// Abandon is Release without a reply. When it returns, Close waits for the release.
func (n *Node) Abandon(c *Claim) { n.release(c, nil, false) }

func (n *Node) release(c *Claim, v ReplyHandler, background bool) {
	vote, dropped := n.queueRelease(c, v, background)
	n.cast(dropped)
	if v != nil && vote.Vote != quorum.Awaited {
		v.Cast(n.index, vote)
	}
}

// queueRelease queues a release. It returns the vote if that is known already, and the
// commands that were dropped from the queue.
func (n *Node) queueRelease(c *Claim, v ReplyHandler, background bool) (vote quorum.Reply, dropped []Command) {
	name := n.backend.Server(c.Keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &c.states[n.index]
	switch {
	case n.closed || p.phase != notBegun:
		return failed(errClosed), nil
	case p.inFlight == 0 && !p.mayHold():
		return quorum.Reply{Vote: quorum.Refused, Err: errNoSend}, nil
	}
	s := n.server(name)
	command := Command{Kind: n.releaseKind(c), Claim: c, until: time.Now().Add(p.ttl), handler: v}
	if s.down != nil { // the release waits for the server; its caller does not
		command.handler, vote = nil, failed(s.down)
	}
	p.phase = queued
	n.pending++
	if background {
		n.releaseBegun(c)
	}
	return vote, s.push(command)
}

// releaseKind is the kind of command that releases a claim.
func (n *Node) releaseKind(c *Claim) Kind {
	if len(c.Keys) == 1 && n.CheckQueue(c.Keys[0]) == nil {
		return Leave
	}
	return Release
}
