package node

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	// silence is for how long a server that owes answers may give none before
	// acquisitions are refused at once, instead of being queued.
	silence = 500 * time.Millisecond
	// secondLook is how long after the first look at such a silence a second one
	// must find the same: this process may just have been stopped itself, and the
	// answers may be there, unread.
	secondLook = 50 * time.Millisecond
)

// server is one server of a deployment, with the commands that wait for it. It
// is guarded by its Node's mutex.
//
// There are two lanes, so that nothing queues in front of an extension: one for
// acquisitions and releases, first in, first out, and one for extensions, the
// one that is due first in front. A worker takes what waits in its lane, sends
// it as one pipeline, waits for the replies and casts the votes, until nothing
// waits. A server that is near has one worker per lane, as long as it answers:
// what comes meanwhile goes out together. For one that is far, several pipelines
// are under way.
//
// On one connection commands are run in the order in which they were sent. Two
// workers may still put theirs on the connection in either order, and a Cluster
// may redirect; so no claim depends on it: what a release may have missed is
// released again: see settle.
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
	downSince time.Time // when it was marked as down last
	probing   bool      // probe is running

	// Releases that failed, and are tried again: see cleanup.go.
	failed   []Command
	pauses   backoff.BackOff // between these tries; nil before the first
	again    *time.Timer     // ends the pause; nil while there is none
	failedAt time.Time       // when one failed last
	owing    error           // why, unless one has succeeded since
}

// which lane.
type which int

const (
	claims    which = iota // acquisitions and releases
	extending              // extensions
)

// many is how many commands have to wait for a second pipeline to go out to a
// server that is near: so that it has something to do while the replies to the
// first one are read.
const many = 48

// The bounds of each lane.
var (
	// far is the round trip from which on a pipeline does not wait for the one
	// before. Below it, waiting makes pipelines longer and costs less than it
	// saves. Nobody waits for an extension.
	far = [...]time.Duration{claims: 700 * time.Microsecond, extending: 5 * time.Millisecond}
	// patience is for how long a pipeline waits for the one before to be answered
	// by a server that is near: it may hang.
	patience = [...]time.Duration{claims: 5 * time.Millisecond, extending: 25 * time.Millisecond}
	// maxPipelines is how many pipelines may be under way to a server that is far,
	// or hangs; rueidis' ring of 1024 has room for all.
	maxPipelines = [...]int{claims: 64, extending: 3}
	// maxBatch is how many commands a pipeline carries. At 50 ms that makes 300 000
	// claims and 30 000 extensions a second. rueidis sends pipelines of 2000 and
	// more on another connection, where they overtake.
	maxBatch = [...]int{claims: 256, extending: 512}
)

// lane is the workers of one lane.
type lane struct {
	busy   int       // workers that take or send
	latest time.Time // when the latest pipeline was sent
	// One worker stays when there is nothing to do: to wake it costs less than to
	// start another.
	idle  bool
	ready sync.Cond // signalled when it is not to be idle any more
}

// push queues an acquisition or a release, and returns what it found dead in a
// queue that grows.
func (s *server) push(c Command) (dropped []Command) {
	s.queue.push(c)
	if s.queue.grown() {
		dropped = s.dead(time.Now())
	}
	s.work(claims)
	return dropped
}

// work has a worker of the lane go on or start, if there is anything for one to
// do.
func (s *server) work(w which) {
	if s.waiting(w) == 0 || s.down != nil || s.node.closed {
		return
	}
	l := &s.lanes[w]
	switch trip := s.trip.least(); {
	case l.busy == 0:
	case l.busy == maxPipelines[w]:
		return
	case trip == 0 || trip >= far[w]:
	case l.busy == 1 && s.waiting(w) >= many:
	case time.Since(l.latest) < patience[w]:
		return
	}
	l.busy++
	if l.idle {
		l.idle = false
		l.ready.Signal()
		return
	}
	s.node.running.Go(func() { s.serve(w) })
}

// waiting is how many commands wait in a lane, some of which may be dead.
func (s *server) waiting(w which) int {
	if w == extending {
		return s.extensions.len()
	}
	return s.queue.len()
}

