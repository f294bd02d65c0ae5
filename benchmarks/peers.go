package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	redsyncpool "github.com/go-redsync/redsync/v4/redis"
	redsyncgoredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	redsyncrueidis "github.com/go-redsync/redsync/v4/redis/rueidis"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidiscompat"
	"github.com/redis/rueidis/rueidislock"

	"github.com/redis-kit/redlock"
)

// ttl is the ttl of every lock that is released at once. It outlives any pause of the
// machine: nothing expires.
const ttl = 30 * time.Second

// locker is the interface through which each implementation is measured.
type locker interface {
	// Cycle acquires the lock on a free key, in one attempt, and releases it.
	Cycle(ctx context.Context, key string) error
	Close() error
}

// acquirer is a locker whose acquisition and release can be timed separately. The floor
// is not one.
type acquirer interface {
	locker
	Acquire(ctx context.Context, key string) (held, error)
}

// waiter is a locker whose callers can wait for a lock that is held, without a
// limit but ctx.
type waiter interface {
	locker
	Wait(ctx context.Context, key string) (held, error)
}

// held is a lock. All implementations of it are pointers, so that the
// interface costs no allocation.
type held interface {
	Release(ctx context.Context) error
}

func cycle(ctx context.Context, a acquirer, key string) error {
	lock, err := a.Acquire(ctx, key)
	if err != nil {
		return err
	}
	return lock.Release(ctx)
}

// peer is an implementation by name: the name is all that another process
// needs to open the same.
type peer struct {
	name string
	fits func(nodes int) bool // how many nodes it can use
	open func(context.Context, deployment) (locker, error)
}

const (
	theFloor = "floor"
	ours     = "redlock"
	fenced   = "redlock, with fences"
	// onCluster is redlock where rueidislock is: its only node is a Cluster.
	onCluster = "redlock on a Cluster"
	// theWaiter is the peer with which redlock is compared where callers wait: no other
	// peer is notified of a release.
	theWaiter = "rueidislock"
)

// peers are all implementations. The floor is the first: the others are
// compared with it.
var peers = []peer{
	{theFloor, anyNumber, openFloor},
	{ours, anyNumber, openRedlock},
	{fenced, anyNumber, openFenced},
	{onCluster, aCluster, openRedlockOnCluster},
	{"redsync (rueidis)", anyNumber, openRedsyncRueidis},
	{"redsync (go-redis)", anyNumber, openRedsyncGoRedis},
	{"bsm/redislock", oneNode, openRedislock},
	{theWaiter, oneNodeOrACluster, openRueidislock},
}

func anyNumber(int) bool { return true }

// bsm/redislock takes a lock on one deployment.
func oneNode(n int) bool { return n == 1 }

// With several keys a lock, rueidislock spreads them over a Cluster, and
// redistest starts those of three masters.
func oneNodeOrACluster(n int) bool { return n == 1 || n == 3 }

func aCluster(n int) bool { return n == 3 }

// ---- redlock

type redlockPeer struct{ *redlock.Locker }

func openRedlock(ctx context.Context, d deployment) (locker, error) {
	l, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	return redlockPeer{l}, nil
}

func openRedlockOnCluster(ctx context.Context, d deployment) (locker, error) {
	l, err := redlock.Open(ctx, []string{"redis://" + d.Cluster[0] + "?cluster=true"})
	if err != nil {
		return nil, err
	}
	return redlockPeer{l}, nil
}

func open(ctx context.Context, d deployment, opts ...redlock.Option) (*redlock.Locker, error) {
	var urls []string
	for _, addr := range d.Nodes {
		urls = append(urls, "redis://"+addr)
	}
	return redlock.Open(ctx, urls, opts...)
}

func (p redlockPeer) Acquire(ctx context.Context, key string) (held, error) {
	lock, err := p.TryAcquire(ctx, key, ttl)
	if err != nil {
		return nil, err
	}
	return lock, nil
}

