package node

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A release that failed is retried after about firstPause, then after growing pauses up to
// lastPause, until it succeeds or the keys have expired.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// retryLater schedules the retry of a failed release after a pause, together with the
// server's other failed releases. The Node's mutex is held.
func (s *server) retryLater(c Command) {
	c.handler, c.Outcome, c.Partial = nil, Unknown, false
	s.failed = append(s.failed, c)
	s.releaseErr = c.Err
	if s.retry != nil || s.node.closed {
		return
	}
	if s.pauses == nil {
		s.pauses = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(firstPause),
			backoff.WithMaxInterval(lastPause),
			backoff.WithMaxElapsedTime(0))
	}
	now := time.Now()
	if now.Sub(s.failedAt) > 4*lastPause { // a new outage
		s.pauses.Reset()
	}
	s.failedAt = now
	s.retry = time.AfterFunc(s.pauses.NextBackOff(), s.retryReleases)
}

// retryReleases ends the pause: it queues the releases that failed.
func (s *server) retryReleases() {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	s.retry = nil
	if s.node.closed {
		return
	}
	for _, c := range s.failed {
		s.queue.push(c)
	}
	clear(s.failed)
	s.failed = s.failed[:0]
	s.wakeWorker(claimLane)
}
