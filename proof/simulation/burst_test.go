package simulation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// far runs a test of a Locker over healthy nodes in memory, 50 ms away. Time is virtual,
// since the test is about delays that the library adds, not about those of a loaded
// machine.
func far(t *testing.T, test func(t *testing.T, l *redlock.Locker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stores := lockertest.Stores(3)
		l := lockertest.Over(t, stores)
		for _, s := range stores {
			s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 25 * ms, Reply: 25 * ms} })
		}
		test(t, l)
		require.NoError(t, l.Close())
		require.Zero(t, left(stores))
	})
}

// A busy node is not a sick one: a command that waits for its turn does not count as unanswered.
func TestABurstIsNotAFailure(t *testing.T) {
	far(t, func(t *testing.T, l *redlock.Locker) {
		const burst = 10_000
		var granted atomic.Int64
		var all sync.WaitGroup
		began := time.Now()
		for i := range burst {
			all.Go(func() {
				_, err := l.TryAcquire(t.Context(), fmt.Sprint("k", i), time.Minute)
				if assert.NoError(t, err) {
					granted.Add(1)
				}
			})
		}
		all.Wait()
		t.Logf("%d of %d granted in %v", granted.Load(), burst, time.Since(began))
		require.EqualValues(t, burst, granted.Load())
		require.LessOrEqual(t, time.Since(began), 200*ms, "several pipelines are under way")
	})
}

// busy returns nodes in memory, 50 ms away, that take 40 µs for each command, one after
// the other, and a Locker over them.
func busy(t *testing.T, opts ...redlock.Option) ([]*memnode.Backend, *redlock.Locker) {
	stores := lockertest.Stores(3)
	l := lockertest.Over(t, stores, opts...)
	for _, s := range stores {
		var mu sync.Mutex // guards free
		var free time.Time
		s.Faults(func(_ memnode.Op, commands int) memnode.Fault {
			mu.Lock()
			defer mu.Unlock()
			if arrives := time.Now().Add(25 * ms); free.Before(arrives) {
				free = arrives
			}
			free = free.Add(time.Duration(commands) * 40 * time.Microsecond)
			return memnode.Fault{Request: time.Until(free), Reply: 25 * ms}
		})
	}
	return stores, l
}

// Nor is it a failure when all commands have been sent, and the nodes take longer than
// the node timeout to run them: commands whose turn has not come do not count as
// unanswered.
func TestABurstThatKeepsTheNodesBusyIsNotAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst, ttl = 10_000, 2 * time.Second
		stores, l := busy(t, redlock.WithNodeTimeout(100*ms))
		locks := make([]*redlock.Lock, burst)
		for _, step := range []struct {
			name string
			do   func(i int) error
		}{
			{"acquire", func(i int) (err error) {
				locks[i], err = l.TryAcquire(t.Context(), fmt.Sprint("k", i), ttl)
				return err
			}},
			{"extend", func(i int) error { return locks[i].Extend(t.Context(), 0) }},
			{"release", func(i int) error { return locks[i].Release(t.Context()) }},
		} {
			began := time.Now()
			var failed atomic.Int64
			var all sync.WaitGroup
			for i := range burst {
				all.Go(func() {
					if err := step.do(i); err != nil && failed.Add(1) == 1 {
						t.Log(err)
					}
				})
			}
			all.Wait()
			took := time.Since(began)
			t.Logf("%s: %d of %d failed, after %v", step.name, failed.Load(), burst, took)
			require.Zero(t, failed.Load(), step.name)
			require.Greater(t, took, 400*ms, "the nodes are busy for far longer than the node timeout")
		}
		require.NoError(t, l.Close())
		require.Zero(t, left(stores))
	})
}

// A node that hangs is given the node timeout and no more, however busy it was before.
func TestANodeThatHangsInABurstIsWaitedForNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst, ttl, timeout = 10_000, time.Minute, 100 * ms
		stores, l := busy(t, redlock.WithNodeTimeout(timeout))
		locks := make([]*redlock.Lock, burst)
		acquire := func(i int) {
			var err error
			locks[i], err = l.TryAcquire(t.Context(), fmt.Sprint("k", i), ttl)
			assert.NoError(t, err)
		}
		var all sync.WaitGroup
		for i := range burst {
			all.Go(func() { acquire(i) })
		}
		all.Wait()
		began := time.Now()
		var failed atomic.Int64
		for _, lock := range locks[1:] {
			all.Go(func() {
				if lock.Release(t.Context()) != nil {
					failed.Add(1)
				}
			})
		}
		const hung = 200 * ms
		time.Sleep(hung)
		for _, s := range stores {
			s.Pause()
		}
		all.Go(func() {
			began := time.Now()
			assert.ErrorIs(t, locks[0].Release(t.Context()), redlock.ErrNoQuorum)
			assert.LessOrEqual(t, time.Since(began), 25*ms+timeout, "whatever was answered last")
		})
		all.Wait()
		require.LessOrEqual(t, time.Since(began), hung+25*ms+timeout)
		require.Greater(t, failed.Load(), int64(burst/4))
		for _, s := range stores {
			s.Resume()
		}
		require.NoError(t, l.Close())
		require.Zero(t, left(stores))
	})
}

func TestManyHeldLocksOverFarNodes(t *testing.T) {
	far(t, func(t *testing.T, l *redlock.Locker) {
		const locks, ttl = 5000, 1500 * ms
		held := make([]*redlock.Lock, locks)
		var all sync.WaitGroup
		for i := range locks {
			all.Go(func() {
				lock, err := l.Acquire(t.Context(), fmt.Sprint("k", i), ttl)
				if assert.NoError(t, err) {
					held[i] = lock
					assert.NoError(t, lock.AutoExtend(0))
				}
			})
		}
		all.Wait()
		time.Sleep(4 * ttl)
		lost := 0
		for _, lock := range held {
			if lock == nil || !lock.Valid() {
				lost++
			}
		}
		require.Zero(t, lost, "of %d", locks)
	})
}

// left returns the number of keys on all nodes.
func left(stores []*memnode.Backend) (keys int) {
	for _, s := range stores {
		keys += s.Len()
	}
	return keys
}
