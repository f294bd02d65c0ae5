package redlock

import (
	"context"
	"errors"
	"fmt"
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
)

// Locker takes locks by a quorum of its nodes. It is safe for concurrent use;
// one per process and set of nodes is enough. It must be closed.
type Locker struct {
	config lockerConfig
	nodes  []*node.Node
	panel  *quorum.Panel
	keeper *keeper.Keeper
	chain  Handler // nil without middleware

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
		l.nodes = append(l.nodes, node.New(i, v.name, v.store))
	}
	kept := keeper.Config{Nodes: l.nodes, Panel: l.panel, Drift: config.drift, Cause: l.lostError}
	if l.chain != nil {
		kept.Extend, kept.Lost = l.extendDue, l.tellLost
	}
	l.keeper = keeper.New(kept)
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

// Lock is a lock that was acquired. Its methods are safe for concurrent use.
//
// It ends when it is released, when its validity ends without an extension,
// when a quorum of its nodes no longer holds it, or when its Locker is closed.
type Lock struct {
	locker  *Locker
	claim   node.Claim
	hold    keeper.Hold
	config  lockConfig
	ttl     time.Duration
	context heldContext

	releasing sync.Once
	released  error // the outcome of Release
}

// Key is the first of Keys.
func (l *Lock) Key() string { return l.claim.Keys[0] }

// Keys are the keys that are held, sorted, without duplicates.
func (l *Lock) Keys() []string { return slices.Clone(l.claim.Keys) }

// Token is the value of the keys on the nodes: random, and fresh for every
// attempt.
func (l *Lock) Token() string { return l.claim.Token }

// Until is the end of validity: until then, no other process can hold the
// lock, as long as clocks keep to the drift and no node loses its data. It
// moves forward with each extension, and carries a monotonic reading.
func (l *Lock) Until() time.Time { return l.hold.Until() }

// Valid tells whether the lock is still held.
func (l *Lock) Valid() bool { return l.hold.Valid() }

// Context ends when the lock does: with a cause that is ErrLost, ErrReleased
// or ErrClosed. It has the values of the ctx that acquired the lock, and not
// its end.
func (l *Lock) Context() context.Context { return l.hold.Context() }

// Extend makes the lock valid for at least ttl from now, less the drift; ttl 0
// means the one it was acquired with. It never shortens a lock, and does not
// exceed WithMaxHold.
//
// The error matches ErrNotHeld if the lock has ended, or has been found to be
// lost; it then ends at once. It matches ErrNoQuorum if too many nodes failed;
// the lock is then valid until Until, as before.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl == 0 {
		ttl = l.ttl
	}
	if l.locker.chain == nil {
		return l.extend(ctx, ttl, nil)
	}
	op := l.op(OpExtend, ttl, runExtend)
	if err := l.through(ctx, op); err != nil || op.ran {
		return err
	}
	return l.notRun(op)
}

func (l *Lock) extend(ctx context.Context, ttl time.Duration, op *Op) error {
	if err := l.checkExtension(ttl); err != nil {
		return err
	}
	if !l.locker.begin() {
		return l.notHeld("extend")
	}
	defer l.locker.operations.Done()
	if !l.Valid() {
		return l.notHeld("extend")
	}
	start := op.now()
	ballot, extended := l.hold.Extend(ctx, ttl, l.locker.config.timeoutOf(ttl))
	op.asked(start, ballot)
	if extended {
		return nil
	}
	return l.notExtended(ballot).because(ctxErrors(ctx))
}

func (l *Lock) checkExtension(ttl time.Duration) error {
	if ttl < MinTTL || ttl > MaxTTL {
		return argumentError("extend %s: ttl %v: must be 0 (as acquired) or from %v to %v", quoted(l.Keys()), ttl, MinTTL, MaxTTL)
	}
	if validity := l.locker.keeper.Validity(ttl); validity <= l.config.grace {
		return argumentError("extend %s: ttl %v: its validity, %v, must be above the grace, %v", quoted(l.Keys()), ttl, validity, l.config.grace)
	}
	return nil
}

