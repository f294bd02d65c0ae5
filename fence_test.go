package redlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// confirms is a middleware that counts the acquisitions, and those that had to ask the nodes to agree
// on a fence.
type confirms struct{ acquisitions, asked, granted, handed atomic.Int64 }

func (c *confirms) middleware(next redlock.Handler) redlock.Handler {
	return func(ctx context.Context, op *redlock.Op) error {
		err := next(ctx, op)
		if op.Kind == redlock.OpAcquire && err == nil {
			c.acquisitions.Add(1)
			c.asked.Add(int64(op.Confirms))
			switch op.Wait {
			case redlock.WaitGranted:
				c.granted.Add(1)
			case redlock.WaitHandedOver:
				c.handed.Add(1)
			}
		}
		return err
	}
}

func TestAnUncontendedLockIsFencedInOneRoundTrip(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		ns := start(t, n)
		var c confirms
		l, other := ns.open(redlock.WithFence(), redlock.WithMiddleware(c.middleware)), ns.open(redlock.WithFence(), redlock.WithMiddleware(c.middleware))
		var last int64
		for i := range 1000 {
			lock, err := []*redlock.Locker{l, other}[i%2].Acquire(t.Context(), "k", time.Minute)
			require.NoError(t, err)
			require.Greater(t, lock.Fence(), last)
			require.Less(t, lock.Fence(), int64(1<<53))
			last = lock.Fence()
			require.NoError(t, lock.Release(t.Context()))
		}
		require.LessOrEqual(t, c.asked.Load(), int64(10), "of 1000")
		t.Logf("%d nodes: %d of %d acquisitions needed another round trip", n, c.asked.Load(), c.acquisitions.Load())
	}
}

func TestTheFenceIsThatOfTheLockInFn(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	fence, err := redlock.With(t.Context(), l, "k", time.Minute, func(ctx context.Context) (int64, error) {
		lock, _ := redlock.FromContext(ctx)
		before := lock.Fence()
		require.NoError(t, lock.Extend(ctx, 0))
		require.Equal(t, before, lock.Fence(), "it stays the same")
		return before, nil
	}, redlock.WithFence())
	require.NoError(t, err)
	require.Positive(t, fence)

	lock, err := l.AcquireAll(t.Context(), []string{"k", "other"}, time.Minute, redlock.WithFence())
	require.NoError(t, err)
	require.Greater(t, lock.Fence(), fence, "one for all keys, above that of each")
	all := lock.Fence()
	require.NoError(t, lock.Release(t.Context()))
	lock, err = l.Acquire(t.Context(), "other", time.Minute, redlock.WithFence())
	require.NoError(t, err)
	require.Greater(t, lock.Fence(), all)

	unfenced, err := l.Acquire(t.Context(), "third", time.Minute)
	require.NoError(t, err)
	require.Zero(t, unfenced.Fence())
	for _, s := range ns.servers {
		for _, key := range s.Keys(t) {
			require.NotContains(t, key, "third:redlock:fence")
			require.NotContains(t, key, "{third}:redlock:fence", "no counter without WithFence")
		}
	}
}

// agreed returns the number of nodes whose counter for "k" is exactly the fence.
func agreed(stores []*memnode.Backend, fence int64) (n int) {
	for _, s := range stores {
		if s.Counter("k") == fence {
			n++
		}
	}
	return n
}

func TestNodesThatDisagreeAgreeOnTheLargest(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		var c confirms
		l := open(redlock.WithFence(), redlock.WithMiddleware(c.middleware))
		for i := range 30 {
			// As if clients with clocks that are ahead had used the key.
			ahead := time.Now().Add(time.Duration(i) * time.Hour).UnixMicro()
			stores[i%3].Count("k", ahead+5)
			stores[(i+1)%3].Count("k", ahead+9)
			lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.NoError(t, err)
			require.Greater(t, lock.Fence(), ahead+5)
			require.GreaterOrEqual(t, agreed(stores, lock.Fence()), 2)
			require.NoError(t, lock.Release(t.Context()))
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 30, c.acquisitions.Load())
		require.GreaterOrEqual(t, c.asked.Load(), int64(30))
	})
}

