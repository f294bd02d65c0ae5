package node

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A release that failed is tried again after about firstPause, then after longer
// and longer, up to lastPause, until it succeeds or the keys have expired.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// releaseLater has a release that failed tried again after a pause, together
// with the others that did.
func (s *server) releaseLater(c Command) {
	c.voter = nil
	s.failed = append(s.failed, c)
	s.owing = c.Err
	if s.again != nil || s.node.closed {
		return
	}
	if s.pauses == nil {
		s.pauses = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(firstPause),
			backoff.WithMaxInterval(lastPause),
			backoff.WithMaxElapsedTime(0))
	}
	now := time.Now()
	if now.Sub(s.failedAt) > 4*lastPause { // these are other troubles
		s.pauses.Reset()
	}
	s.failedAt = now
	s.again = time.AfterFunc(s.pauses.NextBackOff(), s.releaseAgain)
}

// releaseAgain ends the pause.
func (s *server) releaseAgain() {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	s.again = nil
	if s.node.closed {
		return
	}
	for _, c := range s.failed {
		s.queue.push(c)
	}
	clear(s.failed)
	s.failed = s.failed[:0]
	s.work(claims)
}