// serve sends what waits in a lane until nothing does. It may hang with its
// server, and nobody waits for it.
func (s *server) serve(w which) {
	n := s.node
	var batch, dropped []Command
	flight := &flight{flights: &s.flights}
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if s.inFlight+s.waiting(w) >= crowd {
			// Callers that are ready to run are about to add to the pipeline.
			n.mu.Unlock()
			runtime.Gosched()
			n.mu.Lock()
		}
		now := time.Now()
		batch, dropped = s.take(w, now, batch[:0], dropped[:0])
		if len(dropped) > 0 {
			n.mu.Unlock()
			n.cast(dropped)
			clear(dropped)
			n.mu.Lock()
		}
		if len(batch) == 0 {
			if s.waiting(w) > 0 && s.down == nil && !n.closed {
				continue // it came while the dropped were told
			}
			if !s.rest(w) {
				return
			}
			continue
		}
		s.work(w) // another, where the server is far
		dropped = s.send(flight, batch, now, dropped[:0])
		n.mu.Unlock()
		n.cast(batch)
		n.cast(dropped)
		clear(batch)
		clear(dropped)
		n.mu.Lock()
	}
}

// send sends a pipeline and settles what comes of it. It returns the commands that
// need not wait any more, as the connection was found to be.
func (s *server) send(f *flight, batch []Command, now time.Time, dropped []Command) []Command {
	n, seen := s.node, s.failures
	n.mu.Unlock()
	f.prepare(now)
	for i := range batch {
		if v := batch[i].voter; v != nil {
			v.Sent(n.index, f)
		}
	}
	f.leave()
	err := n.backend.Do(n.ctx, batch)
	end := time.Now()
	f.land(end, err == nil)
	n.mu.Lock()
	s.inFlight -= len(batch)
	if err == nil {
		s.trip.add(end.Sub(now))
		n.trip.Store(int64(s.trip.least()))
		s.heard = end
	}
	for i := range batch {
		s.settle(&batch[i], end)
	}
	return s.connection(seen, err, batch[0].Claim.Keys, dropped)
}

// rest has a worker wait for work, and reports whether there may be some. There
// is room for one, and for none where a deployment has so many servers that
// their workers would cost more than they spare.
//
// No command is missed: the mutex is held from the worker's last look at the queue
// until Wait, which releases it only once the worker can be signalled.
func (s *server) rest(w which) bool {
	l := &s.lanes[w]
	l.busy--
	if l.idle || s.node.closed || len(s.node.servers) > maxIdle {
		return false
	}
	// Whoever signals counts the worker as busy and ends idle: when this one goes
	// on, another may be idle again. So idle is no condition to look at after Wait,
	// which returns for no other reason.
	l.idle = true
	l.ready.Wait()
	return !s.node.closed
}

// maxIdle is up to how many servers of a deployment have workers that stay.
const maxIdle = 64

// crowd is from how many commands on a worker yields before it takes them.
const crowd = 3

// take takes the commands of a pipeline from a lane. What needs not be sent any
// more is dropped.
func (s *server) take(w which, now time.Time, batch, dropped []Command) ([]Command, []Command) {
	if s.down != nil || s.node.closed {
		return batch, dropped
	}
	for len(batch) < maxBatch[w] && s.waiting(w) > 0 {
		var c Command
		if w == extending {
			c = s.extensions.pop()
		} else {
			c = s.queue.pop()
		}
		if s.begin(&c, now) {
			batch = append(batch, c)
		} else {
			dropped = append(dropped, c)
		}
	}
	if len(batch) > 0 {
		if s.inFlight == 0 {
			s.heard = now
		}
		s.inFlight += len(batch)
		s.lanes[w].latest = now
	}
	return batch, dropped
}

// begin prepares a command for being sent. It reports false, with the command's
// outcome, if it is not to be sent.
func (s *server) begin(c *Command, now time.Time) bool {
	p := &c.Claim.places[s.node.index]
	if !c.releases() {
		// The claim may end at any time, and its release is queued then. It sees
		// what is noted here, or this sees that the claim has ended: both hold the
		// Node's mutex, and End comes before the release.
		if c.Claim.Ended() {
			c.Err = errEnded
			return false
		}
		if c.Kind.sets() {
			p.send(c.Kind, c.lifetime())
		}
		s.node.pending++
		return true
	}
	switch nothing := p.inFlight == 0 && !p.mayHold(); {
	case nothing: // a reply came meanwhile that says so
		c.Outcome, c.Err = Refused, errNoSend
	case s.expired(c, now):
	default:
		c.acquired, c.extended = p.acquired, p.extended
		p.acquired, p.extended = false, false
		p.release = sent
		return true
	}
	p.release = done
	s.node.settled()
	return false
}