func (p redlockPeer) Cycle(ctx context.Context, key string) error { return cycle(ctx, p, key) }

// Wait leaves everything to the queue: it asks again every 10 s only.
func (p redlockPeer) Wait(ctx context.Context, key string) (held, error) {
	lock, err := p.Locker.Acquire(ctx, key, ttl, redlock.WithRetry(onlyTheQueue))
	if err != nil {
		return nil, err
	}
	return lock, nil
}

var onlyTheQueue = redlock.FixedRetry(10*time.Second, 0, -1)

// fencedPeer is redlock with fencing tokens. Only its cycles are measured, and no waits.
type fencedPeer struct{ locks redlockPeer }

func openFenced(ctx context.Context, d deployment) (locker, error) {
	l, err := open(ctx, d, redlock.WithFence())
	if err != nil {
		return nil, err
	}
	return fencedPeer{redlockPeer{l}}, nil
}

func (p fencedPeer) Cycle(ctx context.Context, key string) error { return p.locks.Cycle(ctx, key) }

func (p fencedPeer) Close() error { return p.locks.Close() }

// ---- redsync

type redsyncPeer struct {
	*redsync.Redsync
	options []redsync.Option
	close   func() error
}

// redsyncLock is a redsync.Mutex with an error in place of a bool.
type redsyncLock redsync.Mutex

// newRedsync has one attempt, and FailFast: redsync then goes on as soon as a
// quorum has decided, as redlock does. Its other defaults suit: a drift factor
// of 0.01, and a twentieth of the expiry as the timeout.
func newRedsync(pools []redsyncpool.Pool, closing func() error) locker {
	return redsyncPeer{redsync.New(pools...), []redsync.Option{
		redsync.WithExpiry(ttl), redsync.WithTries(1), redsync.WithFailFast(true),
	}, closing}
}

func openRedsyncRueidis(_ context.Context, d deployment) (locker, error) {
	var clients floor // only to be closed
	var pools []redsyncpool.Pool
	for _, addr := range d.Nodes {
		client, err := tuned(addr)
		if err != nil {
			return nil, errors.Join(err, clients.Close())
		}
		clients = append(clients, client)
		pools = append(pools, redsyncrueidis.NewPool(rueidiscompat.NewAdapter(client)))
	}
	return newRedsync(pools, clients.Close), nil
}

func openRedsyncGoRedis(_ context.Context, d deployment) (locker, error) {
	var clients []*redis.Client
	var pools []redsyncpool.Pool
	for _, addr := range d.Nodes {
		client := goRedis(addr, d.RTT)
		clients = append(clients, client)
		pools = append(pools, redsyncgoredis.NewPool(client))
	}
	return newRedsync(pools, func() error {
		var errs []error
		for _, client := range clients {
			errs = append(errs, client.Close())
		}
		return errors.Join(errs...)
	}), nil
}

func (p redsyncPeer) Acquire(ctx context.Context, key string) (held, error) {
	mutex := p.NewMutex(key, p.options...)
	if err := mutex.TryLockContext(ctx); err != nil {
		return nil, err
	}
	return (*redsyncLock)(mutex), nil
}

// Wait polls, with redsync's default delays, 50 to 250 ms. It has no FailFast: a release
// that overtakes its own SET would leave a key behind, and two such keys on three nodes
// would block the lock for the ttl.
func (p redsyncPeer) Wait(ctx context.Context, key string) (held, error) {
	mutex := p.NewMutex(key, redsync.WithExpiry(ttl), redsync.WithTries(math.MaxInt))
	if err := mutex.LockContext(ctx); err != nil {
		return nil, err
	}
	return (*redsyncLock)(mutex), nil
}

func (l *redsyncLock) Release(ctx context.Context) error {
	ok, err := (*redsync.Mutex)(l).UnlockContext(ctx)
	if err == nil && !ok {
		err = errors.New("not unlocked")
	}
	return err
}

