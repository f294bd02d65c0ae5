package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// wait lets d pass, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// nodes are real servers, each behind a proxy, and the oracle to all of them.
type nodes struct {
	t       testing.TB
	servers []*redistest.Server
	proxies []*redistest.Proxy
}

func start(t testing.TB, n int, args ...string) *nodes {
	ns := &nodes{t: t, servers: redistest.StartN(t, n, args...)}
	for _, s := range ns.servers {
		ns.proxies = append(ns.proxies, redistest.NewProxy(t, s.Addr()))
	}
	return ns
}

func (ns *nodes) urls() []string { return redistest.URLs(ns.proxies) }

// open is a Locker over the nodes, closed at the end of the test.
func (ns *nodes) open(opts ...redlock.Option) *redlock.Locker {
	ns.t.Helper()
	return lockertest.Open(ns.t, ns.urls(), opts...)
}

// holders is how many nodes hold key with this value.
func (ns *nodes) holders(key, value string) int {
	n := 0
	for _, s := range ns.servers {
		if v, ok := s.Get(ns.t, key); ok && v == value {
			n++
		}
	}
	return n
}

// empty tells whether no node has any key.
func (ns *nodes) empty() bool {
	for _, s := range ns.servers {
		if len(s.Keys(ns.t)) > 0 {
			return false
		}
	}
	return true
}

func TestALockIsHeldByAllNodesAndGoneAfterRelease(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			ns := start(t, n)
			l := ns.open()
			lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
			require.NoError(t, err)
			require.Equal(t, "k", lock.Key())
			require.True(t, lock.Valid())
			eventually.True(t, "all nodes hold the token", func() bool { return ns.holders("k", lock.Token()) == n })

			_, err = l.TryAcquire(t.Context(), "k", 10*time.Second)
			require.ErrorIs(t, err, redlock.ErrNotAcquired)
			require.NotErrorIs(t, err, redlock.ErrNoQuorum)

			require.NoError(t, lock.Release(t.Context()))
			require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrReleased)
			require.False(t, lock.Valid())
			require.NoError(t, lock.Release(t.Context()), "release is idempotent")
			eventually.True(t, "no key is left", ns.empty)
		})
	}
}

func TestContendersTakeTurns(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			ns := start(t, n)
			ctx, cancel := context.WithTimeout(t.Context(), 2*eventually.Soon)
			defer cancel()
			var inside, turns atomic.Int64
			var all sync.WaitGroup
			for range 4 { // processes: each has its own connections
				l := ns.open(redlock.WithRetry(redlock.ExponentialRetry(5*ms, 50*ms)))
				for range 3 {
					all.Go(func() {
						for range 5 {
							err := redlock.Do(ctx, l, "k", 10*time.Second, func(context.Context) error {
								assert.Equal(t, int64(1), inside.Add(1), "two are inside")
								runtime.Gosched()
								inside.Add(-1)
								turns.Add(1)
								return nil
							})
							assert.NoError(t, err)
						}
					})
				}
			}
			all.Wait()
			require.Equal(t, int64(60), turns.Load())
			eventually.True(t, "no key is left", ns.empty)
		})
	}
}

func TestEachAttemptHasAFreshToken(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	seen := make(map[string]bool)
	for range 50 {
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.False(t, seen[lock.Token()])
		require.GreaterOrEqual(t, len(lock.Token()), 26, "128 bits in base 32")
		seen[lock.Token()] = true
		require.NoError(t, lock.Release(t.Context()))
	}
}

func TestValidityIsTTLLessDriftFromTheStart(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithDriftFactor(0.1))
	ns.proxies[0].Delay(0, 20*ms)
	ns.proxies[1].Delay(0, 20*ms)
	before := time.Now()
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	replied := time.Now()
	const validity = 9*time.Second - 2*ms
	require.GreaterOrEqual(t, lock.Until().Sub(before), validity)
	require.LessOrEqual(t, lock.Until().Sub(replied), validity-20*ms, "the time that the replies took is not won")
}

