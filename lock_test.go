package redlock_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

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

func TestAManualLockEndsWithItsValidity(t *testing.T) {
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

// An older extension may fail after a later one has extended the lock as far as WithMaxHold allows.
func TestALockThatWasHeldForLongEnoughSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores, l := inMemory(t, 3)
		defer l.Close()
		lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second, redlock.WithMaxHold(15*time.Second))
		require.NoError(t, err)
		time.Sleep(time.Second)
		for i, delay := range []time.Duration{0, 7 * time.Second} {
			var extensions atomic.Int64
			stores[1+i].Faults(func(op memnode.Op, _ int) memnode.Fault {
				if op != memnode.Extend || extensions.Add(1) > 1 {
					return memnode.Fault{}
				}
				return memnode.Fault{Request: delay, LoseReply: true}
			})
		}
		require.NoError(t, lock.AutoExtend(8*time.Second))
		<-lock.Context().Done()
		require.ErrorContains(t, context.Cause(lock.Context()), "WithMaxHold reached")
	})
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

// A lock that can be held for a second needs no keys that live for an hour.
func TestKeysLiveNoLongerThanMaxHoldNeeds(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	const most = 10 * time.Second
	lock, err := l.TryAcquire(t.Context(), "k", time.Hour, redlock.WithMaxHold(most))
	require.NoError(t, err)
	check := func() {
		t.Helper()
		require.LessOrEqual(t, time.Until(lock.Until()), most)
		for _, s := range ns.servers {
			left, err := s.Do("PTTL", "k")
			require.NoError(t, err)
			pttl := time.Duration(left.(int64)) * ms
			require.Greater(t, pttl, time.Until(lock.Until()), "validity never outlives the keys")
			require.Less(t, pttl, most+most/50)
		}
	}
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
	check()
	require.NoError(t, lock.Extend(t.Context(), 0))
	check()
	require.NoError(t, lock.Release(t.Context()))
}

func TestALostReplyOfAReleaseLeavesNoKey(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for range 5 {
		lock, err := l.Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		for _, p := range ns.proxies {
			p.Cut()
		}
		_ = lock.Release(t.Context()) // the first write on a dead connection fails
		eventually.True(t, "no key is left", ns.empty)
	}
}
