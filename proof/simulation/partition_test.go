package simulation

import (
	"context"
	"flag"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

var simPartitions = flag.Int("sim.partitions", fewer(5, 2), "histories of partitions and slow ways to simulate, of 30 s each")

// free measures the longest time for which a lock is free while a client that reaches a majority of
// the nodes waits for it.
type free struct {
	mu      sync.Mutex // guards what follows
	since   time.Time  // when the lock became free; zero while it is held
	waiting time.Time  // when that client began to wait; zero while it does not wait
	longest time.Duration
}

func (f *free) waits() { f.mu.Lock(); defer f.mu.Unlock(); f.waiting = time.Now() }

// taken records that a client has the lock. byIt reports that it is the measured client.
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

// released records that the lock is free from a time on, unless another client has taken it.
func (f *free) released(from time.Time, holds int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if holds == 0 {
		f.since = from
	}
}

// patience lets the ways of a client turn bad only while it waits. A client that is cut off while it
// holds the lock, or tries for the first time, leaves keys for the ttl, like one that dies.
type patience struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // when it began to wait; zero while it does not wait
	bad   bool       // its ways are bad
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

// partitioned runs one history. All clients but one are cut off or slow at times.
func partitioned(t *testing.T, seed uint64, lasts time.Duration) (longest time.Duration, locks int) {
	t.Helper()
	d := newDice(seed, 3)
	n := []int{3, 3, 5}[d.below(3)]
	stores := lockertest.Stores(n)
	ttl := []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second}[d.below(3)]
	f := &free{since: time.Now()}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var mu sync.Mutex // guards holds and locks
	holds := 0
	var all sync.WaitGroup
	work := func(l *redlock.Locker, healthy bool, p *patience) {
		for ctx.Err() == nil {
			if healthy {
				f.waits()
			}
			p.begin(ctx)
			lock, err := l.Acquire(ctx, "k", ttl, lockertest.Patient)
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
			case <-time.After(d.within(20 * ms)):
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
			wait(ctx, d.within(30*ms))
		}
	}
	var lockers []*redlock.Locker
	var waysOf [][]*lockertest.Way
	for range 2 + int(seed%2) {
		ways := lockertest.Ways(stores, func() time.Duration { return d.within(5 * ms) })
		lockers, waysOf = append(lockers, lockertest.Over(t, ways)), append(waysOf, ways)
	}
	for i, l := range lockers {
		ways, p := waysOf[i], new(patience)
		all.Go(func() { work(l, i == 0, p) })
		if i == 0 {
			continue
		}
		all.Go(func() { // its ways
			for ctx.Err() == nil {
				how, few := d.below(2), 1+d.below((n-1)/2)
				bad := !p.bad // only this goroutine changes it
				p.change(ctx, bad)
				if !bad {
					how = 2
				}
				late := 600*ms + d.within(2400*ms)
				for i, w := range ways {
					switch {
					case how == 0 && i >= few: // it reaches a minority
						w.Cut()
					case how == 1: // all its answers are late
						w.Set(late)
					default:
						w.Set(ms)
					}
				}
				wait(ctx, d.within(8*time.Second))
			}
			setAll(ways, ms)
		})
	}
	all.Wait()
	for _, l := range lockers {
		_ = l.Close()
	}
	time.Sleep(4 * time.Second) // pushes that are late
	return f.longest, locks
}

// A client that reaches a majority acquires a free lock within a few windows. A client that reaches
// a minority, or gets its answers late, gives its votes up.
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