// lifetime is for how long what c sets may be there.
func (c *Command) lifetime() time.Duration {
	if c.Entry == nil {
		return c.TTL
	}
	return 2*c.Entry.Lease + c.Entry.Window // the queue may grant the key at its end
}

// expired reports whether c is a release that nobody waits for, and of keys that
// have expired by themselves; unless a command is still on its way to a server
// that has hung all along, and then they do so a ttl after it arrives.
func (s *server) expired(c *Command, now time.Time) bool {
	return c.releases() && c.voter == nil && !now.Before(c.until)
}

// dead takes the commands out of the queue that would be dropped if their turn
// came now.
func (s *server) dead(now time.Time) []Command {
	return s.queue.remove(func(c *Command) bool {
		switch {
		case !c.releases() && c.Claim.Ended():
			c.Err = errEnded
			return true
		case s.expired(c, now):
			c.Claim.places[s.node.index].release = done
			s.node.settled()
			return true
		}
		return false
	})
}

// settle draws the consequence of a command's outcome for its claim's place.
//
// The claim may have ended since an acquisition or an extension of it was sent. What
// the command set must then be released (invariant 4). By the state of the release
// when the command's reply is read:
//
//   - not begun: Node.release will look at the place, and find what is noted here.
//   - queued: it is sent after this reply was read, so it deletes what the command set.
//   - sent: the server may have run it before the command, and it deleted nothing. It
//     is repeated, but only once its own reply is in: see released. A second release
//     sent now could overtake it and delete the key, and then the first, whose answer
//     the caller waits for, would say that there was nothing to delete.
//   - done: it is repeated now.
func (s *server) settle(c *Command, now time.Time) {
	p := &c.Claim.places[s.node.index]
	switch {
	case c.releases():
		s.released(c, p, now)
		return
	case !c.Kind.sets(): // leaves nothing
		s.node.settled()
		return
	}
	if c.Kind == Acquire && c.Outcome == Refused && c.Owner == c.Claim.Token {
		// An earlier ask of the same claim has set the keys. They live for at least the
		// ttl from when that was sent.
		c.Outcome, c.Fence = Done, 0
	}
	left := c.Outcome == Done || c.Outcome == Refilled || c.Outcome == Unknown && !errors.Is(c.Err, ErrNotRun) ||
		c.Entry != nil && c.Outcome == Refused // it is in the queue
	p.answered(c.Kind, left)
	if p.release == done && p.mayHold() && !s.node.closed {
		s.release(c.Claim, p, now)
	}
	s.node.settled()
}

// released draws the consequence of a release.
func (s *server) released(c *Command, p *place, now time.Time) {
	if c.Outcome == Unknown {
		p.acquired, p.extended = p.acquired || c.acquired, p.extended || c.extended
		p.release = queued
		s.releaseLater(*c)
		return
	}
	p.release, s.owing = done, nil
	if c.Outcome == Done && !p.refills {
		// It was the acquisition, of which there is one, that had set what was
		// deleted: nothing is left of it, even if its answer is still on its way.
		// If an extension may have set it, the acquisition may still be to run.
		p.spent, p.acquired = true, false
	}
	if p.mayHold() { // set while the release was under way
		s.release(c.Claim, p, now)
	}
	s.node.settled()
}

// release queues a release that nobody waits for.
func (s *server) release(c *Claim, p *place, now time.Time) {
	p.release = queued
	s.node.pending++
	s.queue.push(Command{Kind: s.node.releaseOf(c), Claim: c, until: now.Add(p.ttl)})
	s.work(claims)
}

// refusal is why an acquisition is refused at once, if it is.
func (s *server) refusal() error {
	if s.down != nil {
		return s.down
	}
	if s.inFlight > 0 {
		now := time.Now()
		quiet := now.Sub(s.heard)
		if quiet < max(silence, 4*s.trip.least()) {
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

// unsent says of what is queued since when nothing has been heard, and why it
// has not been sent.
func (s *server) unsent() (time.Time, error) {
	if s.down != nil {
		return time.Time{}, s.down
	}
	return s.heard, NotRun(fmt.Errorf("not sent: %d earlier commands are unanswered", s.inFlight))
}

// close drops what is queued, and ends the workers.
func (s *server) close(dropped []Command) []Command {
	for w := range s.lanes {
		if l := &s.lanes[w]; l.idle {
			l.idle = false
			l.busy++
			l.ready.Signal()
		}
	}
	if s.again != nil {
		s.again.Stop()
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
