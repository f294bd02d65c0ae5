package node

import (
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// Close waits until nothing is in flight and every release has succeeded, as long as some
// server answers at least once in timeout. Then it ends every call and closes the
// Backend. The error names what is left: keys that were not released, or calls that were
// not answered.
func (n *Node) Close(timeout time.Duration) error {
	dropped, err := n.closeServers(timeout)
	n.cast(dropped)
	n.stop()
	n.running.Wait() // before the Backend's client is closed: rueidis leaks a connection that is being dialled then
	n.backend.Close()
	return err
}

// closeServers waits as Close does, and closes every server. It returns the commands that were
// dropped, and the error of Close.
func (n *Node) closeServers(timeout time.Duration) (dropped []Command, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	expired := false
	last := time.Now() // when the wait began, or a server last answered
	for _, s := range n.servers {
		dropped = append(dropped, s.dead(last)...)
	}
	var timer *time.Timer
	timer = time.AfterFunc(timeout, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.servers {
			if s.heard.After(last) && s.inFlight > 0 {
				last = s.heard
			}
		}
		if left := timeout - time.Since(last); left > 0 {
			timer.Reset(left)
			return
		}
		expired = true
		n.idle.Broadcast()
	})
	defer timer.Stop()
	for n.pending > 0 && !expired {
		n.idle.Wait()
	}
	if n.pending > 0 {
		err = n.unsettled(timeout)
	}
	n.closed = true
	for _, s := range n.servers {
		dropped = s.close(dropped)
	}
	return n.dropPostponed(nil, errClosed, dropped), err
}

// unsettled is the error of a Close that gives up after timeout. n.mu is held.
func (n *Node) unsettled(timeout time.Duration) error {
	for _, s := range n.servers {
		if s.down != nil {
			return fmt.Errorf("keys not released within %v: %w", timeout, s.down)
		}
		if s.releaseErr != nil {
			return fmt.Errorf("keys not released within %v: %w", timeout, s.releaseErr)
		}
	}
	return fmt.Errorf("%w within %v", quorum.ErrNoReply, timeout)
}

// settled notes the end of a command that Close waits for. n.mu is held.
func (n *Node) settled() {
	if n.pending--; n.pending == 0 {
		n.idle.Broadcast()
	}
}
