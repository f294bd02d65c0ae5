package redlock

import (
	"context"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
)

// Option configures a [Locker]. It is given to [New] or [Open].
type Option interface {
	applyLocker(lockerConfig) lockerConfig
}

// LockOption configures one lock. Given to [New] or [Open], it is the default for all
// locks of the [Locker].
type LockOption interface {
	Option
	applyLock(lockConfig) lockConfig
}

// lockerConfig and lockConfig are passed by value, so that they stay off the heap.
type lockerConfig struct {
	drift       float64
	nodeTimeout time.Duration
	timeoutSet  bool // otherwise the node timeout is in proportion to the ttl
	middleware  []Middleware
	noQueue     bool          // WithoutWaitQueue
	handoff     int           // most consecutive hand-overs
	retention   time.Duration // of the counters of fences
	guard       restartGuard
	keyPrefix   string
	credentials redisnode.Credentials // nil: those of the URLs
	// noCredentials is true if WithCredentials was given no function.
	noCredentials bool
	lock          lockConfig
}

type lockConfig struct {
	retry     RetryPolicy
	threshold time.Duration // 0: in proportion to the ttl
	grace     time.Duration
	maxHold   time.Duration // 0: none
	metadata  string
	fence     bool
	manual    bool // WithoutAutoExtend
	// background is true with WithBackgroundRelease.
	background bool
}

var defaults = lockerConfig{
	drift:     0.01,
	handoff:   32,
	retention: 24 * time.Hour,
	lock:      lockConfig{retry: FixedRetry(200*time.Millisecond, 100*time.Millisecond, 3)},
}

type lockerOption func(lockerConfig) lockerConfig

func (o lockerOption) applyLocker(c lockerConfig) lockerConfig { return o(c) }

type lockOption func(lockConfig) lockConfig

func (o lockOption) applyLock(c lockConfig) lockConfig { return o(c) }
func (o lockOption) applyLocker(c lockerConfig) lockerConfig {
	c.lock = o(c.lock)
	return c
}

// WithDriftFactor sets the part of a ttl by which the clocks of nodes and clients may
// drift apart while it runs. Validity ends that much, and another 2 ms, before the ttl.
// It must be between 0 and 0.1. The default is 0.01.
func WithDriftFactor(f float64) Option {
	return lockerOption(func(c lockerConfig) lockerConfig { c.drift = f; return c })
}

// WithNodeTimeout sets how long an operation waits for a node that does not answer. A
// node that hangs delays an operation only if the rest of the nodes cannot decide it. The
// timeout must be above 0. The default is a quarter of the lock's ttl, but at least 50 ms and at
// most 1 s.
func WithNodeTimeout(d time.Duration) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.nodeTimeout, c.timeoutSet = d, true
		return c
	})
}

// WithoutWaitQueue turns the queues on the nodes off. By default, an acquire that waits
// for a lock on one key also joins a queue that each node keeps for that key. A release
// grants the lock to the first in the queues at once. Without the queues, an acquire only
// tries again after each pause of its [RetryPolicy], as it does where nodes keep none: on a
// Cluster of a version below 7, and without the permissions that SECURITY.md lists. Op.QueueErr
// then says why.
//
// Each node keeps the queue of the key k in the keys {k}:redlock:queue and {k}:redlock:waiters,
// or k:redlock.queue and k:redlock.waiters if k has a hash tag, which no lock can have. An
// acquire whose ttl is below about three round trips to the nodes cannot queue, and its error
// says so. While a process queues for a lock, the lock is never free: [Locker.TryAcquire],
// [Locker.AcquireAll] of several keys and Lockers without queues rarely get it.
func WithoutWaitQueue() Option {
	return lockerOption(func(c lockerConfig) lockerConfig { c.noQueue = true; return c })
}

// WithLocalHandoff sets how many consecutive times a released lock is handed over to another
// waiting goroutine of this process, without asking the nodes, before other processes have
// their turn. Consecutive hand-overs also end after 100 ms. If the nodes then answer that no
// other process waits, the hand-overs begin again; with [WithBackgroundRelease] the nodes are
// not asked. n must not be negative; 0 means never.
// The default is 32. Each holder has a [Lock] of its own: the previous holder's is released.
func WithLocalHandoff(n int) Option {
	return lockerOption(func(c lockerConfig) lockerConfig { c.handoff = n; return c })
}

// WithKeyPrefix puts prefix in front of every key, to keep the locks of one application apart
// from everything else on the nodes. [Lock.Key], [Lock.Keys], Op.Keys and errors
// show the whole key, as it is on the nodes. All processes that contend for a lock must use
// the same prefix. The default, the empty string, means no prefix.
//
// Nothing is added to the prefix: end it with a separator, as in "app:". On a Cluster, a
// prefix with a hash tag, such as "{app}:", puts all locks into one slot.
// [Locker.AcquireAll] can then acquire any of them together, but one server has all the load.
// With any other prefix, the hash tags of the keys themselves decide, as without a prefix.
func WithKeyPrefix(prefix string) Option {
	return lockerOption(func(c lockerConfig) lockerConfig { c.keyPrefix = prefix; return c })
}

