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
	// idleTimeout is how long the subscriptions for all keys stay open after the last candidate
	// has ended, and keyIdleTimeout how long those for one key do. A process that waits for a
	// key again and again so needs no new subscription, nor a second join because of it.
	idleTimeout    = 30 * time.Second
	keyIdleTimeout = 5 * time.Second
	// maxIdleKeys is the number of keys from which on subscriptions for a key end with its
	// candidate.
	maxIdleKeys = 1024
	// resubscribe is the pause before a node is subscribed to again. It doubles with each
	// failure, up to longestResubscribe.
	resubscribe        = 100 * time.Millisecond
	longestResubscribe = time.Second
)

// listener subscribes to the nodes' pushes while there are candidates. A node has one channel
// for all keys of the Locker or, on a Cluster, one for each.
type listener struct {
	queue   *Queue
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	perKey []int // the nodes that have a channel for each key

	mu      sync.Mutex          // guards what follows
	forAll  channel             // of the nodes that have one for all keys
	forKeys map[string]*channel // by key, of the nodes in perKey
	idle    int                 // number of channels without a candidate
	closed  bool
}

// channel is a channel to which the listener subscribes on several nodes. The listener's mutex
// guards it.
type channel struct {
	key        string // "": all
	name       string
	nodes      []int
	candidates int                // number of subscribed candidates
	end        context.CancelFunc // ends the subscriptions; nil if there are none
	ending     int                // number of subscriptions, of a goroutine each, that have not ended
	idle       *time.Timer        // calls end some time after the last candidate
}

func (l *listener) init(q *Queue) {
	l.queue = q
	l.ctx, l.stop = context.WithCancel(context.Background()) // the root of the subscriptions
	l.forAll.name = node.LockerChannel(q.nonce)
	l.forKeys = make(map[string]*channel)
	for i, n := range q.nodes.All() {
		switch n.Channels() {
		case node.ChannelPerLocker:
			l.forAll.nodes = append(l.forAll.nodes, i)
		case node.ChannelPerKey:
			l.perKey = append(l.perKey, i)
		}
	}
}

// subscribe subscribes to the nodes for a candidate for the key. The candidate ends with
// unsubscribe.
func (l *listener) subscribe(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(&l.forAll)
	if len(l.perKey) > 0 && l.queue.nodes.All()[l.perKey[0]].CheckQueue(key) == nil {
		c := l.forKeys[key]
		if c == nil {
			c = &channel{key: key, name: node.KeyChannel(key, l.queue.nonce), nodes: l.perKey}
			l.forKeys[key] = c
		}
		l.add(c)
	}
}

// unsubscribe notes the end of a candidate. The subscriptions end some time after the last one.
func (l *listener) unsubscribe(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(&l.forAll, idleTimeout)
	if c := l.forKeys[key]; c != nil {
		l.drop(c, keyIdleTimeout)
	}
}

func (l *listener) add(c *channel) {
	c.candidates++
	l.stopIdling(c)
	if c.end == nil && c.ending == 0 && !l.closed {
		l.start(c)
	}
}

func (l *listener) drop(c *channel, timeout time.Duration) {
	c.candidates--
	switch {
	case c.candidates > 0 || c.end == nil || l.closed:
	case c.key != "" && l.idle >= maxIdleKeys:
		l.finish(c)
	default:
		l.idle++
		c.idle = time.AfterFunc(timeout, func() { l.endIfIdle(c) })
	}
}

func (l *listener) stopIdling(c *channel) {
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
		l.idle--
	}
}

func (l *listener) endIfIdle(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.candidates == 0 && c.end != nil {
		l.stopIdling(c)
		l.finish(c)
	}
}

// start begins the subscriptions.
func (l *listener) start(c *channel) {
	var ctx context.Context
	ctx, c.end = context.WithCancel(l.ctx)
	c.ending = len(c.nodes)
	for _, i := range c.nodes {
		l.running.Go(func() {
			l.listen(ctx, i, c)
			l.ended(c)
		})
	}
}

// finish ends the subscriptions.
func (l *listener) finish(c *channel) {
	c.end()
	c.end = nil
	if c.ending == 0 { // no node can push
		delete(l.forKeys, c.key)
	}
}

// ended notes the end of one subscription. Two for one channel must not overlap: so if a
// candidate has come after finish, the next begin only after the last has ended.
func (l *listener) ended(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.ending--; {
	case c.ending > 0 || c.end != nil:
	case c.candidates > 0 && !l.closed:
		l.start(c)
	default:
		delete(l.forKeys, c.key)
	}
}

// listen keeps the subscription to a channel of one node until ctx ends.
func (l *listener) listen(ctx context.Context, i int, c *channel) {
	q, n := l.queue, l.queue.nodes.All()[i]
	for pause := resubscribe; ctx.Err() == nil; pause = min(2*pause, longestResubscribe) {
		var subscribed atomic.Bool
		began := time.Now()
		ready := func() { subscribed.Store(true); q.subscribed(i, c.key) }
		err := n.Listen(ctx, c.name, ready, func(p node.Push) { q.heard(i, p) })
		if subscribed.Load() {
			pause = resubscribe
			if errors.Is(err, node.ErrMoved) && time.Since(began) > resubscribe {
				continue // the next call finds the server that has the channel now
			}
		}
		rest := pause
		switch {
		case ctx.Err() != nil:
			return
		case !errors.Is(err, node.ErrNoPush):
			q.unsubscribed(i, c.key, err, subscribed.Load())
		case c.key == "":
			return
		default: // another server, or another version of this one, may be able to
			q.noPush(i, err)
			rest = noPushTime
		}
		timer := time.NewTimer(rest)
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
	l.stopIdling(&l.forAll)
	for _, c := range l.forKeys {
		l.stopIdling(c)
	}
}
