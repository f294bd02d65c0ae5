package waitqueue

import (
	mathrand "math/rand/v2"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
)

const (
	// longestHeartbeat is the longest pause between the joins of a candidate far back in the
	// queues, unless half a window is longer.
	longestHeartbeat = 2 * time.Second
	// longestRest is the longest rest, in windows, of a candidate that has given up votes which
	// made no quorum.
	longestRest = 16
	// shortestRecheck is the shortest time after a vote at which the candidate joins again for
	// the rest of a quorum: a push may have been lost, or the votes may be split.
	shortestRecheck = 5 * time.Millisecond
)

// phase says for what the candidate's timer is set.
type phase uint8

const (
	calm    phase = iota // the next heartbeat: the candidate has no votes, or void ones
	waiting              // the next recheck: it has votes, but no quorum
	resting              // the end of a rest: it has given its votes up, and is in no queue
)

// updatePhase sets the phase after a count of votes that made no quorum, and the timer if the
// phase has changed. valid says whether any of the votes is valid.
func (c *candidate) updatePhase(valid bool, now clock.Instant) {
	switch {
	case !c.mayHaveVotes(now):
		c.votesSince = 0
	case c.votesSince == 0:
		c.votesSince = now
	}
	switch {
	case !valid && c.phase == waiting:
		c.enterCalm()
		c.wake(c.heartbeat())
	case valid && c.phase == calm:
		c.phase = waiting
		c.wake(c.pause)
	}
}

// onTimer runs when the timer fires.
func (c *candidate) onTimer() {
	q := c.queue
	q.mu.Lock()
	defer q.unlock()
	if c.ended {
		return
	}
	switch now := q.clock.Now(); c.phase {
	case calm:
		c.beat(now)
	case waiting:
		c.recheck(now)
	case resting:
		c.tryComeBack(now)
	}
}

// beat joins all nodes. It gives up void votes that the candidate has kept for too long.
func (c *candidate) beat(now clock.Instant) {
	if c.votesSince > 0 && c.outOfPatience(now) {
		c.giveUp(now)
		return
	}
	c.enterCalm()
	c.askAll(c.heartbeat())
}

// recheck joins all nodes again for the rest of a quorum: a vote is late, or a push was lost.
// If that does not help, another owner may have the rest. Then the candidate yields its votes
// to that owner, or gives them up.
func (c *candidate) recheck(now clock.Instant) {
	if c.rechecks++; c.rechecks == 1 {
		c.askAll(c.pause)
		return
	}
	c.pause = min(2*c.pause, c.heartbeat())
	c.holder = c.quorumOwner()
	switch {
	case c.holder != "":
		c.yieldToHolder()
	case c.hasElder():
		c.yieldToElder()
	case c.outOfPatience(now), c.unreachable(now):
		c.giveUp(now)
	default:
		c.askAll(c.pause)
	}
}

// yieldToHolder leaves the candidate's minority of votes to the holder: the votes are useless
// while the holder has a quorum. The candidate does not join those nodes until the holder
// changes.
func (c *candidate) yieldToHolder() {
	c.ceded = c.renew()
	c.askAll(c.heartbeat())
}

// yieldToElder gives up the votes to an older candidate. The eldest never yields: so split
// votes come to an end (invariant 14).
func (c *candidate) yieldToElder() {
	c.renew()
	c.askAll(c.heartbeat())
}

// giveUp releases votes that make no quorum (invariant 13): another process may reach more
// nodes, or reach them sooner. The candidate rests for a random time, whose bound grows with
// each rest, and comes back with its age. If it gave up because it could not reach enough
// nodes, it comes back as soon as it can.
func (c *candidate) giveUp(now clock.Instant) {
	c.outage = c.unreachable(now)
	c.renew()
	c.local.restBound = min(max(2*c.local.restBound, c.window), longestRest*c.window)
	c.phase, c.restEnd = resting, now.Add(mathrand.N(c.local.restBound))
	c.rest(now)
}

// rest sets the timer to check whether the rest has ended.
func (c *candidate) rest(now clock.Instant) {
	c.timer.Reset(min(c.window/4, c.restEnd.Sub(now)))
}

// tryComeBack joins all nodes if the rest has ended.
func (c *candidate) tryComeBack(now clock.Instant) {
	if now < c.restEnd && !c.outageOver() {
		c.rest(now)
		return
	}
	beat := c.heartbeat() // of the window before the rest
	c.enterCalm()
	c.window, _ = c.queue.windowOf(c.ttl) // the claim has not been sent, so its window may change
	c.queue.updateCandidate(c.local)      // ends c if the nodes are too far away by now
	if !c.ended {
		c.askAll(beat)
	}
}

// outageOver reports whether the candidate rests for an outage that is over.
func (c *candidate) outageOver() bool {
	up := 0
	for _, n := range c.queue.nodes.All() {
		if n.Answers(c.claim.Keys) {
			up++
		}
	}
	return c.outage && up >= c.queue.need()
}

// enterCalm begins the phase in which the candidate joins once per heartbeat.
func (c *candidate) enterCalm() {
	c.phase, c.rechecks = calm, 0
	c.pause = min(max(shortestRecheck, 2*c.queue.trip()), c.heartbeat())
}

// askAll joins all nodes to learn the owner of the key on each, and sets the timer to next, or
// to the heartbeat if that is sooner.
func (c *candidate) askAll(next time.Duration) {
	for i := range c.states {
		c.states[i].owner = "" // until the answers come
	}
	c.joinAll() // sets the timer to the heartbeat
	if next < c.heartbeat() {
		c.wake(next)
	}
}

// heartbeat returns the pause between two joins. A vote counts from the last join, so the
// candidates at the front of a queue join often. A node pushes to a candidate that becomes the
// second in its queue, so that it joins again.
func (c *candidate) heartbeat() time.Duration {
	half := c.window / 2
	return min(half*time.Duration(max(2, c.rank()))/2, max(longestHeartbeat, half))
}

// wake sets the timer to d, or to the end of the candidate's patience if that is sooner.
func (c *candidate) wake(d time.Duration) {
	now := c.queue.clock.Now()
	if c.votesSince > 0 {
		d = min(d, max(c.votesSince.Add(c.patience()).Sub(now), 0))
	}
	c.due = now.Add(d)
	c.timer.Reset(d)
}

// patience bounds how long the candidate keeps votes that make no quorum: for a window, after
// which the votes of a dead candidate have ended too, and a margin for the answers.
func (c *candidate) patience() time.Duration { return c.window + c.window/4 }

func (c *candidate) outOfPatience(now clock.Instant) bool {
	return now.Sub(c.votesSince) >= c.patience()
}
