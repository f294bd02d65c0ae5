package redlock_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

var simPartitions = flag.Int("sim.partitions", fewer(5, 2), "histories of partitions and slow ways to simulate, of 30 s each")

// free measures how long a lock is free at most while a client waits for it that reaches a
// majority of the nodes.
type free struct {
	mu      sync.Mutex // guards what follows
	since   time.Time  // when it became free; zero while it is held
	waiting time.Time  // since when that client has waited; zero while it does not
	longest time.Duration
}

func (f *free) waits() { f.mu.Lock(); defer f.mu.Unlock(); f.waiting = time.Now() }

// taken notes that any client has the lock.
func (f *free) taken(byIt bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() && !f.waiting.IsZero() {
		from := f.since
		if f.waiting.After(from) {
			from = f.waiting
		}
		f.longest = max(f.longest, time.Since(from))
	}
	f.since = time.Time{}
	if byIt {
		f.waiting = time.Time{}
	}
}

// released notes that the lock is free from an instant on, unless it was taken before.
func (f *free) released(from time.Time, holds int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if holds == 0 {
		f.since = from
	}
}

// patience is that of a client whose ways change: only while it waits. One that is cut off
// while it holds the lock, or tries for the first time, leaves keys for the ttl, as one that
// dies does.
type patience struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // when it began to wait; zero while it does not
	bad   bool       // its ways are
}

func (p *patience) begin(ctx context.Context) {
	for p.mu.Lock(); p.bad && ctx.Err() == nil; p.mu.Lock() {
		p.mu.Unlock()
		wait(ctx, ms)
	}
	p.since = time.Now()
	p.mu.Unlock()
}

func (p *patience) end() { p.mu.Lock(); defer p.mu.Unlock(); p.since = time.Time{} }

func (p *patience) change(ctx context.Context, bad bool) {
	for p.mu.Lock(); bad && !p.bad && (p.since.IsZero() || time.Since(p.since) < 50*ms) && ctx.Err() == nil; p.mu.Lock() {
		p.mu.Unlock()
		wait(ctx, ms)
	}
	p.bad = bad
	p.mu.Unlock()
}

// partitioned is a history: some clients are cut off, or slow, now and then; one is not.
func partitioned(t *testing.T, seed uint64, lasts time.Duration) (longest time.Duration, locks int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	n := []int{3, 3, 5}[r.IntN(3)]
	stores := make([]*memnode.Backend, n)
	for i := range stores {
		stores[i] = &memnode.Backend{}
	}
	client := func() (*redlock.Locker, []*way) {
		ways, nodes := make([]*way, n), make([]node.Backend, n)
		for i, s := range stores {
			ways[i] = newWay(s, time.Duration(r.Int64N(int64(5*ms))))
			nodes[i] = ways[i]
		}
		l, err := redlock.NewOver(nodes)
		require.NoError(t, err)
		return l, ways
	}
	ttl := []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second}[r.IntN(3)]
	patient := redlock.WithRetry(redlock.FixedRetry(200*ms, 100*ms, -1))
	f := &free{since: time.Now()}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var mu sync.Mutex // guards r, holder
	holds := 0
	random := func(most time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.Int64N(int64(most)))
	}
	var all sync.WaitGroup
	work := func(l *redlock.Locker, healthy bool, p *patience) {
		for ctx.Err() == nil {
			if healthy {
				f.waits()
			}
			p.begin(ctx)
			lock, err := l.Acquire(ctx, "k", ttl, patient)
			if err != nil {
				return
			}
			mu.Lock()
			holds++
			if holds > 1 {
				t.Errorf("seed %d: two holders", seed)
			}
			locks++
			mu.Unlock()
			p.end()
			f.taken(healthy)
			select {
			case <-time.After(random(20 * ms)):
			case <-lock.Context().Done():
			}
			mu.Lock()
			holds--
			mu.Unlock()
			from, until := time.Now(), lock.Until()
			if lock.Release(ctx) != nil { // the nodes keep it
				from = until
			}
			mu.Lock()
			f.released(from, holds)
			mu.Unlock()
			wait(ctx, random(30*ms))
		}
	}
	var lockers []*redlock.Locker
	var waysOf [][]*way
	for range 2 + int(seed%2) {
		l, ways := client()
		lockers, waysOf = append(lockers, l), append(waysOf, ways)
	}
	for i, l := range lockers {
		ways, p := waysOf[i], new(patience)
		all.Go(func() { work(l, i == 0, p) })
		if i == 0 {
			continue
		}
		all.Go(func() { // its ways
			for ctx.Err() == nil {
				mu.Lock()
				how, few := r.IntN(2), 1+r.IntN((n-1)/2)
				mu.Unlock()
				bad := !p.bad // only this goroutine changes it
				p.change(ctx, bad)
				if !bad {
					how = 2
				}
				late := 600*ms + random(2400*ms)
				for i, w := range ways {
					switch {
					case how == 0 && i >= few: // it reaches a minority
						w.trip.Store(-1)
					case how == 1: // all its answers are late
						w.trip.Store(int64(late))
					default:
						w.trip.Store(int64(ms))
					}
				}
				wait(ctx, random(8*time.Second))
			}
			for _, w := range ways {
				w.trip.Store(int64(ms))
			}
		})
	}
	all.Wait()
	for _, l := range lockers {
		_ = l.Close()
	}
	time.Sleep(4 * time.Second) // pushes that are late
	return f.longest, locks
}

// A client that reaches a majority acquires a free lock within a few windows, whoever else
// waits: one that reaches a minority, or whose answers are late, gives its votes up.
func TestAClientThatReachesAMajorityAcquires(t *testing.T) {
	var longest time.Duration
	locks := 0
	for i := range *simPartitions {
		synctest.Test(t, func(t *testing.T) {
			l, n := partitioned(t, uint64(i), 30*time.Second)
			locks += n
			longest = max(longest, l)
			if l > 6*time.Second {
				t.Errorf("seed %d: the lock was free for %v", i, l)
			}
		})
	}
	t.Logf("%d histories of 30 s, %d locks: free for %v at most while a client waited that reaches a majority", *simPartitions, locks, longest)
}
