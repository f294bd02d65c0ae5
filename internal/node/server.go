package node

import (
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	// silentAfter is how long a server that owes answers may send none before acquisitions are
	// refused at once, instead of being queued.
	silentAfter = 500 * time.Millisecond
	// secondLook is the pause after the first look at such a silence. Only a second look that
	// finds the same counts: this process may have been stopped itself, and the answers may
	// have arrived, unread.
	secondLook = 50 * time.Millisecond
)

// server is one server of a deployment, with the commands that wait for it. It is guarded by
// its Node's mutex, which the caller of each method holds unless the method says otherwise.
//
// There are two lanes, so that no other command queues in front of an extension: one for
// acquisitions and releases, first in, first out, and one for extensions, the one that is due
// first in front. See worker.go.
//
// On one connection commands run in the order in which they were sent. Two workers may still
// put theirs on the connection in either order, and a Cluster may redirect. So no claim
// depends on the order: what a release may have missed is released again. See settle.
type server struct {
	node *Node

	queue      fifo
	extensions extensions
	lanes      [2]lane

	inFlight int       // commands
	heard    time.Time // the last answer, or when the first of those in flight was sent
	silent   time.Time // the first look at the latest silence
	trip     fastest
	flights  flights

	failures  int       // pipelines that broke off since the last that was answered
	down      error     // why the server cannot be connected to; nil if it can: see breaker.go
	downSince time.Time // when it was last marked as down
	probing   bool      // probe is running

	// Releases that failed, and are retried: see cleanup.go.
	failed     []Command
	pauses     backoff.BackOff // between the retries; nil before the first
	retry      *time.Timer     // ends the pause; nil while there is none
	failedAt   time.Time       // when one failed last
	releaseErr error           // of the last release that failed, unless one has succeeded since
}

// push queues a command. If the queue has doubled it also sweeps, and returns dead commands.
func (s *server) push(c Command) (dropped []Command) {
	s.queue.push(c)
	if s.queue.grown() {
		dropped = s.dead(time.Now())
	}
	s.wakeWorker(claimLane)
	return dropped
}

// dead takes out of the queue the commands that would be dropped if their turn came now.
func (s *server) dead(now time.Time) []Command {
	dead := s.queue.remove(func(c *Command) bool {
		switch {
		case !c.releases() && c.Claim.Ended():
			c.Err = errEnded
			return true
		case c.expired(now):
			c.Claim.states[s.node.index].phase = done
			s.node.settled()
			s.node.checkReleased(c.Claim)
			return true
		}
		return false
	})
	s.node.resume() // not before: it changes the queue
	return dead
}

// backlog returns the number of commands that wait in a lane, some of which may be dead.
func (s *server) backlog(id laneID) int {
	if id == extensionLane {
		return s.extensions.len()
	}
	return s.queue.len()
}

// refusal returns why an acquisition is refused at once, or nil.
func (s *server) refusal() error {
	if s.down != nil {
		return s.down
	}
	if s.inFlight > 0 {
		now := time.Now()
		quiet := now.Sub(s.heard)
		if quiet < max(silentAfter, 4*s.trip.least()) {
			return nil
		}
		if s.silent.Before(s.heard) {
			s.silent = now
		}
		if now.Sub(s.silent) >= secondLook {
			return NotRun(fmt.Errorf("not sent: %d earlier commands are unanswered, the first for %v", s.inFlight, quiet.Round(time.Millisecond)))
		}
	}
	return nil
}

// unsent returns, for a queued command, when the server was last heard of, and why the command
// has not been sent.
func (s *server) unsent() (time.Time, error) {
	if s.down != nil {
		return time.Time{}, s.down
	}
	return s.heard, NotRun(fmt.Errorf("not sent: %d earlier commands are unanswered", s.inFlight))
}

// close drops the queued commands, and ends the workers.
func (s *server) close(dropped []Command) []Command {
	for id := range s.lanes {
		s.lanes[id].wakeIdle()
	}
	if s.retry != nil {
		s.retry.Stop()
	}
	first := len(dropped)
	for s.queue.len() > 0 {
		dropped = append(dropped, s.queue.pop())
	}
	for s.extensions.len() > 0 {
		dropped = append(dropped, s.extensions.pop())
	}
	for i := range dropped[first:] {
		dropped[first+i].Err = errClosed
	}
	return dropped
}
