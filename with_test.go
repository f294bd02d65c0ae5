package redlock_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

type profile struct {
	Name   string
	Visits int
}

var errWork = errors.New("work failed")

func TestWithReturnsWhatFnReturns(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	got, err := redlock.With(t.Context(), l, "k", 10*time.Second, func(ctx context.Context) (profile, error) {
		lock, ok := redlock.FromContext(ctx)
		require.True(t, ok)
		require.Equal(t, "k", lock.Key())
		require.True(t, lock.Valid())
		return profile{"Ada", 3}, nil
	})
	require.NoError(t, err)
	require.Equal(t, profile{"Ada", 3}, got)
	eventually.True(t, "released", ns.empty)

	got, err = redlock.WithAll(t.Context(), l, []string{"b", "a"}, 10*time.Second, func(ctx context.Context) (profile, error) {
		lock, _ := redlock.FromContext(ctx)
		require.Equal(t, []string{"a", "b"}, lock.Keys())
		return profile{"Bob", 1}, errWork
	})
	require.Equal(t, errWork, err, "exactly fn's error")
	require.Equal(t, profile{"Bob", 1}, got, "and its value with it")
	eventually.True(t, "released", ns.empty)

	_, ok := redlock.FromContext(t.Context())
	require.False(t, ok)
}

func TestWithDoesNotRunFnWithoutTheLock(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	held, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	err = redlock.Do(t.Context(), l, "k", 10*time.Second, func(context.Context) error {
		t.Error("fn ran")
		return nil
	}, redlock.WithRetry(redlock.NoRetry()))
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.NoError(t, held.Release(t.Context()))
}

func TestWithKeepsTheLockForLongerThanItsTTL(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		first := lock.Until()
		eventually.True(t, "extended", func() bool {
			require.NoError(t, ctx.Err())
			require.GreaterOrEqual(t, ns.holders("k", lock.Token()), 2)
			return lock.Until().Sub(first) > time.Second
		})
		return nil
	})
	require.NoError(t, err)
	eventually.True(t, "released", ns.empty)
}

func TestWithoutAutoExtendTheContextEndsWithTheTTL(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	value, err := redlock.With(t.Context(), l, "k", 200*ms, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), redlock.ErrLost)
		return 7, errWork
	}, redlock.WithoutAutoExtend())
	require.Equal(t, 7, value, "fn's value is not hidden")
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorIs(t, err, errWork)
}

func TestFnsErrorIsNotRepeatedWhenItIsTheCause(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 100*ms, func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}, redlock.WithoutAutoExtend())
	require.ErrorIs(t, err, redlock.ErrLost)
	require.NotContains(t, err.Error(), "\n")
}

func TestGraceEndsFnsContextBeforeValidity(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 10*time.Second, func(ctx context.Context) error {
		<-ctx.Done()
		lock, _ := redlock.FromContext(ctx)
		require.True(t, time.Now().Before(lock.Until()), "validity has not ended yet")
		return nil
	}, redlock.WithGrace(9800*ms), redlock.WithoutAutoExtend())
	require.ErrorIs(t, err, redlock.ErrLost)
}

func TestTheLockIsKeptUntilFnHasReturnedAfterTheCallerCancelled(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ctx, cancel := context.WithCancel(t.Context())
	err := redlock.Do(ctx, l, "k", time.Second, func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		require.Equal(t, context.Canceled, context.Cause(ctx), "the caller's end, not a loss")
		lock, _ := redlock.FromContext(ctx)
		first := lock.Until()
		eventually.True(t, "still extended", func() bool { return lock.Until().Sub(first) > time.Second })
		require.True(t, lock.Valid())
		return ctx.Err()
	})
	require.Equal(t, context.Canceled, err)
	eventually.True(t, "released, though the caller's ctx is dead", ns.empty)
}

func TestFnMayReleaseTheLockItself(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 10*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		require.NoError(t, lock.Release(ctx))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), redlock.ErrReleased)
		return nil
	})
	require.NoError(t, err)
}

func TestAPanicReleasesAndGoesOn(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	require.PanicsWithValue(t, "boom", func() {
		_ = redlock.Do(t.Context(), l, "k", 10*time.Second, func(context.Context) error { panic("boom") })
	})
	eventually.True(t, "released", ns.empty)
}