// This run breaks uniqueness if a node with a higher counter counts as one that agrees: its acquire
// command is late, and runs when the other nodes have decided.
func TestAStragglerThatCountedFurtherMakesTheFence(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithFence())
		ahead := time.Now().Add(time.Hour).UnixMicro()
		stores[0].Count("k", ahead)
		stores[1].Count("k", ahead+1000)
		stores[1].Faults(func(op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Confirm { // it travels behind the acquisition
				return memnode.Fault{Request: 25 * ms}
			}
			return memnode.Fault{Request: 20 * ms}
		})
		stores[2].Faults(func(op memnode.Op, _ int) memnode.Fault { return memnode.Fault{LoseRequest: op == memnode.Confirm} })
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.Equal(t, ahead+1001, lock.Fence(), "two nodes have counted up to exactly that")
		require.NoError(t, lock.Release(t.Context()))
		for _, s := range stores {
			s.Faults(nil)
		}
		time.Sleep(time.Second)
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.Greater(t, lock.Fence(), ahead+1001)
	})
}

// If the nodes cannot agree before validity ends, the acquire fails.
func TestALockWithoutAnAgreedFenceIsNotAcquired(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		var lost atomic.Bool
		lost.Store(true)
		var nodes []node.Backend
		for _, s := range stores {
			nodes = append(nodes, without{s, node.Confirm, &lost})
		}
		l := lockertest.Over(t, nodes, redlock.WithFence())
		defer func() { require.NoError(t, l.Close()) }()
		stores[0].Count("k", time.Now().Add(time.Hour).UnixMicro())
		stores[1].Count("k", time.Now().Add(2*time.Hour).UnixMicro())
		_, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		var failed *redlock.QuorumError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 1, failed.Got)
		require.Len(t, failed.Nodes, 2)
	})
}

func TestFencesGrowAfterTheirCountersHaveExpired(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithFence(), redlock.WithFenceRetention(time.Minute))
		var last int64
		for range 5 {
			lock, err := l.TryAcquire(t.Context(), "k", time.Second)
			require.NoError(t, err)
			require.Greater(t, lock.Fence(), last)
			last = lock.Fence()
			require.NoError(t, lock.Release(t.Context()))
			time.Sleep(2 * time.Minute)
			for _, s := range stores {
				require.Zero(t, s.Counters(), "the retention is over")
			}
		}
	})
}

func TestEveryHolderHasAFenceOfItsOwn(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		var c confirms
		lockers := []*redlock.Locker{open(redlock.WithMiddleware(c.middleware)), open(redlock.WithMiddleware(c.middleware))}
		lock, err := lockers[0].TryAcquire(t.Context(), "k", time.Minute, redlock.WithFence())
		require.NoError(t, err)
		fences := []int64{lock.Fence()}
		var waiters []<-chan lockertest.Acquired
		for i := range 6 { // of each process three
			waiters = append(waiters, lockertest.WaitFor(lockers[i%2], time.Minute, redlock.WithFence()))
		}
		require.NoError(t, lock.Release(t.Context()))
		served := make(map[int]bool)
		for len(served) < len(waiters) {
			for i, w := range waiters {
				if served[i] {
					continue
				}
				select {
				case g := <-w:
					require.NoError(t, g.Err)
					served[i] = true
					fences = append(fences, g.Lock.Fence())
					time.Sleep(10 * ms)
					require.NoError(t, g.Lock.Release(t.Context()))
				default:
				}
			}
			time.Sleep(ms)
		}
		require.IsIncreasing(t, fences)
		require.EqualValues(t, 6, c.granted.Load(), "by the nodes")
		require.Zero(t, c.handed.Load(), "a lock that is handed over would keep its fence")
	})
}

