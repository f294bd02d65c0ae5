package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func TestAReleaseGrantsTheLockToTheNextWaiter(t *testing.T) {
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

// With one form of names they had one queue, and a release granted a lock that was held.
func TestAKeyAndTheSameKeyInBracesAreTwoLocks(t *testing.T) {
	ns := start(t, 1)
	one, other := ns.open(redlock.WithFence()), ns.open(redlock.WithFence())
	keys := []string{"k", "{k}"}
	var held []*redlock.Lock
	got := make(map[string]chan *redlock.Lock)
	for _, key := range keys {
		lock, err := one.TryAcquire(t.Context(), key, time.Minute)
		require.NoError(t, err)
		granted := make(chan *redlock.Lock, 1)
		held, got[key] = append(held, lock), granted
		go func() {
			lock, err := other.Acquire(t.Context(), key, time.Minute, lockertest.Queued)
			if err != nil {
				t.Error(err)
			}
			granted <- lock
		}()
	}
	eventually.True(t, "each waits in a queue of its own", func() bool {
		for _, queue := range []string{"{k}:redlock:queue", "{k}:redlock.queue"} {
			if n, err := ns.servers[0].Do("ZCARD", queue); err != nil || n != int64(1) {
				return false
			}
		}
		return true
	})
	for i, key := range keys {
		require.NoError(t, held[i].Release(t.Context()))
		next := <-got[key]
		require.Equal(t, key, next.Key())
		require.Greater(t, next.Fence(), held[i].Fence())
		for _, lock := range held[i+1:] {
			value, _ := ns.servers[0].Get(t, lock.Key())
			require.Equal(t, lock.Token(), value, "it is still held")
		}
		require.NoError(t, next.Release(t.Context()))
	}
	require.ElementsMatch(t, []string{"{k}:redlock:fence", "{k}:redlock.fence"}, ns.servers[0].Keys(t))
}

func TestTheLockOfADeadHolderGoesToTheNextWaiter(t *testing.T) {
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

// A process without queues, like those of earlier versions, and a process with queues share locks
// safely.
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

// Another program's value has the name of the queue, or the user may not publish: waiters poll, and
// locks stay correct.
func TestWithoutAQueueWaitingIsByPauses(t *testing.T) {
	for name, spoil := range map[string]func(ns *nodes){
		"a foreign queue": func(ns *nodes) {
			for _, s := range ns.servers {
				_, err := s.Do("SET", "{k}:redlock:queue", "foreign")
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

// A grace that is longer than the window needs an extension before the lock can be used.
func TestAGrantThatCannotBeUsedGoesToTheNext(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		var lost atomic.Bool
		var nodes []node.Backend
		for _, s := range stores {
			nodes = append(nodes, without{s, node.Extend, &lost})
		}
		other := lockertest.Over(t, nodes)
		defer func() { require.NoError(t, other.Close()) }()
		one := open()
		lock, err := one.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		first, second := lockertest.WaitFor(other, 10*time.Second, redlock.WithGrace(time.Second)), lockertest.WaitFor(one, 10*time.Second)
		third := lockertest.WaitFor(open(), 10*time.Second)
		lost.Store(true)
		released := time.Now()
		// The lock is not handed over: the next waiter of this process gets a lock of its own.
		require.NoError(t, lock.Release(t.Context()))
		g := lockertest.Soon(t, second)
		require.NoError(t, g.Err)
		require.NoError(t, g.Lock.Release(t.Context()))
		g = lockertest.Soon(t, third)
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 20*ms)
		lost.Store(false)
		require.NoError(t, g.Lock.Release(t.Context()))
		g = lockertest.Soon(t, first)
		require.NoError(t, g.Err)
		require.Greater(t, time.Until(g.Lock.Until()), 9*time.Second)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A node that has lost a held key grants it to a waiter. The waiter gives it back, or the lock would
// rest on fewer nodes for as long as the wait lasts.
func TestAWaiterKeepsNoVoteFromAHolder(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		lock, err := open().TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.NoError(t, lock.AutoExtend(0))
		time.Sleep(ms) // on all nodes, not on a bare quorum, which would not survive what follows
		next := lockertest.WaitFor(open(), time.Second)
		time.Sleep(100 * ms)
		// Either of the two may set the key first. If the candidate does, it has done so
		// after a heartbeat (250 ms), and the next extension (333 ms later at most) finds
		// that it has left the key to the holder.
		for i := range 20 {
			time.Sleep(400*ms + time.Duration(i)*37*ms)
			stores[0].Wipe()
			time.Sleep(620 * ms)
			for i, s := range stores {
				owner, _ := s.Get("k")
				require.Equal(t, lock.Token(), owner, "node %d", i)
			}
		}
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		g := <-next
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 2*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A lost lock no longer counts as held in its process: the waiters of the process go on.
func TestWaitersBehindALostLockGoOn(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		next := lockertest.WaitFor(l, time.Second)
		<-lock.Context().Done()
		lost := time.Now()
		g := lockertest.Soon(t, next)
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(lost), 20*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// The shortest ttl, where the window is the ttl and a heartbeat half of it, and a
// hold that may be no longer than that.
func TestWaitingWithTheShortestTTL(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(redlock.WithLocalHandoff(0)), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan lockertest.Acquired{
			lockertest.WaitFor(other, redlock.MinTTL),
			lockertest.WaitFor(one, redlock.MinTTL, redlock.WithGrace(ms)),
			lockertest.WaitFor(other, time.Minute, redlock.WithMaxHold(redlock.MinTTL)),
			lockertest.WaitFor(one, time.Minute, redlock.WithGrace(5*time.Second), redlock.WithMaxHold(10*time.Second)),
		}
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		// Processes take turns, apart from hand-overs within a process.
		for _, i := range []int{0, 2, 1, 3} {
			g := <-waits[i]
			require.NoError(t, g.Err)
			t.Logf("%d: after %v, valid for %v", i, g.At.Sub(began), g.Lock.Until().Sub(g.At))
			if i != 3 {
				require.LessOrEqual(t, g.Lock.Until().Sub(g.At), redlock.MinTTL)
			}
			require.NoError(t, g.Lock.Release(t.Context()))
		}
		require.Less(t, time.Since(began), 50*ms)
	})
}

// AcquireAll of one key waits in the queue. AcquireAll of several keys polls.
func TestSeveralKeysAreAskedForByPauses(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(), open()
		lock, err := one.TryAcquireAll(t.Context(), []string{"k", "l"}, time.Minute)
		require.NoError(t, err)
		several := make(chan lockertest.Acquired, 1)
		go func() {
			lock, err := other.AcquireAll(t.Context(), []string{"k", "l"}, time.Minute, redlock.WithRetry(redlock.FixedRetry(100*ms, 0, -1)))
			several <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
		}()
		time.Sleep(50 * ms)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		g := <-several
		require.NoError(t, g.Err)
		require.Equal(t, 50*ms, g.At.Sub(released))
		single := make(chan lockertest.Acquired, 1)
		go func() {
			lock, err := one.AcquireAll(t.Context(), []string{"k", "k"}, time.Minute, lockertest.Queued)
			single <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
		}()
		time.Sleep(50 * ms)
		released = time.Now()
		require.NoError(t, g.Lock.Release(t.Context()))
		g = <-single
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 260*ms, "a release of several keys wakes no waiter")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A lock that a middleware refuses goes to the next waiter.
func TestALockThatAMiddlewareRefusesGoesToTheNext(t *testing.T) {
	refused := errors.New("refused")
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, third := open(), open()
		other := open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), refused)
		})))
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		first, second, last := lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(third, time.Minute)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, (<-first).Err, refused)
		g := <-last // processes take turns
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 20*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
		require.ErrorIs(t, (<-second).Err, refused)
	})
}