func TestGoexitReleasesAndGoesOn(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	done := make(chan bool, 1)
	go func() {
		defer func() { done <- recover() == nil }()
		_ = redlock.Do(context.Background(), l, "k", 10*time.Second, func(context.Context) error {
			runtime.Goexit()
			return nil
		})
		done <- false // not reached
	}()
	require.True(t, <-done)
	eventually.True(t, "released", ns.empty)
}

func TestAFailedReleaseHidesNothing(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	value, err := redlock.With(t.Context(), l, "k", 10*time.Second, func(context.Context) (string, error) {
		for _, s := range ns.servers {
			s.Kill()
		}
		return "done", nil
	})
	require.NoError(t, err)
	require.Equal(t, "done", value)
}

// A middleware must not do this. With returns a correct error all the same, and the race detector
// finds nothing.
func TestAMiddlewareThatDoesNotWaitForFnIsAnError(t *testing.T) {
	ns := start(t, 1)
	var running sync.WaitGroup
	started := make(chan struct{})
	impatient := errors.New("impatient")
	for _, outcome := range []error{nil, impatient} {
		l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpHold, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			running.Go(func() { _ = next(ctx, op) })
			<-started
			return outcome
		})))
		value, err := redlock.With(t.Context(), l, "k", time.Minute, func(ctx context.Context) (profile, error) {
			started <- struct{}{}
			return profile{Name: "late"}, errWork
		})
		_ = value // late, or not: but no part of one
		if outcome == nil && err != nil {
			require.EqualError(t, err, `redlock: hold "k": a middleware returned nil before next had returned: fn is still running`)
		} else {
			require.Equal(t, outcome, err)
		}
		running.Wait()

		var ended error
		value, err = redlock.With(t.Context(), l, "k", time.Minute, func(ctx context.Context) (profile, error) {
			started <- struct{}{}
			<-ctx.Done()
			ended = context.Cause(ctx)
			return profile{Name: "late"}, nil
		})
		require.Error(t, err)
		require.Empty(t, value)
		running.Wait()
		require.Equal(t, redlock.ErrReleased, ended, "the ctx of an fn that still runs")
	}
}

// The ctx ends a grace before validity does. No other process gets the lock before the
// end of validity, unless fn returns and the lock is released.
func TestNoOtherProcessHasTheLockDuringItsGrace(t *testing.T) {
	const ttl, grace = time.Second, 300 * ms
	ends := map[string]redlock.LockOption{"ttl": redlock.WithoutAutoExtend(), "max hold": redlock.WithMaxHold(2 * time.Second)}
	for name, end := range ends {
		for stops, within := range map[string]time.Duration{"at once": 0, "within the grace": grace / 2, "too late": 2 * grace} {
			t.Run(name+", stops "+stops, func(t *testing.T) {
				lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
					l, rival := open(), open()
					var waiter <-chan lockertest.Acquired
					var stopped, until time.Time
					err := redlock.Do(t.Context(), l, "k", ttl, func(ctx context.Context) error {
						lock, _ := redlock.FromContext(ctx)
						waiter = lockertest.WaitFor(rival, ttl)
						<-ctx.Done()
						until = lock.Until()
						require.Equal(t, grace, time.Until(until))
						time.Sleep(within)
						stopped = time.Now()
						return nil
					}, redlock.WithGrace(grace), end)
					require.ErrorIs(t, err, redlock.ErrLost)
					g := <-waiter
					require.NoError(t, g.Err)
					free := stopped
					if within > grace {
						free = until
					}
					require.WithinRange(t, g.At, free, free.Add(20*ms), "lost %v ago", time.Since(until))
					require.NoError(t, g.Lock.Release(t.Context()))
				})
			})
		}
	}
}

// A lock that the nodes have definitely refused ends at once, without its grace.
func TestALockThatIsAnothersHasNoGrace(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Second, redlock.WithGrace(100*ms))
		require.NoError(t, err)
		for _, s := range stores[:2] {
			s.Set("k", "another", time.Minute)
		}
		require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
		time.Sleep(ms)
		require.Zero(t, stores[2].Len(), "released")
		for _, s := range stores[:2] {
			s.Wipe()
		}
	})
}