// Its floor is that of its last join: nodes that have lost their counters give it a fence
// above those of the processes that held the lock while it waited.
func TestTheFenceOfAWaiterIsAboveThoseOfEarlierHolders(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l, other := open(redlock.WithFence()), open(redlock.WithFence())
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waiter := lockertest.WaitFor(other, time.Minute)
		time.Sleep(5 * time.Second)
		for _, s := range stores {
			s.Wipe()
		}
		between, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, between.Release(t.Context()))
		for _, s := range stores {
			s.Wipe()
		}
		g := <-waiter
		require.NoError(t, g.Err)
		require.Greater(t, g.Lock.Fence(), between.Fence())
		require.NoError(t, g.Lock.Release(t.Context()))
		require.Error(t, lock.Release(t.Context()))
	})
}

// Some callers of a process want a fence and some do not.
func TestAWaiterGetsTheFenceThatItAskedFor(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		holder, l := open(), open(redlock.WithLocalHandoff(0))
		lock, err := holder.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		// The candidate is made for the first waiter, which leaves.
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := l.Acquire(ctx, "k", time.Minute, lockertest.Queued)
			gone <- err
		}()
		synctest.Wait()
		fenced := lockertest.WaitFor(l, time.Minute, redlock.WithFence())
		plain := lockertest.WaitFor(l, time.Minute)
		leave()
		require.ErrorIs(t, <-gone, context.Canceled)
		require.NoError(t, lock.Release(t.Context()))
		g := lockertest.Soon(t, fenced)
		require.NoError(t, g.Err)
		require.Positive(t, g.Lock.Fence())
		require.NoError(t, g.Lock.Release(t.Context()))
		g = lockertest.Soon(t, plain)
		require.NoError(t, g.Err)
		require.Zero(t, g.Lock.Fence())
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

func TestFencesFitWhatTheyAreStoredIn(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithFence())
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.Equal(t, lock.Fence(), int64(float64(lock.Fence())), "a number of JavaScript")
		require.Less(t, lock.Fence(), int64(1<<53))
	})
}

func TestInvalidFencesAndGuardsAreRefused(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithFence(), redlock.WithFenceRetention(time.Minute), redlock.WithRestartGuard(time.Hour, 0))
		_, err := l.TryAcquire(t.Context(), "k", 2*time.Minute)
		require.EqualError(t, err, `redlock: acquire "k": ttl 2m0s: must not be above WithFenceRetention, 1m0s, for a lock with a fence`)
		require.NoError(t, l.TrustNodes(t.Context()))
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.EqualError(t, lock.Extend(t.Context(), 2*time.Minute), `redlock: extend "k": ttl 2m0s: must not be above WithFenceRetention, 1m0s, for a lock with a fence`)
		require.NoError(t, lock.Release(t.Context()))

		l = open(redlock.WithRestartGuard(time.Minute, 0))
		_, err = l.TryAcquire(t.Context(), "k", 2*time.Minute)
		require.EqualError(t, err, `redlock: acquire "k": ttl 2m0s: must not be above the longest of WithRestartGuard, 1m0s`)
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.ErrorContains(t, lock.Extend(t.Context(), time.Hour), "must not be above the longest of WithRestartGuard, 1m0s")
		require.NoError(t, lock.Release(t.Context()))
	})
	for _, c := range []struct {
		option redlock.Option
		text   string
	}{
		{redlock.WithFenceRetention(0), "redlock: WithFenceRetention(0s): must be from 10ms to 87600h0m0s"},
		{redlock.WithRestartGuard(0, 0), "redlock: WithRestartGuard: maxTTL 0s: must be from 10ms to 87600h0m0s"},
		{redlock.WithRestartGuard(time.Minute, -1), "redlock: WithRestartGuard: skew -1ns: must be from 0 to maxTTL, 1m0s"},
		{redlock.WithRestartGuard(time.Minute, time.Hour), "redlock: WithRestartGuard: skew 1h0m0s: must be from 0 to maxTTL, 1m0s"},
	} {
		_, err := redlock.Open(t.Context(), []string{"redis://127.0.0.1:1"}, c.option)
		require.EqualError(t, err, c.text)
	}
	_, err := redlock.Open(t.Context(), []string{"redis://127.0.0.1:1?addr=127.0.0.1:2"}, redlock.WithRestartGuard(time.Minute, 0))
	require.EqualError(t, err, "redlock: urls[0]: is a Cluster: WithRestartGuard needs servers or Sentinel groups, as its marker would be in another slot than the keys (WithFence works there)")
}

