package redlocktest_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/redlocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// everywhere runs a test in virtual time and in real time.
func everywhere(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("virtual", func(t *testing.T) { synctest.Test(t, test) })
	t.Run("real", test)
}

// failing is a TB that records failures.
type failing struct {
	testing.TB

	failures []string
	cleanups []func()
}

func (f *failing) Helper() {}

func (f *failing) Cleanup(clean func()) { f.cleanups = append(f.cleanups, clean) }

func (f *failing) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

func (f *failing) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// run returns the failures of a test.
func (f *failing) run(test func(tb testing.TB)) []string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	for _, clean := range f.cleanups {
		clean()
	}
	return f.failures
}

// acquired acquires a lock on "k" in the background, and returns the channel that gets it.
func acquired(t *testing.T, l *redlock.Locker) <-chan *redlock.Lock {
	locks := make(chan *redlock.Lock, 1)
	go func() {
		lock, err := l.Acquire(t.Context(), "k", time.Second, redlock.WithRetry(redlock.FixedRetry(10*time.Second, 0, -1)))
		if err != nil {
			t.Error(err)
		}
		locks <- lock
	}()
	return locks
}

func TestALockIsTakenAndReleased(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.Locker().Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.True(t, nodes.Held("k"))
		require.Equal(t, lock.Token(), nodes.Owner("k"))
		require.False(t, nodes.Held("another"))
		require.NoError(t, lock.Release(t.Context()))
		require.False(t, nodes.Held("k"))
		require.Empty(t, nodes.Owner("k"))
	})
}

func TestAKeyThatIsLeftOnAMinorityIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		synctest.Wait() // on all nodes
		nodes.Down(0)
		require.NoError(t, lock.Release(t.Context()))
		require.False(t, nodes.Held("k"))
		require.Empty(t, nodes.Owner("k"))
	})
}

func TestTwoLockersExcludeEachOther(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.NewLocker().Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		_, err = nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		require.ErrorContains(t, err, ": held by another owner")
		require.NoError(t, lock.Release(t.Context()))
	})
}

func TestEachStartHasNodesOfItsOwn(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		_, err := redlocktest.New(t, 3).TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		_, err = redlocktest.New(t, 1).TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
	})
}

func TestOptionsReachTheLocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3, redlock.WithMaxHold(time.Second))
		for _, l := range []*redlock.Locker{
			nodes.Locker(),
			redlocktest.New(t, 3, redlock.WithMaxHold(time.Second)),
			nodes.NewLocker(redlock.WithMaxHold(time.Second)),
		} {
			lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.NoError(t, err)
			require.LessOrEqual(t, time.Until(lock.Until()), time.Second)
			require.NoError(t, lock.Release(t.Context()))
		}
	})
}

// A waiter is in the queues of the nodes: it need not pause for 10 s.
func TestAReleasedLockIsGrantedToAWaiter(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := acquired(t, nodes.NewLocker())
		time.Sleep(20 * ms) // until it is in the queues; without it the test is easier to pass
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		next := <-waits
		require.Less(t, time.Since(released), 5*time.Second)
		require.Equal(t, next.Token(), nodes.Owner("k"))
		require.NoError(t, next.Release(t.Context()))
	})
}

func TestTheEndOfATestClosesItsLockers(t *testing.T) {
	var lockers []*redlock.Locker
	var nodes *redlocktest.Nodes
	var lock *redlock.Lock
	t.Run("test", func(t *testing.T) {
		nodes = redlocktest.Start(t, 3)
		lockers = append(lockers, nodes.Locker(), nodes.NewLocker(), redlocktest.New(t, 3))
		var err error
		lock, err = nodes.Locker().Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
	})
	for _, l := range lockers {
		_, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrClosed)
	}
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	require.False(t, nodes.Held("k"))
}