// A waiter whose ttl is too short for the nodes has no place in the queue, says so, and
// delays no other waiter.
func TestEachWaiterHasAWindowOfItsOwn(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(30 * ms)
		other, _ := open(ms)
		holder, err := other.TryAcquire(t.Context(), "k", 30*time.Second)
		require.NoError(t, err)
		short := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := l.Acquire(ctx, "k", 50*ms, lockertest.Queued)
			short <- err
		}()
		time.Sleep(300 * ms)
		long := lockertest.WaitFor(l, 30*time.Second)
		time.Sleep(100 * ms)
		require.NoError(t, holder.Release(t.Context()))
		released := time.Now()
		g := <-long
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 200*ms)
		err = <-short
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "not queued")
		require.ErrorContains(t, err, "use a longer ttl")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A waiter that gives up just when it is granted the lock leaves it to the next waiter of its process.
func TestAGrantThatComesTooLateForOneWaiterGoesToTheNextHere(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(20 * ms)
		other, _ := open(20 * ms)
		holder, err := other.TryAcquire(t.Context(), "k", 30*time.Second)
		require.NoError(t, err)
		leaves, cancel := context.WithCancelCause(t.Context())
		gone := make(chan error, 1)
		go func() {
			lock, err := l.Acquire(leaves, "k", 30*time.Second, lockertest.Queued)
			if err == nil {
				err = errors.Join(errors.New("acquired"), lock.Release(t.Context()))
			}
			gone <- err
		}()
		time.Sleep(100 * ms)
		next := lockertest.WaitFor(l, 30*time.Second)
		time.Sleep(100 * ms)
		go func() { _ = holder.Release(t.Context()) }()
		time.Sleep(20*ms - 1) // the pushes are about to arrive
		cancel(errors.New("enough"))
		released := time.Now()
		g := <-next
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 100*ms)
		require.ErrorContains(t, <-gone, "enough")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}
