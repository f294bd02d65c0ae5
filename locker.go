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

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// Locker acquires locks by a quorum of its nodes. It is safe for concurrent use;
// one per process and set of nodes is enough. Make one with [Open] or [New], and
// close it with [Locker.Close].
type Locker struct {
	config lockerConfig
	nodes  *node.Nodes
	clock  *clock.Clock
	keeper *keeper.Keeper
	chain  Handler          // nil without middleware
	queue  *waitqueue.Queue // nil with WithoutWaitQueue

	fenceClock fenceClock

	panicked atomic.Pointer[PanicError] // the first on a goroutine of the Locker

	closing chan struct{} // closed when Close begins
	mu      sync.Mutex    // guards closed, kept, and operations.Add
	closed  bool
	kept    map[*Lock]time.Time // until when Close must leave a lock's keys on the nodes, see leasthold
	// operations counts the operations under way; Close waits for them. An Add during
	// that Wait would be a race. begin adds under mu, and only while closed is false, so
	// every Add comes before the Wait.
	operations sync.WaitGroup
}

// New returns a [Locker] that uses the given clients. It does not own them:
// close them after the Locker. Use [Open] to have the Locker make its own.
//
// Each client is one node: a server, a Sentinel group or a Cluster, which must be
// independent of the others. The quorum is more than half of them, so an odd
// number is best. All processes that contend for a lock must use the same nodes.
//
// Make the clients with [Tune]. Without it, rueidis may send the commands for
// one key over several connections, where they can overtake each other and leave
// a key behind until its ttl has passed.
//
// The Locker sends QUIT to a server that reports being a replica or loading its data, at
// most once a second. The client then dials the address again, which may lead to another
// server by now. Other users of the client see a broken connection.
//
// A node may be down when the process starts, as with Open. For a single server, set
// ForceSingleClient: if the server cannot be dialled, [rueidis.NewClient] then returns both an
// error and a client, which dials again when it is used. Give that client to New, unless it
// is nil: the node takes part as soon as it answers. For a Sentinel group or a Cluster that
// cannot be reached there is no client: try again, or use Open. Never leave a node out: the
// quorum would be computed from fewer nodes.
//
// New returns an error if two clients have an address in common, even with
// different databases: that server would vote twice.
func New(nodes []rueidis.Client, opts ...Option) (*Locker, error) {
	occupied := make(sites)
	for i, client := range nodes {
		value := reflect.ValueOf(client)
		if client == nil || value.Kind() == reflect.Pointer && value.IsNil() {
			return nil, argumentError("nodes[%d] is nil: must be a client", i)
		}
		if value.Comparable() { // a type of the caller's may be incomparable
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
	if config.credentials != nil {
		return nil, argumentError("WithCredentials: is for Open: must be an AuthCredentialsFn of the clients that New is given")
	}
	voters := make([]voter, len(nodes))
	for i, client := range nodes {
		if config.guard.set && client.Mode() == rueidis.ClientModeCluster {
			return nil, argumentError("nodes[%d]: %w", i, errGuardedCluster)
		}
		voters[i] = voter{redisnode.ClientName(client), redisnode.Wrap(client)}
	}
	return newLocker(config, voters), nil
}

// voter is the backend of one node, with the name that errors give the node.
type voter struct {
	name    string
	backend node.Backend
}

func newLocker(config lockerConfig, voters []voter) *Locker {
	l := &Locker{
		config:  config,
		clock:   clock.New(config.drift),
		chain:   chain(config.middleware),
		closing: make(chan struct{}),
	}
	nodes := make([]*node.Node, len(voters))
	for i, v := range voters {
		nodes[i] = node.New(i, v.name, v.backend, !config.noQueue)
	}
	l.nodes = node.NewNodes(nodes...)
	l.keeper = keeper.New(keeper.Config{Nodes: l.nodes, Clock: l.clock, Middleware: l.chain != nil})
	if !config.noQueue {
		l.queue = waitqueue.New(l.clock, l.nodes, config.handoff, l.fenceClock.next)
	}
	return l
}

// configure applies and checks the options of New and Open.
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

// Acquire acquires the lock on key for ttl, between [MinTTL] and [MaxTTL]. While
// another owner holds it, Acquire tries again, for as long as the retry policy
// ([WithRetry]) and ctx allow. The ttl does not bound the wait.
//
// Any key is accepted except the empty string and the names of the library's own keys:
// those that contain ":redlock:" or ":redlock.", and "redlock:guard".
//
// The lock is valid for at least nine tenths of the ttl less the drift allowance
// ([WithDriftFactor]). Where a round trip takes more than the last tenth, it is valid for all
// but one round trip. It is not extended unless [Lock.AutoExtend] is called. [With] extends
// and releases it automatically.
//
// The error matches [ErrNotAcquired] if another owner holds the lock, or may hold it. It
// matches [ErrNoQuorum] if so many nodes failed or timed out that there was no decision, or
// if keys left by processes that died make a quorum impossible. If ctx ended the wait, it
// matches ctx's error too. It matches [ErrAlreadyHeld] if ctx already holds the key, and
// [ErrClosed] after [Locker.Close]. A [QuorumError] has each node's answer.
//
// Acquire does not wait for nodes that can never grant the lock: if for a second so many lack a
// command, or deny it to their user, that there is no quorum, the error matches [ErrNoQuorum] and
// [errors.ErrUnsupported].
func (l *Locker) Acquire(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, request{keys: []string{key}, ttl: ttl, waits: true}, opts)
}

// TryAcquire is [Locker.Acquire] with a single attempt. Of several attempts at the same
// moment for a free lock, one succeeds: if the nodes' votes are split, the attempts settle
// them by age, within a few round trips and the node timeout ([WithNodeTimeout]).
func (l *Locker) TryAcquire(ctx context.Context, key string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, request{keys: []string{key}, ttl: ttl}, opts)
}

