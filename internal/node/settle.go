package node

import (
	"errors"
	"time"
)

// begin prepares a command for being sent. It reports false, with the command's outcome, if the
// command is not to be sent. Like all of this file it is called with the Node's mutex held.
func (s *server) begin(c *Command, now time.Time) bool {
	p := &c.Claim.states[s.node.index]
	if !c.releases() {
		// The claim may end at any time, and its release is queued then. Either that
		// release sees what begin notes, or begin sees that the claim has ended: both
		// hold the Node's mutex, and End comes before the release.
		if c.Claim.Ended() {
			c.Err = errEnded
			return false
		}
		if c.Kind.sets() {
			p.send(c.Kind, c.lifetime())
		}
		if c.behind = (claimSet{}); len(s.node.ownReleases) > 0 && !c.again && (c.Kind == Acquire || c.Kind == Read) {
			c.behind = s.node.ownReleases.of(c.Claim.Keys)
		}
		s.node.pending++
		return true
	}
	switch nothing := p.inFlight == 0 && !p.mayHold(); {
	case nothing: // a reply that came after the release was queued has shown that
		c.Outcome, c.Err = Refused, errNoSend
	case c.expired(now):
	default:
		c.acquired, c.extended, c.joined = p.acquired, p.extended, p.joined
		p.acquired, p.extended, p.joined = false, false, false
		p.phase = sent
		return true
	}
	p.phase = done
	s.node.settled()
	s.node.checkReleased(c.Claim)
	s.node.resume()
	return false
}

// expired reports whether c is a release for which no caller waits, and its keys have
// expired. Whether they have is not certain: if the server has hung since, a command may
// still be on its way, and its keys expire a ttl after it arrives.
func (c *Command) expired(now time.Time) bool {
	return c.releases() && c.handler == nil && !now.Before(c.until)
}

// settle applies the outcome of a command to its claim's state.
//
// The claim may have ended since an acquisition or an extension of it was sent. The keys that
// the command set must then be released (invariant 4). What happens depends on the phase of
// the release when the command's reply is read:
//
//   - notBegun: Node.Release will look at the state, and find what is noted here.
//   - queued: the release is sent after this reply was read, so it deletes what the command
//     set.
//   - sent: the server may have run the release before the command, and it deleted nothing. It
//     is repeated, but only once its own reply is in: see settleRelease. A second release sent
//     now could overtake it and delete the key, and then the first, whose answer the caller
//     waits for, would say that there was nothing to delete.
//   - done: the release is repeated now.
func (s *server) settle(c *Command, now time.Time) {
	p := &c.Claim.states[s.node.index]
	switch {
	case c.releases():
		s.settleRelease(c, p, now)
		return
	case !c.Kind.sets(): // leaves nothing
		s.node.settled()
		return
	}
	if c.Kind == Acquire && c.Outcome == Refused && c.Owner == c.Claim.Token {
		// An earlier acquisition of the same claim has set the keys. They live for at least the
		// ttl from when that was sent.
		c.Outcome, c.Fence = Done, 0
	}
	left := c.Outcome == Done || c.Outcome == Refilled || c.Outcome == Unknown && !errors.Is(c.Err, ErrNotRun) ||
		c.Outcome == Refused && (c.Entry != nil || c.Partial) // it is in the queue; or some of the keys were set
	p.answered(c.Kind, left)
	if p.phase == done && p.mayHold() && !s.node.closed {
		s.repeatRelease(c.Claim, p, now)
	}
	s.node.settled()
	s.node.checkReleased(c.Claim)
}

// settleRelease applies the outcome of a release.
func (s *server) settleRelease(c *Command, p *nodeState, now time.Time) {
	if c.Outcome == Unknown {
		p.acquired, p.extended, p.joined = p.acquired || c.acquired, p.extended || c.extended, p.joined || c.joined
		p.phase = queued
		s.retryLater(*c)
		return
	}
	if c.Partial && c.joined { // the caller has its answer; the queue may yet grant the key to the claim
		p.extended, p.joined, p.phase = true, true, queued
		s.retryLater(*c)
		s.node.keyReleased(c.Claim)
		return
	}
	p.phase, s.releaseErr = done, nil
	if c.Outcome == Done && !p.refills {
		// A claim has one acquisition, whose keys the release has deleted: nothing is
		// left of it, even if its reply is still on its way. If an extension may have set
		// the keys, the acquisition may still run.
		p.spent, p.acquired = true, false
	}
	if p.mayHold() { // set while the release was under way
		s.repeatRelease(c.Claim, p, now)
	}
	s.node.settled()
	s.node.checkReleased(c.Claim)
}

// repeatRelease queues a release for which no caller waits.
func (s *server) repeatRelease(c *Claim, p *nodeState, now time.Time) {
	p.phase = queued
	s.node.pending++
	s.queue.push(Command{Kind: s.node.releaseKind(c), Claim: c, until: now.Add(p.ttl)})
	s.wakeWorker(claimLane)
}