func (p redsyncPeer) Cycle(ctx context.Context, key string) error { return cycle(ctx, p, key) }

func (p redsyncPeer) Close() error { return p.close() }

// ---- bsm/redislock

type redislockPeer struct {
	*redislock.Client
	client *redis.Client
}

func openRedislock(_ context.Context, d deployment) (locker, error) {
	client := goRedis(d.Nodes[0], d.RTT)
	return redislockPeer{redislock.New(client), client}, nil
}

// Acquire has the default options: one attempt.
func (p redislockPeer) Acquire(ctx context.Context, key string) (held, error) {
	lock, err := p.Obtain(ctx, key, ttl, nil)
	if err != nil {
		return nil, err
	}
	return lock, nil
}

func (p redislockPeer) Cycle(ctx context.Context, key string) error { return cycle(ctx, p, key) }

func (p redislockPeer) Close() error { return p.client.Close() }

// ---- rueidislock

type rueidislockPeer struct{ rueidislock.Locker }

// rueidislockLock releases the lock, and waits for it.
type rueidislockLock context.CancelFunc

// openRueidislock follows its documentation: KeyMajority 1 for one server. For
// several it is one Cluster, whose masters own the 2*KeyMajority-1 keys of a
// lock; where two of the keys have the same master, that one has two votes.
func openRueidislock(_ context.Context, d deployment) (locker, error) {
	option := rueidislock.LockerOption{
		KeyValidity:    ttl,
		KeyMajority:    int32(len(d.Nodes)/2 + 1),
		NoLoopTracking: true, // recommended from Redis 7.0.5 on
		// The default, 20 ms, is short enough to pass by a hung server, and
		// too short for a busy machine or a slow network.
		TryNextAfter: time.Second,
		ClientOption: rueidis.ClientOption{InitAddress: d.Nodes, ForceSingleClient: true},
	}
	if d.Hangs {
		option.TryNextAfter = 0 // the default
	}
	if len(d.Nodes) > 1 {
		option.ClientOption = rueidis.ClientOption{InitAddress: d.Cluster}
		option.ClientOption.DialCtxFn = func(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", cmp.Or(d.Via[addr], addr))
		}
	}
	l, err := rueidislock.NewLocker(option)
	if err != nil {
		return nil, err
	}
	return rueidislockPeer{l}, nil
}

func (p rueidislockPeer) Acquire(ctx context.Context, key string) (held, error) {
	_, cancel, err := p.TryWithContext(ctx, key)
	if err != nil {
		return nil, err
	}
	return rueidislockLock(cancel), nil
}

func (p rueidislockPeer) Wait(ctx context.Context, key string) (held, error) {
	_, cancel, err := p.WithContext(ctx, key)
	if err != nil {
		return nil, err
	}
	return rueidislockLock(cancel), nil
}

func (l rueidislockLock) Release(context.Context) error {
	l()
	return nil
}

func (p rueidislockPeer) Cycle(ctx context.Context, key string) error { return cycle(ctx, p, key) }

func (p rueidislockPeer) Close() error {
	p.Locker.Close()
	return nil
}

// ---- the peers' clients

// tuned is the client that redlock.Open makes. The floor has it, and so has
// redsync: with many callers it is faster so than with rueidis' defaults, and
// with one no slower.
func tuned(addr string) (rueidis.Client, error) {
	return rueidis.NewClient(redlock.Tune(rueidis.ClientOption{
		InitAddress:       []string{addr},
		ForceSingleClient: true,
	}))
}

// goRedis lets every caller have a connection where the network is slow. On
// loopback the default, ten for each CPU, is faster. The automatic pipelining
// of go-redis is experimental, and not used.
func goRedis(addr string, rtt time.Duration) *redis.Client {
	options := &redis.Options{Addr: addr, MaxRetries: -1}
	if rtt > 0 {
		options.PoolSize = callers
	}
	return redis.NewClient(options)
}