// AcquireAll is [Locker.Acquire] for several keys: it acquires all of them or
// none. If a node is a Cluster, the keys must share a hash slot.
func (l *Locker) AcquireAll(ctx context.Context, keys []string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, request{keys: slices.Clone(keys), ttl: ttl, waits: true}, opts)
}

// TryAcquireAll is [Locker.AcquireAll] with a single attempt.
func (l *Locker) TryAcquireAll(ctx context.Context, keys []string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.acquire(ctx, request{keys: slices.Clone(keys), ttl: ttl}, opts)
}

// Close ends the contexts of held locks with [ErrClosed], and pending acquires
// with an error that matches it. It releases the locks, and closes the
// connections that [Open] made. Nothing of the Locker is left running when it
// returns. Closing again does nothing and does not wait.
//
// Close waits for a node for as long as it answers. It gives up on a node that has
// been silent for the node timeout ([WithNodeTimeout]; 1 s by default). If rueidis
// is dialling a silent address, Close also waits until that dial gives up, 1 s by
// default; several Sentinels are dialled one after the other.
//
// The error matches [ErrNoQuorum] if Close gave up on so many nodes that keys may
// remain on a quorum; those keys expire by their ttl. If a middleware panicked on one
// of the Locker's goroutines, the error matches the first [PanicError].
func (l *Locker) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.closing) // ends waits for locks and for nodes
	// Held locks end before Close waits for a node (invariant 10).
	var telling sync.WaitGroup
	for _, lock := range l.leaveKept() {
		if l.chain != nil {
			telling.Go(func() { lock.tellLost() })
		}
	}
	l.keeper.Close(ErrClosed) // from here on no attempt becomes a lock
	l.operations.Wait()       // they still use the nodes and the queue
	if l.queue != nil {
		l.queue.Close() // leaving the queues still sends commands to the nodes
	}
	err := l.closeNodes()
	// Rounds of extensions end when the nodes close. Their middleware may panic until then.
	l.keeper.Wait()
	telling.Wait()
	if panicked := l.panicked.Load(); panicked != nil {
		return errors.Join(err, panicked)
	}
	return err
}

func (l *Locker) closeNodes() error {
	timeout := l.config.longestTimeout()
	tally := quorum.NewTally(l.nodes.Len())
	var closing sync.WaitGroup
	var mu sync.Mutex // guards tally
	for i, n := range l.nodes.All() {
		closing.Go(func() {
			reply := quorum.Reply{Vote: quorum.Granted}
			if err := n.Close(timeout); err != nil {
				reply = quorum.Reply{Vote: quorum.Failed, Err: err}
			}
			mu.Lock()
			defer mu.Unlock()
			tally.Cast(i, reply)
		})
	}
	closing.Wait()
	if tally.Verdict() == quorum.Won {
		return nil
	}
	return l.quorumError("close", nil, tally, ErrNoQuorum)
}

// begin registers an operation, so that Close waits for it. The caller ends the operation
// with l.operations.Done. begin reports false if the Locker is closed.
func (l *Locker) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.operations.Add(1)
	return true
}

// interruption returns what ended a wait: the closing of the Locker, ctx, or nothing.
func (l *Locker) interruption(ctx context.Context) []error {
	select {
	case <-l.closing:
		return []error{ErrClosed}
	default:
		return ctxErrors(ctx)
	}
}

// ctxErrors returns ctx's error, and its cause if that says more.
func ctxErrors(ctx context.Context) []error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(cause, err):
		return []error{cause}
	}
	return []error{err, cause}
}
