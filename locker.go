package redlock

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waiting"
)

// Locker takes locks by a quorum of its nodes. It is safe for concurrent use;
// one per process and set of nodes is enough. It must be closed.
type Locker struct {
	config lockerConfig
	nodes  []*node.Node
	panel  *quorum.Panel
	keeper *keeper.Keeper
	chain  Handler        // nil without middleware
	queue  *waiting.Queue // nil with WithoutWaitQueue

	panicked atomic.Pointer[PanicError] // the first

	closing chan struct{} // closed when Close begins
	mu      sync.Mutex    // guards closed, and operations against Close
	closed  bool
	// operations are those under way. Each holds the Locker open: Close waits
	// for them, and none begins after it.
	operations sync.WaitGroup
}

// New is a Locker over clients that stay the caller's: Close does not close
// them, and they must not be closed before it. Each stands for one deployment
// that is independent of the others: a server, a Sentinel group, a Cluster. An
// odd number is best; the quorum is more than half. All processes that contend
// for a lock must use the same nodes.
//
// The clients should be made with Tune: without it, rueidis may send the
// commands for one key over several connections, where they overtake each
// other and leave a key behind for its ttl.
//
// New refuses two clients of which the addresses (their Nodes) tell that they
// are of the same server, whatever the database: it would vote twice.
func New(nodes []rueidis.Client, opts ...Option) (*Locker, error) {
	occupied := make(sites)
	for i, client := range nodes {
		value := reflect.ValueOf(client)
		if client == nil || value.Kind() == reflect.Pointer && value.IsNil() {
			return nil, argumentError("nodes[%d] is nil: must be a client", i)
		}
		if value.Comparable() { // somebody's own may not be
			if j := slices.Index(nodes[:i], client); j >= 0 {
				return nil, argumentError("nodes[%d] and nodes[%d] are the same client: a node votes once", j, i)
			}
		}
		addrs := slices.Sorted(maps.Keys(client.Nodes()))
		if j, addr, ok := occupied.occupy(i, addrs, ""); !ok {
			return nil, argumentError("nodes[%d] and nodes[%d] are the same node, %s: a node votes once", j, i, addr)
		}
	}
	config, err := configure(len(nodes), opts)
	if err != nil {
		return nil, err
	}
	voters := make([]voter, len(nodes))
	for i, client := range nodes {
		voters[i] = voter{node.ClientName(client), node.Wrap(client)}
	}
	return newLocker(config, voters), nil
}

// voter is a deployment, and what errors call it.
type voter struct {
	name  string
	store node.Store
}

func newLocker(config lockerConfig, voters []voter) *Locker {
	l := &Locker{
		config:  config,
		panel:   quorum.NewPanel(len(voters)),
		chain:   chain(config.middleware),
		closing: make(chan struct{}),
	}
	for i, v := range voters {
		l.nodes = append(l.nodes, node.New(i, v.name, v.store, !config.noQueue))
	}
	kept := keeper.Config{Nodes: l.nodes, Panel: l.panel, Drift: config.drift, Cause: l.lostError}
	if l.chain != nil {
		kept.Extend, kept.Lost = l.extendDue, l.tellLost
	}
	if !config.noQueue {
		kept.Ended = l.ended
	}
	l.keeper = keeper.New(kept)
	if !config.noQueue {
		l.queue = waiting.New(l.keeper, l.nodes, config.handoff)
	}
	return l
}

// configure checks what New and Open are given.
func configure(nodes int, opts []Option) (lockerConfig, error) {
	config := defaults
	if nodes == 0 {
		return config, argumentError("no nodes: at least one is needed, three or five are usual")
	}
	if nodes > node.MaxNodes {
		return config, argumentError("%d nodes: at most %d are supported", nodes, node.MaxNodes)
	}
	for i, o := range opts {
		if o == nil {
			return config, argumentError("option %d is nil", i)
		}
		config = o.applyLocker(config)
	}
	return config, config.check()
}

// Acquire takes the lock on key for ttl, and waits for it by the retry policy
// and until ctx ends. The lock is not extended by itself, unless AutoExtend is
// called on it.
//
// The error matches ErrNotAcquired if others hold the lock, and ErrNoQuorum if
// too many nodes failed to decide; it also matches ctx's error if that ended
// the wait. It is ErrAlreadyHeld if ctx holds the key already, and ErrClosed
// after Close.
func (l *Locker) Acquire(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, []string{key}, ttl, opts, true)
}

// TryAcquire is Acquire with one attempt.
func (l *Locker) TryAcquire(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, []string{key}, ttl, opts, false)
}

// AcquireAll is Acquire for several keys, all or none of them. On a Cluster
// node they must share a hash slot.
func (l *Locker) AcquireAll(ctx context.Context, keys []string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, slices.Clone(keys), ttl, opts, true)
}

// TryAcquireAll is AcquireAll with one attempt.
func (l *Locker) TryAcquireAll(ctx context.Context, keys []string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, slices.Clone(keys), ttl, opts, false)
}

// Close ends the contexts of the locks that are held with ErrClosed, and the
// waits for locks with an error that is ErrClosed. It releases what is held,
// waiting for nodes that do not answer no longer than the node timeout (1 s
// unless WithNodeTimeout was given), and closes the connections that Open made;
// where rueidis is dialling an address that is silent, or several Sentinels one
// after the other, that takes until it gives up: a second each, by default.
// Nothing of the Locker's own is left running when it returns.
//
// The error matches ErrNoQuorum if so many nodes did not answer that keys may
// remain on a quorum; they expire by their ttl. It has the first PanicError, if
// there was one. Closing again does nothing, and does not wait.
func (l *Locker) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.closing)
	l.keeper.Close(ErrClosed)
	l.operations.Wait()
	if l.queue != nil {
		l.queue.Close()
	}
	err := l.closeNodes()
	l.keeper.Wait()
	if panicked := l.panicked.Load(); panicked != nil {
		return errors.Join(err, panicked)
	}
	return err
}

func (l *Locker) closeNodes() error {
	timeout := l.config.timeoutOf(maxNodeTimeout * 4)
	ballot := quorum.NewBallot(len(l.nodes))
	var closing sync.WaitGroup
	var mu sync.Mutex // guards ballot
	for i, n := range l.nodes {
		closing.Go(func() {
			reply := quorum.Reply{Vote: quorum.Granted}
			if err := n.Close(timeout); err != nil {
				reply = quorum.Reply{Vote: quorum.Failed, Err: err}
			}
			mu.Lock()
			defer mu.Unlock()
			ballot.Cast(i, reply)
		})
	}
	closing.Wait()
	if ballot.Verdict() == quorum.Carried {
		return nil
	}
	return l.quorumError("close", nil, ballot, ErrNoQuorum)
}

// begin holds the Locker open for an operation, which ends with
// l.operations.Done. It reports false after Close.
func (l *Locker) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.operations.Add(1)
	return true
}