// WithCredentials has fn asked for the user and the password of every connection that [Open]
// makes, as services need whose passwords expire within the hour. An empty user is that of
// servers without users; without a password, none is sent. URLs must have neither. An open
// connection keeps the user that it began with.
//
// addr is the host:port that was dialled. For a Sentinel group, fn is asked for the Sentinels
// too. fn must be safe for concurrent use, and return when ctx ends: after 10 s, or when the
// Locker is closed. While it runs the node does not answer, so it should keep a password that
// is still good. Its error is that of the node, and must have no secrets in it. The next dial
// asks fn again.
//
// [New] refuses the option: its clients have a setting for that, AuthCredentialsFn.
func WithCredentials(fn func(ctx context.Context, addr string) (user, password string, err error)) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.credentials, c.noCredentials = fn, fn == nil
		return c
	})
}

// WithRetry sets how [Locker.Acquire], [Locker.AcquireAll] and [With] wait for a lock that
// another process or goroutine holds. The default is
// FixedRetry(200*time.Millisecond, 100*time.Millisecond, 3), see [FixedRetry].
func WithRetry(p RetryPolicy) LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.retry = p; return c })
}

// WithExtendThreshold sets when a lock is extended automatically: whenever less than d
// remains of its validity. It must be below the ttl. The default, 0, means two thirds of
// the ttl.
func WithExtendThreshold(d time.Duration) LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.threshold = d; return c })
}

// WithoutAutoExtend keeps [With], [WithAll] and [Do] from extending the lock. fn's ctx
// then ends with the validity that the ttl gives, unless fn calls [Lock.Extend].
func WithoutAutoExtend() LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.manual = true; return c })
}

// WithGrace ends the lock, and with it fn's ctx and [Lock.Context], this long before
// validity ends. That leaves time to stop while no other process can have the lock: its keys
// stay on the nodes until validity ends or the lock is released, as [With] does when fn
// returns. d must be below the validity that the ttl gives, below [WithMaxHold] and, unless
// [WithoutAutoExtend] is given, below the threshold ([WithExtendThreshold]). The default is 0.
func WithGrace(d time.Duration) LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.grace = d; return c })
}

// WithMaxHold limits how long a lock can be held: it is not valid for longer than d from
// the start of the attempt that acquired it, however often it is extended. It must be at
// least [MinTTL]. The default, 0, means no limit.
func WithMaxHold(d time.Duration) LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.maxHold = d; return c })
}

// WithBackgroundRelease has [Lock.Release], [With], [WithAll] and [Do] return once the release is
// queued for every node, without waiting for the answers: the caller then waits for one round
// trip per lock, not for two. Use it where the nodes are far away and the caller need not know
// that the lock is free. The caller does not learn that a release failed: Release returns nil, or
// an error that matches [ErrNotHeld] if the lock had ended. A release that fails is retried, as
// without the option. A [Middleware] is told of the failure: [OpRelease] runs on a goroutine of
// the Locker. [Locker.Close] waits for these releases. A process that exits without Close may
// leave the keys until their ttl has passed.
//
// The same Locker may acquire the key again at once. If a node refuses because of the claim that
// is being released, the Locker asks that node again after the release, and waits for it no
// longer than the node timeout ([WithNodeTimeout]). Processes in the nodes' queues come first.
// The default is that Release waits for a quorum.
func WithBackgroundRelease() LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.background = true; return c })
}

// WithFence gives the lock a fencing token: see [Lock.Fence]. Each key k has a counter on
// every node, in the key {k}:redlock:fence, or k:redlock.fence if k has a hash tag, which no
// lock can have. On a Cluster, k must have no closing brace but that of a hash tag.
//
// A script acquires a lock with a fence, usually in one round trip. Such a lock is never
// handed over inside the process ([WithLocalHandoff]), as each holder needs a fence of its
// own.
func WithFence() LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.fence = true; return c })
}

// WithMetadata attaches text that identifies the holder, such as "host=web-1 pid=4711". Every
// caller that is refused the lock can read it: see [HeldError] and [QuorumError.Holder]. The
// command redlock status shows it too. It must be printable, and at most 256 bytes. The
// default is none.
//
// Never put secrets into it: it is stored on the nodes, in the value of the keys. Knowing it
// is not enough to release the lock, which takes the random part of the value.
//
// A waiter in a queue always learns the holder's metadata. So does a single attempt on
// nodes that [Open] has connected to, from Redis 7.0 on. On other nodes a single attempt
// learns it only if it runs a script: with metadata, a fence, several keys or
// [WithRestartGuard]. Set the option for the whole [Locker], to text that tells processes
// apart: inside a process, a lock is handed over ([WithLocalHandoff]) only to a waiter with
// the same metadata.
func WithMetadata(text string) LockOption {
	return lockOption(func(c lockConfig) lockConfig { c.metadata = text; return c })
}

