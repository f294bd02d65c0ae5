package waitqueue

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

const (
	// idleTimeout is how long the subscriptions stay open after the last candidate has ended.
	idleTimeout = 30 * time.Second
	// resubscribe is the pause before a node is subscribed to again. It doubles with each
	// failure, up to longestResubscribe.
	resubscribe        = 100 * time.Millisecond
	longestResubscribe = time.Second
)

// listener subscribes to the nodes' pushes, on one connection per node, while there are
// candidates.
type listener struct {
	queue   *Queue
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex         // guards what follows
	candidates int                // number of subscribed candidates
	end        context.CancelFunc // ends the subscriptions; nil if there are none
	idle       *time.Timer        // calls end after idleTimeout
	closed     bool
}

// subscribe subscribes to the nodes for a candidate. The candidate ends with unsubscribe.
func (l *listener) subscribe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.candidates++; l.closed {
		return
	}
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	if l.end != nil {
		return
	}
	var ctx context.Context
	ctx, l.end = context.WithCancel(l.ctx)
	for i, n := range l.queue.nodes.All() {
		l.running.Go(func() { l.listen(ctx, i, n) })
	}
}

// unsubscribe notes the end of a candidate. The subscriptions end idleTimeout after the last
// one.
func (l *listener) unsubscribe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.candidates--; l.candidates > 0 || l.closed || l.end == nil {
		return
	}
	l.idle = time.AfterFunc(idleTimeout, l.endIfIdle)
}

func (l *listener) endIfIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.candidates == 0 && l.end != nil {
		l.end()
		l.end = nil
	}
}

// listen keeps the subscription to one node until ctx ends.
func (l *listener) listen(ctx context.Context, i int, n *node.Node) {
	for pause := resubscribe; ctx.Err() == nil; pause = min(2*pause, longestResubscribe) {
		var subscribed atomic.Bool
		ready := func() {
			subscribed.Store(true)
			l.queue.noteSubscription(i, nil)
			l.queue.rejoin(i)
		}
		err := n.Listen(ctx, l.queue.channel, ready, func(p node.Push) { l.queue.heard(i, p) })
		if errors.Is(err, node.ErrNoPush) {
			return
		}
		if subscribed.Load() {
			pause = resubscribe
		} else if ctx.Err() == nil {
			l.queue.noteSubscription(i, err)
		}
		timer := time.NewTimer(pause)
		select { // until the pause is over, or ctx ends
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// close ends the subscriptions, and waits for the goroutines that listen. It waits without
// the mutex: those goroutines may wait for Queue.mu, whose owner may wait for this mutex in
// subscribe or unsubscribe.
func (l *listener) close() {
	l.markClosed()
	l.stop()
	l.running.Wait()
}

func (l *listener) markClosed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.idle != nil {
		l.idle.Stop()
	}
}