func TestAManualLockEndsByItself(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", 200*ms)
	require.NoError(t, err)
	<-lock.Context().Done()
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrLost)
	require.False(t, time.Now().Before(lock.Until()), "not before validity ends")
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
	require.ErrorIs(t, lock.AutoExtend(0), redlock.ErrNotHeld)
	err = lock.Release(t.Context())
	require.ErrorIs(t, err, redlock.ErrNotHeld)
	require.ErrorIs(t, err, redlock.ErrLost)
	eventually.True(t, "no key is left", ns.empty)
}

func TestExtendAndAutoExtendKeepAManualLock(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	first := lock.Until()
	require.NoError(t, lock.Extend(t.Context(), 0))
	require.True(t, lock.Until().After(first))
	require.NoError(t, lock.Extend(t.Context(), time.Minute))
	require.Greater(t, time.Until(lock.Until()), 50*time.Second)
	long := lock.Until()
	require.NoError(t, lock.Extend(t.Context(), time.Second))
	require.Equal(t, long, lock.Until(), "an extension never shortens")
	require.NoError(t, lock.Release(t.Context()))

	lock, err = l.TryAcquire(t.Context(), "k", 2*time.Second)
	require.NoError(t, err)
	first = lock.Until()
	require.NoError(t, lock.AutoExtend(1900*ms))
	eventually.True(t, "extended many times", func() bool { return lock.Until().Sub(first) > 2*time.Second })
	lock.StopAutoExtend()
	<-lock.Context().Done()
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrLost)
}

func TestALockKeepsValuesButNotTheEndOfItsContext(t *testing.T) {
	type key struct{}
	ns := start(t, 1)
	l := ns.open()
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	lock, err := l.TryAcquire(ctx, "k", 10*time.Second)
	require.NoError(t, err)
	cancel()
	require.NoError(t, lock.Context().Err())
	require.Equal(t, "value", lock.Context().Value(key{}))
	_, ok := lock.Context().Deadline()
	require.False(t, ok)
	require.NoError(t, lock.Release(t.Context()))
}

func TestOnlyTheExactTokenExtendsAndReleases(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
	longer := lock.Token() + "2" // our token is a prefix of it
	for _, s := range ns.servers {
		_, err := s.Do("SET", "k", longer, "PX", "60000")
		require.NoError(t, err)
	}
	err = lock.Extend(t.Context(), 0)
	require.ErrorIs(t, err, redlock.ErrNotHeld)
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrLost, "the loss is found, and ends the context at once")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	require.Equal(t, 3, ns.holders("k", longer))
}

func TestReleaseFindsThatTheLockWasTaken(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
	for _, s := range ns.servers[:2] {
		_, err := s.Do("SET", "k", "another")
		require.NoError(t, err)
	}
	err = lock.Release(t.Context())
	require.ErrorIs(t, err, redlock.ErrNotHeld)
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "release", failed.Op)
	require.Equal(t, err, lock.Release(t.Context()), "and says so again")
}

func TestAnyKeyIsTakenAsItIs(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for _, key := range []string{"{", "}", "{}", "{a}b", "redlock", "redlock:", " ", "\x00\r\n*1\r\n", "ключ", "a b c", `"`} {
		lock, err := l.TryAcquire(t.Context(), key, 10*time.Second)
		require.NoError(t, err, "%q", key)
		eventually.True(t, "held under its own name", func() bool { return ns.holders(key, lock.Token()) == 3 })
		require.NoError(t, lock.Release(t.Context()), "%q", key)
	}
}

func TestSeveralKeysAreAllOrNone(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	keys := []string{"c", "a", "b", "a"}
	lock, err := l.TryAcquireAll(t.Context(), keys, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, lock.Keys())
	require.Equal(t, "a", lock.Key())
	require.Equal(t, []string{"c", "a", "b", "a"}, keys, "the caller's slice is his")
	for _, key := range lock.Keys() {
		eventually.True(t, key, func() bool { return ns.holders(key, lock.Token()) == 3 })
	}
	_, err = l.TryAcquireAll(t.Context(), []string{"x", "b", "y"}, 10*time.Second)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	eventually.True(t, "nothing of the second is left", func() bool {
		return !slices.ContainsFunc(ns.servers, func(s *redistest.Server) bool { return len(s.Keys(t)) != 3 })
	})
	require.NoError(t, lock.Extend(t.Context(), time.Minute))

	// One key of several is gone: the rest is deleted nevertheless, and it is told.
	for _, s := range ns.servers {
		_, err := s.Do("DEL", "b")
		require.NoError(t, err)
	}
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	eventually.True(t, "no key is left", ns.empty)
}