func TestAFenceOnAClusterNeedsAKeyThatItsCounterCanBeWith(t *testing.T) {
	cluster := redistest.StartCluster(t)
	l, err := redlock.Open(t.Context(), []string{cluster.URL()}, redlock.WithFence())
	require.NoError(t, err)
	defer l.Close()
	for _, key := range []string{"k", "{order:1}:a", "another"} {
		var last int64
		for range 3 {
			lock, err := l.Acquire(t.Context(), key, time.Minute)
			require.NoError(t, err)
			require.Greater(t, lock.Fence(), last)
			last = lock.Fence()
			require.NoError(t, lock.Release(t.Context()))
		}
	}
	_, err = l.Acquire(t.Context(), "a}b", time.Minute)
	require.ErrorContains(t, err, `WithFence: node `)
	require.ErrorContains(t, err, `key "a}b" and its counter, "{a}b}:redlock:fence", are in different slots of a Cluster`)
	var failed *redlock.QuorumError
	require.False(t, errors.As(err, &failed), "it is refused before anything is sent")
}

// The nodes agree before an extension sets missing keys again, which counts nothing.
func TestAnExtensionMakesNoNodeAgreeOnAFence(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		holder, l, rival := open(), open(redlock.WithFence()), open(redlock.WithFence())
		held, err := holder.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		synctest.Wait()                                                         // on all nodes
		waiter := lockertest.WaitFor(l, time.Second, redlock.WithGrace(300*ms)) // beyond half of the window: it is extended before it begins
		stores[2].Wipe()                                                        // it has no place there
		ahead := time.Now().Add(time.Hour).UnixMicro()
		for i, s := range stores {
			s.Count("k", ahead+[]int64{1, 0, 1}[i])
		}
		stores[1].Faults(func(op memnode.Op, _ int) memnode.Fault { return memnode.Fault{LoseRequest: op == memnode.Confirm} })
		stores[2].Faults(func(op memnode.Op, _ int) memnode.Fault {
			return map[memnode.Op]memnode.Fault{memnode.Join: {LoseRequest: true}, memnode.Extend: {Request: 50 * ms}, memnode.Confirm: {Request: 100 * ms}}[op]
		})
		require.NoError(t, held.Release(t.Context()))
		time.Sleep(10 * ms)
		stores[1].Delete("k") // as if its clock had jumped
		other, err := rival.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err, "by nodes 1 and 2")
		require.NoError(t, other.Release(t.Context()))
		time.Sleep(200 * ms)
		for _, s := range stores {
			s.Faults(nil)
		}
		g := <-waiter
		require.NoError(t, g.Err)
		require.NotEqual(t, other.Fence(), g.Lock.Fence())
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A client whose clock is wrong by a century is refused before anything is sent: it must not raise
// the counters for the others.
func TestAFenceNeedsAClockThatCanBeRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores, l := inMemory(t, 3)
		asked := 0
		for _, s := range stores {
			s.Faults(func(memnode.Op, int) memnode.Fault { asked++; return memnode.Fault{} })
		}
		time.Sleep(time.Until(time.Date(2113, 1, 1, 0, 0, 0, 0, time.UTC)))
		_, err := l.TryAcquire(t.Context(), "k", time.Minute, redlock.WithFence())
		require.EqualError(t, err, `redlock: acquire "k": WithFence: the clock of this machine says 2113-01-01: must be before 2112-09-17`)
		require.Zero(t, asked)
		require.NoError(t, l.Close())
	})
}
