package waiting

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

const (
	// idle is for how long nobody has waited before the nodes are not listened to
	// any more.
	idle = 30 * time.Second
	// relisten is the pause before a node is listened to again. It doubles while
	// that is in vain, up to longestRelisten.
	relisten        = 100 * time.Millisecond
	longestRelisten = time.Second
)

// ears listen to the grants that the nodes tell of, with a connection per node,
// while anybody waits.
type ears struct {
	queue   *Queue
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	users  int        // candidates
	on     context.CancelFunc
	quiet  *time.Timer // ends the listening
	closed bool
}

// open begins to listen, for a candidate that ends with rest.
func (e *ears) open() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users++; e.closed {
		return
	}
	if e.quiet != nil {
		e.quiet.Stop()
		e.quiet = nil
	}
	if e.on != nil {
		return
	}
	var ctx context.Context
	ctx, e.on = context.WithCancel(e.ctx)
	for i, n := range e.queue.nodes.All() {
		e.running.Go(func() { e.listen(ctx, i, n) })
	}
}

// rest ends what open began for one candidate.
func (e *ears) rest() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users--; e.users > 0 || e.closed || e.on == nil {
		return
	}
	e.quiet = time.AfterFunc(idle, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.users == 0 && e.on != nil {
			e.on()
			e.on = nil
		}
	})
}

func (e *ears) listen(ctx context.Context, i int, n *node.Node) {
	for pause := relisten; ctx.Err() == nil; pause = min(2*pause, longestRelisten) {
		var heard atomic.Bool
		ready := func() { heard.Store(true); e.queue.rejoin(i) }
		err := n.Listen(ctx, e.queue.channel, ready, func(p node.Push) { e.queue.heard(i, p) })
		if errors.Is(err, node.ErrNoPush) {
			return
		}
		if heard.Load() {
			pause = relisten
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (e *ears) close() {
	e.mu.Lock()
	e.closed = true
	if e.quiet != nil {
		e.quiet.Stop()
	}
	e.mu.Unlock()
	e.stop()
	e.running.Wait()
}
