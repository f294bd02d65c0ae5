// Package node makes a voter of one deployment: it acquires, extends and releases claims, and
// releases whatever a claim may have left behind. A Backend runs the commands.
//
// Commands are queued, and leave in pipelines. The workers of a server take what has gathered
// while the last pipeline was under way. That makes the library fast under load: with 128
// callers a pipeline carries dozens of commands, and costs one write, one read and one
// wake-up of each goroutine on the way. See server.go and worker.go.
package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MaxNodes is the most nodes that can vote on one question.
const MaxNodes = 64

// Node is one voter. Its methods queue commands and do not wait for the server.
type Node struct {
	name    string
	index   int
	backend Backend
	// channels are those of backend; NoChannels if no process waits in a queue here.
	channels Channels

	// ctx is passed to all calls. It can be cancelled, and has no deadline: with a
	// deadline rueidis may close a connection in synchronous mode, and leave a key
	// behind; without one it only abandons the wait.
	ctx  context.Context
	stop context.CancelFunc

	// mu guards what follows, all of every server, this node's state of every Claim, and every
	// PendingExtension. While it is held nothing blocks, no ReplyHandler is called, and no other lock
	// is taken.
	mu      sync.Mutex
	servers map[string]*server
	started []*server // scratch of Extend
	closed  bool
	pending int       // commands that Close waits for: those in flight, and releases until they have succeeded
	idle    sync.Cond // signalled when nothing is pending

	ownReleases ownReleases // nil before the first
	postponed   []postponed // what waits for one of them

	running sync.WaitGroup // the node's own goroutines

	trip atomic.Int64 // of the server that answered last
}

// New returns the voter with the given index of its panel, 0 ≤ index < MaxNodes. With queue, a
// release of one key grants it to the first waiter in its queue, if the backend can push.
func New(index int, name string, backend Backend, queue bool) *Node {
	n := &Node{name: name, index: index, backend: backend, servers: make(map[string]*server)}
	if queue {
		n.channels = backend.Channels()
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.idle.L = &n.mu
	return n
}

// Name returns what errors call the node.
func (n *Node) Name() string { return n.name }

// Channels returns how many channels carry grants to the waiters of a Locker.
func (n *Node) Channels() Channels { return n.channels }

// Check returns why a lock over these keys can never be acquired here, if so.
func (n *Node) Check(keys []string) error { return n.backend.Check(keys) }

// CheckCounters returns why a lock over these keys can never have a fence here, if so.
func (n *Node) CheckCounters(keys []string) error {
	for _, key := range keys {
		if err := n.checkCompanion(key, "counter", Fence); err != nil {
			return err
		}
	}
	return nil
}

// CheckQueue returns why no process can wait for the key in a queue here, if so.
func (n *Node) CheckQueue(key string) error {
	if n.channels == NoChannels {
		return ErrNoPush
	}
	return n.checkCompanion(key, "queue", Queue)
}

// checkCompanion returns why the key has no such companion here, if so: what is the companion's
// name in the error. Only a key with a closing brace may have none.
func (n *Node) checkCompanion(key, what, name string) error {
	if strings.IndexByte(key, '}') < 0 {
		return nil
	}
	if companion := Companion(key, name); n.backend.Check([]string{key, companion}) != nil {
		return fmt.Errorf("key %q and its %s, %q, are in different slots of a Cluster: use a key without braces, or with a hash tag, such as {order:1}", key, what, companion)
	}
	return nil
}

// Listen calls Listen of the Backend.
func (n *Node) Listen(ctx context.Context, channel string, ready func(), heard func(Push)) error {
	return n.backend.Listen(ctx, channel, ready, heard)
}

// Trip returns about the shortest round trip to the server that answered last, or 0 if none has.
// It takes no lock.
func (n *Node) Trip() time.Duration { return time.Duration(n.trip.Load()) }

// Answers reports whether the server of the keys takes commands, as far as is known: it is
// not down, and not silent.
func (n *Node) Answers(keys []string) bool {
	name := n.backend.Server(keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server(name).refusal() == nil
}

// Unsent returns, for a command of the claim that is still queued, when its server was last
// heard of, and why the command has not been sent. See quorum.Unsent.
func (n *Node) Unsent(c *Claim) (since time.Time, reason error) {
	name := n.backend.Server(c.Keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server(name).unsent()
}

// server returns the server of that name. n.mu is held.
func (n *Node) server(name string) *server {
	s, ok := n.servers[name]
	if !ok {
		s = &server{node: n}
		for id := range s.lanes {
			s.lanes[id].ready.L = &n.mu
		}
		n.servers[name] = s
	}
	return s
}
