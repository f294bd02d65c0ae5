package redlock_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/redistest"
)

// far puts a round trip of d between the nodes and whoever uses their proxies.
func (ns *nodes) far(d time.Duration) {
	for _, p := range ns.proxies {
		p.Delay(d/2, d/2)
	}
}

// To be busy is not to be sick: what waits for its turn is not unanswered.
func TestABurstIsNotAFailure(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ns.far(50 * ms)
	burst := 10_000
	if redlock.RaceDetector { // what is answered within the node timeout
		burst = 2000
	}
	var granted atomic.Int64
	var failure atomic.Value
	var all sync.WaitGroup
	began := time.Now()
	for i := range burst {
		all.Go(func() {
			if _, err := l.TryAcquire(t.Context(), fmt.Sprint("k", i), time.Minute); err != nil {
				failure.Store(err)
			} else {
				granted.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d of %d granted in %v", granted.Load(), burst, time.Since(began).Round(ms))
	require.EqualValues(t, burst, granted.Load(), "%v", failure.Load())
}

// Other masters of a Cluster are other servers: one that hangs, and the traffic
// for it, touches nothing that they hold.
func TestOneSickServerOfAClusterTouchesNoLockOnTheOthers(t *testing.T) {
	cluster := redistest.StartCluster(t)
	l, err := redlock.Open(t.Context(), []string{cluster.URL()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	sick, healthy := cluster.Servers()[0], cluster.Servers()[1:]
	key := make(map[*redistest.Server]func(name string) string)
	for _, s := range cluster.Servers() {
		tag := cluster.KeyOf(s, "tag")
		key[s] = func(name string) string { return "{" + tag + "}" + name }
	}
	held := make([]*redlock.Lock, 10)
	for i := range held {
		held[i], err = l.TryAcquire(t.Context(), key[healthy[i%2]](fmt.Sprint("held", i)), 2*time.Second)
		require.NoError(t, err)
		require.NoError(t, held[i].AutoExtend(0))
	}
	sick.Pause()
	defer sick.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var traffic sync.WaitGroup
	for i := range 1000 { // as many as would fill any bound that the servers shared
		traffic.Go(func() {
			_, _ = l.Acquire(ctx, key[sick](fmt.Sprint("sick", i)), time.Minute, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
		})
	}
	var granted, failed atomic.Int64
	for i := range 8 {
		traffic.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				lock, err := l.TryAcquire(ctx, key[healthy[i%2]](fmt.Sprint(i, ".", n)), time.Minute)
				switch {
				case err == nil:
					granted.Add(1)
					_ = lock.Release(ctx)
				case ctx.Err() == nil:
					failed.Add(1)
				}
			}
		})
	}
	traffic.Wait()
	lost := 0
	for _, lock := range held {
		if !lock.Valid() {
			lost++
			t.Log(context.Cause(lock.Context()))
		}
	}
	t.Logf("on the healthy masters %d acquired, %d failed, %d of %d held locks lost", granted.Load(), failed.Load(), lost, len(held))
	assert.Zero(t, failed.Load())
	assert.Zero(t, lost)
	assert.NotZero(t, granted.Load())
}

func TestAnOutageShorterThanValidityLosesNothing(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ctx, cancel := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer cancel()
	var held []*redlock.Lock
	for i := range 12 {
		lock, err := l.TryAcquire(t.Context(), fmt.Sprint("held", i), time.Second)
		require.NoError(t, err)
		require.NoError(t, lock.AutoExtend(0))
		held = append(held, lock)
	}
	for i := range 4 {
		traffic.Go(func() {
			for ctx.Err() == nil {
				lock, err := l.TryAcquire(ctx, fmt.Sprint("other", i), time.Second)
				if err == nil {
					_ = lock.Release(ctx)
				}
				wait(ctx, ms)
			}
		})
	}
	for _, p := range ns.proxies {
		p.Refuse(true)
		p.Cut()
	}
	wait(ctx, 420*ms)
	for _, p := range ns.proxies {
		p.Refuse(false)
	}
	wait(ctx, 2*time.Second)
	for _, lock := range held {
		assert.True(t, lock.Valid(), "%v", context.Cause(lock.Context()))
	}
}

func TestManyHeldLocksOverFarNodes(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ns.far(50 * ms)
	locks, ttl := 5000, 1500*ms
	if redlock.RaceDetector { // the locks that a machine can keep
		locks = 1000
	}
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
	wait(t.Context(), 3*ttl)
	lost := 0
	for _, lock := range held {
		if lock == nil || !lock.Valid() {
			lost++
		}
	}
	t.Logf("%d of %d lost", lost, locks)
	require.Zero(t, lost)
}
