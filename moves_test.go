package redlock_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// passing is a lock that processes take in turn, each as often as it gets it.
type passing struct {
	turns   atomic.Int64
	longest atomic.Int64 // wait, in ns
	inside  atomic.Int64
	stop    context.CancelFunc
	workers sync.WaitGroup
}

// rarely is for waits that the queue serves: an attempt that no server takes is repeated after it.
var rarely = redlock.WithRetry(redlock.FixedRetry(time.Second, 0, -1))

// pass has processes take a key in turn until the test stops them.
func pass(t *testing.T, urls []string, key string, opts ...redlock.LockOption) *passing {
	t.Helper()
	p := new(passing)
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	lockers := []*redlock.Locker{lockertest.Open(t, urls), lockertest.Open(t, urls), lockertest.Open(t, urls)}
	t.Cleanup(p.end) // before they are closed
	for _, l := range lockers {
		p.workers.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				lock, err := l.Acquire(ctx, key, 10*time.Second, append([]redlock.LockOption{rarely}, opts...)...)
				if ctx.Err() != nil {
					return
				}
				if !assert.NoError(t, err) {
					return
				}
				for waited := int64(time.Since(began)); ; {
					if longest := p.longest.Load(); waited <= longest || p.longest.CompareAndSwap(longest, waited) {
						break
					}
				}
				assert.Equal(t, int64(1), p.inside.Add(1), "two are inside")
				p.turns.Add(1)
				time.Sleep(ms)
				p.inside.Add(-1)
				assert.NoError(t, lock.Release(context.WithoutCancel(ctx)))
			}
		})
	}
	return p
}

// goesOn waits until the lock has been passed on so often.
func (p *passing) goesOn(t *testing.T, times int64) {
	t.Helper()
	before := p.turns.Load()
	eventually.True(t, "the lock is passed on", func() bool { return p.turns.Load() >= before+times })
}

// A wait outlasts the move of its slot: the waiter joins the queue again where the slot is. During
// the move locks without a fence are passed on by attempts, which need the lock's key alone.
func TestWaitersFollowTheirSlot(t *testing.T) {
	settle(t)
	c := redistest.StartCluster(t)
	fenced := pass(t, []string{c.URL()}, "{order}:fenced", redlock.WithFence())
	plain := pass(t, []string{c.URL()}, "{order}:plain", untilFree)
	for i := range 6 {
		fenced.goesOn(t, 20)
		plain.goesOn(t, 20)
		fenced.longest.Store(0)
		plain.longest.Store(0)
		from, to := c.Owner("{order}"), c.Servers()[i%3]
		if from == to {
			continue
		}
		c.BeginMove("{order}", to)
		plain.goesOn(t, 5)
		c.EndMove("{order}", to)
		began := time.Now()
		fenced.goesOn(t, 20)
		plain.goesOn(t, 20)
		t.Logf("20 turns within %v of the move; longest wait, with the move: fenced %v, plain %v",
			time.Since(began), time.Duration(fenced.longest.Load()), time.Duration(plain.longest.Load()))
	}
}

// A wait outlasts a failover of its server, with and without the loss of writes.
func TestWaitersFollowAFailover(t *testing.T) {
	settle(t)
	c, servers := redistest.StartClusterWithReplicas(t), plainURLs(t)
	alone := pass(t, []string{c.URL()}, "{order}")
	among := pass(t, append(servers, c.URL()), "{order}:among")
	goOn := func(passings ...*passing) {
		for _, p := range passings {
			p.goesOn(t, 20)
			t.Logf("longest wait %v", time.Duration(p.longest.Swap(0)))
		}
	}
	goOn(alone, among)
	c.Failover(c.Owner("{order}"))
	t.Log("failed over")
	goOn(alone, among)
	// What has not been replicated is lost now: alone, a Cluster may grant a lock twice then.
	alone.end()
	holder, waiter := lockertest.Open(t, []string{c.URL()}), lockertest.Open(t, []string{c.URL()})
	held, err := holder.Acquire(t.Context(), "{order}:held", time.Minute, untilFree)
	require.NoError(t, err)
	eventually.True(t, "a new client finds the slot", func() bool { // after a failover that takes a moment
		_, err = waiter.TryAcquire(t.Context(), "{order}:held", time.Minute)
		return errors.Is(err, redlock.ErrNotAcquired)
	})
	got := make(chan error, 1)
	go func() {
		got <- redlock.Do(t.Context(), waiter, "{order}:held", time.Minute, func(context.Context) error { return nil }, lockertest.Queued)
	}()
	eventually.True(t, "it waits", queued(t, c, "{order}:held", 1))
	old := c.Owner("{order}")
	eventually.True(t, "the replica has the lock", func() bool { return slices.Contains(c.Replica(old).Keys(t), "{order}:held") })
	c.KillMaster(old)
	t.Log("killed")
	eventually.True(t, "the lock is held where the slot is now", func() bool { return held.Extend(t.Context(), 0) == nil })
	require.NoError(t, held.Release(t.Context()))
	released := time.Now()
	require.NoError(t, <-got)
	t.Logf("a wait that outlasted the death of the master ended %v after the release", time.Since(released))
	goOn(among, pass(t, []string{c.URL()}, "{order}"))
}

// end has the processes stop.
func (p *passing) end() {
	p.stop()
	p.workers.Wait()
}
