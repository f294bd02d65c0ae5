package node

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// A server that cannot be connected to is marked as down. rueidis would dial for each
// pipeline, and allocate a connection's buffers for it, which costs more than an acquisition
// on all the healthy nodes does. While the server is down acquisitions are refused at once,
// and extensions and releases stay queued. A probe goes out from time to time. Once one is
// answered, all queued commands are sent: an outage that is shorter than validity loses no
// lock.
//
// The pause before a probe is an eighth of the time for which the server has been down,
// within these bounds. So the end of an outage is noticed after an eighth of its length,
// or firstProbe if that is longer, and at the latest after lastProbe.
const (
	firstProbe = 5 * time.Millisecond
	lastProbe  = 250 * time.Millisecond
)

// connection notes how a pipeline ended: err is the error of the connection, nil if the server
// answered. seen is failures when the pipeline was sent. It appends to dropped the acquisitions
// and the releases whose callers need not wait. The Node's mutex is held.
//
// The pipelines that were under way when a connection broke say nothing of the next
// connection. The pipeline after them has dialled again: if it breaks off too, or says that a
// dial failed, the server is down. An error that the server answers with is no failure,
// unless it answers the handshake with it.
func (s *server) connection(seen int, err error, keys []string, dropped []Command) []Command {
	switch {
	case err == nil:
		s.failures = 0
		s.setUp()
		return dropped
	case errors.Is(err, context.Canceled) || s.node.closed:
		return dropped
	}
	s.failures++
	if s.down != nil || seen == 0 && !errors.Is(err, ErrNotConnected) {
		return dropped
	}
	s.setDown(err)
	s.downSince = time.Now()
	if !s.probing { // the probe of an outage that has just ended goes on
		s.probing = true
		s.node.running.Go(func() { s.probe(keys) })
	}
	return s.answerQueued(s.node.dropPostponed(s, s.down, dropped))
}

// answerQueued replies to the callers of all queued acquisitions and releases. The releases
// stay queued.
func (s *server) answerQueued(dropped []Command) []Command {
	kept := fifo{limit: s.queue.limit}
	for s.queue.len() > 0 {
		c := s.queue.pop()
		if c.handler != nil || c.joiner != nil {
			c.Err = s.down
			dropped = append(dropped, c)
			c.handler = nil
		}
		if c.releases() {
			kept.push(c)
		}
	}
	s.queue = kept
	return dropped
}

func (s *server) setDown(err error) {
	if !errors.Is(err, ErrNotConnected) {
		err = NotConnected(err)
	}
	s.down = err
}

// setUp ends what setDown began.
func (s *server) setUp() {
	if s.down == nil {
		return
	}
	s.down = nil
	s.wakeWorker(claimLane)
	s.wakeWorker(extensionLane)
}

// probe sends a command to the server that has keys until it answers: the release of a
// claim that no process has. It runs on a goroutine of its own, without the Node's mutex.
func (s *server) probe(keys []string) {
	n := s.node
	timer := time.NewTimer(firstProbe)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.ctx.Done():
			return
		}
		err := n.backend.Do(n.ctx, []Command{{Kind: Release, Claim: NewClaim(keys, rand.Text(), n.index+1)}})
		outage, goOn := s.probed(err)
		if !goOn {
			return
		}
		timer.Reset(min(max(outage/8, firstProbe), lastProbe))
	}
}

// probed notes the result of a probe. It returns how long the server has been down, and whether
// to probe again.
func (s *server) probed(err error) (outage time.Duration, goOn bool) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if err == nil {
		s.failures = 0
		s.setUp()
	} else if s.down != nil {
		s.setDown(err)
	}
	s.probing = s.down != nil
	return time.Since(s.downSince), s.probing
}