func (l *Lock) notExtended(ballot *quorum.Ballot) *QuorumError {
	if !l.Valid() {
		return l.locker.quorumError("extend", l.Keys(), ballot, ErrNotHeld, l.ended())
	}
	return l.locker.quorumError("extend", l.Keys(), ballot, ErrNoQuorum)
}

// AutoExtend extends the lock by its ttl whenever less than threshold remains
// of its validity, until it ends; threshold 0 means WithExtendThreshold's, by
// default two thirds of the ttl. It must be below the ttl and above the grace.
// The error matches ErrNotHeld if the lock has ended.
func (l *Lock) AutoExtend(threshold time.Duration) error {
	if threshold == 0 {
		threshold = l.config.thresholdOf(l.ttl)
	}
	if threshold <= l.config.grace || threshold >= l.ttl {
		return argumentError("extend %s: threshold %v: must be 0 (the default) or above the grace, %v, and below the ttl, %v", quoted(l.Keys()), threshold, l.config.grace, l.ttl)
	}
	if !l.Valid() {
		return l.notHeld("extend")
	}
	l.hold.Auto(threshold)
	return nil
}

// StopAutoExtend lets the lock end with its validity.
func (l *Lock) StopAutoExtend() { l.hold.StopAuto() }

// Release ends the lock and deletes its keys where they are still ours. It
// returns as soon as a quorum has confirmed, and waits for nodes that do not
// answer no longer than the node timeout; of ctx only the values are used, so
// that cleaning up works under one that has ended. What failed is tried again
// in the background for as long as its ttl.
//
// Release is idempotent: it happens once, and later calls return what it
// returned. The error matches ErrNotHeld if the lock had ended before, and
// ErrNoQuorum if too many nodes failed to confirm.
func (l *Lock) Release(ctx context.Context) error {
	l.releasing.Do(func() {
		if l.locker.chain == nil {
			l.released = l.release(nil)
			return
		}
		defer l.drop() // whatever the middleware does
		l.released = errPanicked
		l.released = l.through(ctx, l.op(OpRelease, l.ttl, runRelease))
	})
	return l.released
}

func (l *Lock) release(op *Op) error {
	if !l.locker.begin() {
		return l.notHeld("release")
	}
	defer l.locker.operations.Done()
	if !l.hold.End(ErrReleased) {
		return l.notHeld("release")
	}
	began := op.now()
	poll := l.locker.panel.Open()
	for _, n := range l.locker.nodes {
		n.Release(&l.claim, poll)
	}
	verdict := poll.Wait(context.Background(), nil, l.locker.config.timeoutOf(l.ttl), l.ttl, func(i int) (time.Time, error) {
		return l.locker.nodes[i].Unsent(&l.claim)
	})
	op.tried(began, poll)
	defer poll.Close()
	if verdict == quorum.Carried {
		return nil
	}
	ballot := poll.Ballot()
	if ballot.Denied() {
		return l.locker.quorumError("release", l.Keys(), ballot, ErrNotHeld)
	}
	return l.locker.quorumError("release", l.Keys(), ballot, ErrNoQuorum)
}

// ended is why the lock ended. It must have ended, or no longer be valid.
func (l *Lock) ended() error {
	l.hold.Expire() // Valid goes by the clock; the timer may not have run yet
	<-l.Context().Done()
	return context.Cause(l.Context())
}

func (l *Lock) notHeld(op string) error {
	return fmt.Errorf("%w: %s %s: %w", ErrNotHeld, op, quoted(l.Keys()), l.ended())
}

// heldContext gives a lock's context the values of the ctx that acquired it,
// and the lock itself, but not that ctx's end.
type heldContext struct {
	values context.Context
	lock   *Lock
}

func (heldContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (heldContext) Done() <-chan struct{}       { return nil }
func (heldContext) Err() error                  { return nil }

func (c heldContext) Value(key any) any {
	if key == (lockKey{}) {
		return c.lock
	}
	return c.values.Value(key)
}