func TestANestedAcquireOfTheSameKeyIsAnError(t *testing.T) {
	ns := start(t, 3)
	l, other := ns.open(), start(t, 1).open()
	err := redlock.Do(t.Context(), l, "outer", 10*time.Second, func(ctx context.Context) error {
		return redlock.Do(ctx, l, "inner", 10*time.Second, func(ctx context.Context) error {
			for _, key := range []string{"outer", "inner"} {
				_, err := l.Acquire(ctx, key, 10*time.Second)
				require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
				_, err = l.TryAcquireAll(ctx, []string{"x", key}, 10*time.Second)
				require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
				require.ErrorContains(t, err, fmt.Sprintf("%q", key))
			}
			lock, err := other.TryAcquire(ctx, "outer", 10*time.Second)
			require.NoError(t, err, "other nodes, another lock")
			return lock.Release(ctx)
		})
	})
	require.NoError(t, err)

	lock, err := l.TryAcquire(t.Context(), "outer", 10*time.Second)
	require.NoError(t, err)
	_, err = l.TryAcquire(lock.Context(), "outer", 10*time.Second)
	require.ErrorIs(t, err, redlock.ErrAlreadyHeld, "a manual lock's context knows too")
	require.NoError(t, lock.Release(t.Context()))
}

func TestCloseEndsHoldsAndWaitsAndReleases(t *testing.T) {
	ns := start(t, 3)
	l, err := redlock.Open(t.Context(), ns.urls())
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "held", 30*time.Second)
	require.NoError(t, err)

	waited, with := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := l.Acquire(context.Background(), "held", time.Second, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
		waited <- err
	}()
	entered := make(chan struct{})
	go func() {
		with <- redlock.Do(context.Background(), l, "with", 30*time.Second, func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-entered
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "closing again does nothing")
	require.Equal(t, redlock.ErrClosed, context.Cause(lock.Context()))
	require.ErrorIs(t, <-waited, redlock.ErrClosed)
	err = <-with
	require.ErrorIs(t, err, redlock.ErrClosed)
	require.ErrorIs(t, err, redlock.ErrLost)
	require.True(t, ns.empty(), "released by the time Close returns")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
	_, err = l.TryAcquire(t.Context(), "held", time.Second)
	require.ErrorIs(t, err, redlock.ErrClosed)
}

func TestClientsGivenToNewStayTheCallers(t *testing.T) {
	ns := start(t, 3)
	var clients []rueidis.Client
	for _, p := range ns.proxies {
		c, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{p.Addr()}}))
		require.NoError(t, err)
		defer c.Close()
		clients = append(clients, c)
	}
	l, err := redlock.New(clients)
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	for i, c := range clients {
		require.NoError(t, c.Do(t.Context(), c.B().Ping().Build()).Error(), "client %d", i)
	}
	require.True(t, ns.empty())
}

func TestAThousandLocksCostNoGoroutines(t *testing.T) {
	const held, ttl = 1000, 4 * time.Second
	ns := start(t, 3)
	l := ns.open()
	warm, err := l.TryAcquire(t.Context(), "warm", ttl)
	require.NoError(t, err)
	require.NoError(t, warm.Release(t.Context()))
	before := runtime.NumGoroutine()

	locks := make([]*redlock.Lock, held)
	for i := range locks {
		locks[i], err = l.TryAcquire(t.Context(), fmt.Sprint("k", i), ttl)
		require.NoError(t, err)
		require.NoError(t, locks[i].AutoExtend(0))
	}
	eventually.True(t, "the calls of the acquisitions have returned", func() bool { return runtime.NumGoroutine() <= before+10 })
	most := 0
	end := time.Now().Add(3 * ttl)
	for tick := time.NewTicker(5 * ms); time.Now().Before(end); <-tick.C {
		most = max(most, runtime.NumGoroutine())
	}
	for i, lock := range locks {
		require.True(t, lock.Valid(), "lock %d: %v", i, context.Cause(lock.Context()))
		require.Greater(t, time.Until(lock.Until()), time.Duration(0))
	}
	t.Logf("%d goroutines with none held, at most %d with %d held", before, most, held)
	require.LessOrEqual(t, most, before+20, "those that send are bounded: more of them when answers are slow")
	for _, lock := range locks {
		require.NoError(t, lock.Release(t.Context()))
	}
	eventually.True(t, "no key is left", ns.empty)
}