// WithFenceRetention sets how long a node keeps the counter of a key's fences after the last
// lock on the key was acquired. It must be between [MinTTL] and [MaxTTL], and longer than the
// ttl of every lock with a fence plus the largest difference between the clocks of clients.
// All processes should use the same value. The default is 24 hours.
func WithFenceRetention(d time.Duration) Option {
	return lockerOption(func(c lockerConfig) lockerConfig { c.retention = d; return c })
}

func (c lockerConfig) check() error {
	switch {
	case !(c.drift >= 0 && c.drift <= 0.1): // false for NaN too
		return argumentError("WithDriftFactor(%v): must be between 0 and 0.1", c.drift)
	case c.handoff < 0:
		return argumentError("WithLocalHandoff(%d): must not be negative", c.handoff)
	case c.timeoutSet && c.nodeTimeout <= 0:
		return argumentError("WithNodeTimeout(%v): must be above 0", c.nodeTimeout)
	case outOfRange(c.retention):
		return argumentError("WithFenceRetention(%v): must be from %v to %v", c.retention, MinTTL, MaxTTL)
	case node.HasInfix(c.keyPrefix):
		return argumentError("WithKeyPrefix(%q): the library uses such names: must not contain \":redlock:\" or \":redlock.\"", c.keyPrefix)
	case c.noCredentials:
		return argumentError("WithCredentials(nil): must be a function")
	}
	if err := c.guard.check(); err != nil {
		return err
	}
	for i, m := range c.middleware {
		if m == nil {
			return argumentError("WithMiddleware: middleware %d is nil: must be a Middleware", i)
		}
	}
	return c.lock.check()
}

func (c lockConfig) check() error {
	switch {
	case c.retry == nil:
		return argumentError("WithRetry(nil): must be a policy, such as NoRetry()")
	case c.threshold < 0:
		return argumentError("WithExtendThreshold(%v): must not be negative", c.threshold)
	case c.grace < 0:
		return argumentError("WithGrace(%v): must not be negative", c.grace)
	case c.maxHold < 0 || c.maxHold > 0 && c.maxHold < MinTTL:
		return argumentError("WithMaxHold(%v): must be 0 (no limit) or at least %v", c.maxHold, MinTTL)
	}
	if err := node.CheckMetadata(c.metadata); err != nil {
		return argumentError("WithMetadata: %w", err)
	}
	if c.fence {
		return checkClock(time.Now())
	}
	return nil
}

// checkTimes refuses a ttl that is out of range, and options that do not fit the ttl or its
// validity.
func (c lockConfig) checkTimes(ttl, validity time.Duration) error {
	switch {
	case outOfRange(ttl):
		return argumentError("ttl %v: must be from %v to %v", ttl, MinTTL, MaxTTL)
	case c.threshold >= ttl:
		return argumentError("WithExtendThreshold(%v): must be below the ttl, %v", c.threshold, ttl)
	case c.grace >= validity:
		return argumentError("WithGrace(%v): must be below the validity, %v: the ttl, %v, less the drift", c.grace, validity, ttl)
	case c.maxHold > 0 && c.grace >= c.maxHold:
		return argumentError("WithGrace(%v): must be below WithMaxHold, %v", c.grace, c.maxHold)
	case !c.manual && c.grace >= c.thresholdOf(ttl):
		return argumentError("WithGrace(%v): must be below the threshold of extension, %v, or the lock ends before it is extended", c.grace, c.thresholdOf(ttl))
	}
	return nil
}

// checkLongest refuses a ttl that is longer than an option of the Locker allows.
func (c lockerConfig) checkLongest(ttl time.Duration, fence bool) error {
	switch {
	case fence && ttl > c.retention:
		return argumentError("ttl %v: must not be above WithFenceRetention, %v, for a lock with a fence", ttl, c.retention)
	case c.guard.set && ttl > c.guard.maxTTL:
		return argumentError("ttl %v: must not be above the longest of WithRestartGuard, %v", ttl, c.guard.maxTTL)
	}
	return nil
}

// thresholdOf returns the threshold for a lock of this ttl.
func (c lockConfig) thresholdOf(ttl time.Duration) time.Duration {
	if c.threshold > 0 {
		return c.threshold
	}
	return ttl / 3 * 2
}

// timeoutOf returns the node timeout for operations on a lock of this ttl.
func (c lockerConfig) timeoutOf(ttl time.Duration) time.Duration {
	if c.timeoutSet {
		return c.nodeTimeout
	}
	return min(max(ttl/4, minNodeTimeout), maxNodeTimeout)
}

// longestTimeout returns the node timeout for operations that concern no single lock.
func (c lockerConfig) longestTimeout() time.Duration { return c.timeoutOf(MaxTTL) }

// MinTTL and MaxTTL are the shortest and the longest accepted ttl: 10 ms and ten years.
const (
	MinTTL = 10 * time.Millisecond
	MaxTTL = 10 * 365 * 24 * time.Hour
)

func outOfRange(ttl time.Duration) bool { return ttl < MinTTL || ttl > MaxTTL }

const (
	minNodeTimeout = 50 * time.Millisecond
	maxNodeTimeout = time.Second
)