// Close does not wait for nodes that a test has broken, and leaves no goroutine.
func TestATestMayEndWithBrokenNodes(t *testing.T) {
	for name, breakNodes := range map[string]func(*redlocktest.Nodes){
		"down":   func(nodes *redlocktest.Nodes) { nodes.Down() },
		"frozen": func(nodes *redlocktest.Nodes) { nodes.Freeze() },
		"both":   func(nodes *redlocktest.Nodes) { nodes.Freeze(); nodes.Down(1) },
		"stolen": func(nodes *redlocktest.Nodes) { nodes.Steal("k") },
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T) {
				var broken time.Time
				t.Cleanup(func() { require.Less(t, time.Since(broken), 30*time.Second, "Close waits for silent nodes") })
				nodes := redlocktest.Start(t, 3, redlock.WithNodeTimeout(time.Minute))
				lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Hour)
				require.NoError(t, err)
				breakNodes(nodes)
				ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
				defer cancel()
				require.Error(t, lock.Extend(ctx, 0))
				broken = time.Now()
			})
		})
	}
}

func TestATestFailsIfNoLockerCanBeMade(t *testing.T) {
	for message, test := range map[string]func(tb testing.TB){
		"redlocktest: redlock: no nodes: at least one is needed, three or five are usual": func(tb testing.TB) {
			redlocktest.New(tb, 0)
		},
		"redlocktest: redlock: 65 nodes: at most 64 are supported": func(tb testing.TB) {
			redlocktest.Start(tb, 65)
		},
		"redlocktest: redlock: WithGrace(-1s): must not be negative": func(tb testing.TB) {
			redlocktest.Start(tb, 3).NewLocker(redlock.WithGrace(-time.Second))
		},
	} {
		require.Equal(t, []string{message}, new(failing).run(test))
	}
}

// A middleware that panics on a goroutine of the Locker.
func TestATestFailsIfALockerDoesNotCloseWell(t *testing.T) {
	failures := new(failing).run(func(tb testing.TB) {
		locker := redlocktest.New(tb, 3, redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
			return func(ctx context.Context, op *redlock.Op) error {
				if op.Kind == redlock.OpExtend {
					panic("no")
				}
				return next(ctx, op)
			}
		}))
		lock, err := locker.TryAcquire(t.Context(), "k", 50*ms)
		if err != nil {
			tb.Errorf("%v", err)
			return
		}
		if err := lock.AutoExtend(0); err != nil {
			tb.Errorf("%v", err)
		}
		<-lock.Context().Done()
	})
	require.Len(t, failures, 1)
	require.Contains(t, failures[0], "redlocktest: ")
	require.Contains(t, failures[0], "panic")
}

func TestEverythingMayBeCalledConcurrently(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3, redlock.WithRetry(redlock.FixedRetry(ms, 0, -1)))
		ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
		defer cancel()
		var all sync.WaitGroup
		for _, do := range []func(){
			func() { _ = redlock.Do(ctx, nodes.Locker(), "k", 50*ms, func(context.Context) error { return nil }) },
			func() { nodes.Down(0); nodes.Up() },
			func() { nodes.Freeze(1); nodes.Up(1) },
			func() { nodes.Steal("k"); nodes.Expire("k") },
			func() { _, _ = nodes.Held("k"), nodes.Owner("k") },
		} {
			all.Go(func() {
				for ctx.Err() == nil {
					do()
					time.Sleep(ms)
				}
			})
		}
		all.Wait()
		nodes.Up()
		nodes.Expire("k")
		lock, err := nodes.Locker().Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.Equal(t, lock.Token(), nodes.Owner("k"))
	})
}

// The options of production work here too, including the guard's.
func TestNodesVoteUnderARestartGuard(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		guard := redlock.WithRestartGuard(time.Minute, time.Second)
		nodes := redlocktest.Start(t, 3, guard)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))

		nodes.Down(0)
		nodes.Up()
		require.NoError(t, nodes.NewLocker(guard).TrustNodes(t.Context()), "there is nothing to trust, and no harm in it")
		lock, err = nodes.NewLocker(guard, redlock.WithFence()).TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Extend(t.Context(), 0))

		_, err = nodes.Locker().TryAcquire(t.Context(), "long", 2*time.Minute)
		require.ErrorContains(t, err, "must not be above the longest of WithRestartGuard, 1m0s")
	})
}