func TestTheWaitIsThePolicysAndTheContextsAlone(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	held, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)

	_, err = l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(ms, ms, 5)))
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "the policy stops")

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = l.Acquire(ctx, "k", time.Second, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	stop := errors.New("shutting down")
	ctx2, cancel2 := context.WithCancelCause(t.Context())
	_, err = l.Acquire(ctx2, "k", time.Minute, redlock.WithRetry(func() backoff.BackOff {
		cancel2(stop) // an attempt has failed, and the wait begins
		return &backoff.ConstantBackOff{Interval: time.Hour}
	}))
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, stop, "and why it was cancelled")

	// A ttl of 50 ms, a wait of 300: the ttl does not bound the wait.
	time.AfterFunc(300*ms, func() { _ = held.Release(context.Background()) })
	lock, err := l.Acquire(t.Context(), "k", 50*ms, redlock.WithRetry(redlock.FixedRetry(5*ms, 5*ms, -1)))
	require.NoError(t, err)
	_ = lock.Release(t.Context())

	done, cancel3 := context.WithCancel(t.Context())
	cancel3()
	_, err = l.TryAcquire(done, "unseen", time.Second)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
}

func TestErrorsNameTheNodesAndWhatTheySaid(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithNodeTimeout(2 * time.Second))
	_, err := ns.servers[1].Do("SET", "user:123", "another")
	require.NoError(t, err)
	ns.servers[2].Pause()
	_, err = l.TryAcquire(t.Context(), "user:123", time.Minute)
	ns.servers[2].Resume()
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "two of three answer: it was the refusal that decided")
	require.EqualError(t, err, fmt.Sprintf(
		`redlock: acquire "user:123": 1 of 3 nodes granted, 2 needed: %s: held by another owner; %s: no reply within 2s`,
		ns.proxies[1].Addr(), ns.proxies[2].Addr()))
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "acquire", failed.Op)
	require.Equal(t, []string{"user:123"}, failed.Keys)
	require.Equal(t, []int{3, 2, 1}, []int{failed.Total, failed.Need, failed.Got})
	require.Len(t, failed.Nodes, 2)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "no ctx of the caller's ended")
}

func TestTheLongestTimesOverflowNothing(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMaxHold(math.MaxInt64), redlock.WithDriftFactor(0))
	err := redlock.Do(t.Context(), l, "k", time.Minute, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		require.WithinDuration(t, time.Now(), lock.Until(), time.Hour)
		require.NoError(t, lock.Extend(ctx, redlock.MaxTTL))
		require.Greater(t, time.Until(lock.Until()), redlock.MaxTTL-time.Hour)
		eventually.True(t, "the key lives as long", func() bool {
			pttl, err := ns.servers[0].Do("PTTL", "k")
			return err == nil && pttl.(int64) > (redlock.MaxTTL-time.Hour).Milliseconds()
		})
		return ctx.Err()
	})
	require.NoError(t, err)
	eventually.True(t, "released", ns.empty)
}

func TestMaxHoldEndsALockHoweverOftenExtended(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMaxHold(1200 * ms))
	before := time.Now()
	err := redlock.Do(t.Context(), l, "k", 600*ms, func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorContains(t, err, "WithMaxHold")
	require.GreaterOrEqual(t, time.Since(before), 1200*ms-ms)
	eventually.True(t, "no key is left", ns.empty)
}
