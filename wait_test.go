package redlock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
)

// queue tells whether somebody waits for k on most of the nodes.
func (ns *nodes) queue() bool {
	n := 0
	for _, s := range ns.servers {
		if len(s.Keys(ns.t)) > 1 {
			n++
		}
	}
	return n > len(ns.servers)/2
}

func TestAReleaseGivesTheLockToWhoeverWaits(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			ns := start(t, n)
			var r recorder
			one, other := ns.open(), ns.open(redlock.WithMiddleware(r.middleware))
			for range 20 {
				lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
				require.NoError(t, err)
				got := make(chan *redlock.Lock)
				go func() {
					lock, err := other.Acquire(t.Context(), "k", time.Minute, lockertest.Queued)
					if err != nil {
						t.Error(err)
					}
					got <- lock
				}()
				eventually.True(t, "it waits", ns.queue)
				require.NoError(t, lock.Release(t.Context()))
				next := <-got
				require.NotEqual(t, lock.Token(), next.Token())
				eventually.True(t, "it is extended to its ttl at once", func() bool { return time.Until(next.Until()) > 50*time.Second })
				require.NoError(t, next.Release(t.Context()))
			}
			require.Equal(t, map[redlock.WaitKind]int{redlock.WaitGranted: 20}, r.waits())
			eventually.True(t, "nothing is left", ns.empty)
		})
	}
}

func TestTheLockOfADeadHolderGoesToWhoeverWaits(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for _, s := range ns.servers {
		_, err := s.Do("SET", "k", "dead", "PX", "400")
		require.NoError(t, err)
	}
	began := time.Now()
	lock, err := l.Acquire(t.Context(), "k", time.Minute, lockertest.Queued)
	require.NoError(t, err)
	t.Logf("after %v", time.Since(began))
	require.NoError(t, lock.Release(t.Context()))
}

func TestGoroutinesOfAProcessTakeTurns(t *testing.T) {
	ns := start(t, 3)
	var r recorder
	l := ns.open(redlock.WithMiddleware(r.middleware))
	var inside, total atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				err := redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error {
					if inside.Add(1) != 1 {
						t.Error("two at once")
					}
					total.Add(1)
					inside.Add(-1)
					return nil
				}, lockertest.Queued)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 800, total.Load())
	t.Log(r.waits())
	require.Greater(t, r.waits()[redlock.WaitHandedOver], 400)
	eventually.True(t, "nothing is left", ns.empty)
}

func TestAWaiterThatGivesUpLeavesTheQueue(t *testing.T) {
	ns := start(t, 3)
	l, other := ns.open(), ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
	defer cancel()
	_, err = other.Acquire(ctx, "k", time.Minute, lockertest.Queued)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, lock.Release(t.Context()))
	eventually.True(t, "nothing is left", ns.empty)
	lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
}

// A process that knows no queue, as those of the version before, and one that
// does share locks safely.
func TestProcessesWithAndWithoutQueuesShareLocks(t *testing.T) {
	ns := start(t, 3)
	var inside atomic.Int64
	var all sync.WaitGroup
	for i, l := range []*redlock.Locker{ns.open(), ns.open(redlock.WithoutWaitQueue())} {
		for range 3 {
			all.Go(func() {
				for range 30 {
					err := redlock.Do(t.Context(), l, "k", time.Second, func(context.Context) error {
						if inside.Add(1) != 1 {
							t.Errorf("two at once, with %d", i)
						}
						inside.Add(-1)
						return nil
					}, redlock.WithRetry(redlock.FixedRetry(5*ms, 5*ms, -1)))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	eventually.True(t, "nothing is left", ns.empty)
}

// A foreign value in the queue's place, and a user without the right to publish:
// waiting is by pauses then, and locks stay right.
func TestWithoutAQueueWaitingIsByPauses(t *testing.T) {
	for name, spoil := range map[string]func(ns *nodes){
		"a foreign queue": func(ns *nodes) {
			for _, s := range ns.servers {
				_, err := s.Do("SET", "k:waiters", "foreign")
				require.NoError(t, err)
			}
		},
		"no right to publish": func(ns *nodes) {
			for _, s := range ns.servers {
				_, err := s.Do("ACL", "SETUSER", "default", "-publish", "-subscribe")
				require.NoError(t, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := start(t, 3)
			spoil(ns)
			var r recorder
			l, other := ns.open(), ns.open(redlock.WithMiddleware(r.middleware))
			lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.NoError(t, err)
			time.AfterFunc(200*ms, func() { _ = lock.Release(t.Context()) })
			next, err := other.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
			require.NoError(t, err)
			require.NoError(t, next.Release(t.Context()))
			require.NoError(t, l.Close())
			require.NoError(t, other.Close())
			for _, s := range ns.servers {
				_, ok := s.Get(t, "k")
				require.False(t, ok)
			}
		})
	}
}
