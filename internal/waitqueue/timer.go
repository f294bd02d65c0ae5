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
	// longestRest is the longest rest, in windows, of a candidate that has given up votes that
	// made no quorum.
	longestRest = 16
	// shortestRecheck is the shortest time after a vote at which the candidate asks again
	// for the rest of a quorum: a push may have been lost, or the votes may be split.
	shortestRecheck = 5 * time.Millisecond
)

// phase says what the candidate's timer is set for.
type phase uint8

const (
	calm    phase = iota // the next heartbeat: the candidate has no votes, or void ones
	waiting              // the next recheck: it has votes, but no quorum
	resting              // the end of a rest: it has given its votes up, and is in no queue
)

// updatePhase sets the phase, and the timer if it has changed, after a count of votes that
// made no quorum. valid says whether any of them is valid.
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

// recheck asks all nodes again for the rest of a quorum: it is late, or a push was lost. If
// that did not help, another owner may have the rest. Then the candidate yields what it has,
// or gives it up.
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

// yieldToHolder leaves a minority of votes, useless while a holder has a quorum, to the
// holder: the candidate does not join those nodes until the holder changes.
func (c *candidate) yieldToHolder() {
	c.ceded = c.renew()
	c.askAll(c.heartbeat())
}

// yieldToElder gives the votes up for an older candidate. The eldest never yields: that is
// what ends split votes (invariant 14).
func (c *candidate) yieldToElder() {
	c.renew()
	c.askAll(c.heartbeat())
}

// giveUp releases votes that make no quorum (invariant 13): another process may reach more
// nodes, or have a faster way to them. The candidate rests for a random time, whose bound
// grows, and comes back with its age. If it gave up because nodes could not be reached, it
// comes back as soon as enough of them can.
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
	c.queue.updateCandidate(c.local)      // the nodes may be too far away by now
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

// enterCalm begins the phase in which the candidate joins by its heartbeat.
func (c *candidate) enterCalm() {
	c.phase, c.rechecks = calm, 0
	c.pause = min(max(shortestRecheck, 2*c.queue.trip()), c.heartbeat())
}

// askAll joins all nodes to learn who owns them, and sets the timer to next, or to the
// heartbeat if that is sooner.
func (c *candidate) askAll(next time.Duration) {
	for i := range c.states {
		c.states[i].owner = "" // until the answers come
	}
	c.joinAll() // sets the timer to the heartbeat
	if next < c.heartbeat() {
		c.wake(next)
	}
}

// heartbeat is the pause between two joins. A vote counts from the last of them, so the
// first candidates in a queue join often. A node tells one that becomes the second.
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

// patience bounds the time for which votes may make no quorum: a window, at whose end the
// votes of a candidate that has died end too, and a margin for the answers.
func (c *candidate) patience() time.Duration { return c.window + c.window/4 }

func (c *candidate) outOfPatience(now clock.Instant) bool {
	return now.Sub(c.votesSince) >= c.patience()
}
