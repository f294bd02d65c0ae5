package simulation

import (
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/proof/history"
	"github.com/redis-kit/redlock/proof/nemesis"
)

var (
	simHistories = flag.Int("sim.histories", fewer(1000, 300), "histories to simulate")
	simSeed      = flag.Uint64("sim.seed", 1, "seed of the first history; each has the next")
	simFor       = flag.Duration("sim.for", 0, "simulate for this long, however many histories that makes")
)

// The real code, from the API to the queues of commands, over nodes in memory and in virtual time.
// A seed fixes the faults and the actions of each contender. It does not fix the order in which the
// scheduler runs what happens at the same instant.
func TestSimulation(t *testing.T) {
	began := time.Now()
	var histories, holds, lost atomic.Int64
	var least atomic.Int64
	least.Store(int64(time.Hour))
	more := func(i int64) bool {
		return !t.Failed() && (i < int64(*simHistories) || time.Since(began) < *simFor)
	}
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := next.Add(1) - 1; more(i); i = next.Add(1) - 1 {
				s := simulate(t, *simSeed+uint64(i)) // if it fails, it ends this goroutine
				histories.Add(1)
				holds.Add(int64(s.Holds))
				lost.Add(int64(s.Lost))
				if s.Expired > 0 && int64(s.Slack) < least.Load() {
					least.Store(int64(s.Slack))
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d histories from seed %d in %v: %d holds, %d of them lost, least slack of P2 %v",
		histories.Load(), *simSeed, time.Since(began).Round(time.Millisecond), holds.Load(), lost.Load(), time.Duration(least.Load()))
}

// world is one simulated deployment.
type world struct {
	random *rand.Rand
	stores []*memnode.Backend
	ttl    time.Duration

	mu   sync.Mutex // guards what follows, and random
	away []bool     // by node: paused, or wiped and kept away
	calm bool       // no more faults

	quarantine time.Duration       // by the restart guard; 0: there is none
	ways       [][]*lockertest.Way // by process and node; none if all are near
}

func simulate(t *testing.T, seed uint64) (summary history.Summary) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{random: rand.New(rand.NewPCG(seed, 0)), ttl: 300 * ms}
		n := []int{1, 2, 3, 4, 5, 5}[w.random.IntN(6)]
		w.away = make([]bool, n)
		w.stores = lockertest.Stores(n)
		for _, s := range w.stores {
			s.Rate = drifting(w.random)
		}
		c := &nemesis.Contention{
			PerLocker: 1 + w.random.IntN(2),
			Keys:      []string{"k"},
			TTL:       w.ttl,
			Allowance: 2 * ms,
			Need:      n/2 + 1,
			Seed:      seed,
			Kept:      w.kept,
			History:   history.New(),
		}
		var all []redlock.Option
		retention := 10 * w.ttl
		if w.random.IntN(2) == 0 {
			all = append(all, redlock.WithFence(), redlock.WithFenceRetention(retention))
		}
		if w.random.IntN(2) == 0 {
			// The clocks of nodes drift, and do not jump.
			skew := w.ttl / 50
			w.quarantine = w.ttl + 2*skew
			all = append(all, redlock.WithRestartGuard(w.ttl, skew))
		}
		if seed%3 == 0 {
			all = append(all, redlock.WithBackgroundRelease())
		}
		far := seed%2 == 1 // the processes are far from the nodes, slow at times, or cut off
		processes := 2
		if far {
			processes = 3
		}
		for i := range processes {
			var ways []*lockertest.Way
			if far {
				ways = lockertest.Ways(w.stores, func() time.Duration { return time.Duration(w.random.Int64N(int64(10 * ms))) })
				w.ways = append(w.ways, ways)
			}
			opts := []redlock.Option{redlock.WithNodeTimeout(w.ttl / 4), redlock.WithLocalHandoff(w.random.IntN(3))}
			if i == 1 && seed%4 == 0 { // like a process of a version without queues
				opts = append(opts, redlock.WithoutWaitQueue())
			}
			if opts = append(opts, all...); far {
				c.Lockers = append(c.Lockers, lockertest.Over(t, ways, opts...))
			} else {
				c.Lockers = append(c.Lockers, lockertest.Over(t, w.stores, opts...))
			}
		}
		require.NoError(t, c.Lockers[0].TrustNodes(t.Context()))
		for i, s := range w.stores {
			s.Faults(w.faults(i))
			s.Pushes(w.pushes())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 8*w.ttl)
		var plague sync.WaitGroup
		plague.Go(func() { w.plague(ctx) })
		for _, ways := range w.ways {
			plague.Go(func() { w.estrange(ctx, ways) })
		}
		c.Run(ctx)
		cancel()
		plague.Wait()

		// P6: after healing, a lone contender acquires.
		w.heal()
		lone, cancel := context.WithTimeout(context.Background(), 4*w.ttl)
		lock, err := c.Lockers[0].Acquire(lone, "k", w.ttl, redlock.WithRetry(redlock.FixedRetry(10*ms, 10*ms, -1)))
		cancel()
		if err != nil {
			t.Errorf("seed %d: P6: %v", seed, err)
		} else if err := lock.Release(context.Background()); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for _, l := range c.Lockers {
			if err := l.Close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		// P5: no key outlives its use.
		time.Sleep(w.ttl + 100*ms)
		for i, s := range w.stores {
			if s.Len() > 0 {
				t.Errorf("seed %d: P5: node %d has %d keys", seed, i, s.Len())
			}
		}
		time.Sleep(retention)
		for i, s := range w.stores {
			if s.Counters() > 0 {
				t.Errorf("seed %d: node %d has %d counters after their retention", seed, i, s.Counters())
			}
		}
		for _, v := range c.History.Check() {
			t.Errorf("seed %d, %d nodes: %v", seed, n, v)
		}
		summary = c.History.Summary()
	})
	return summary
}

// faults returns the faults of the calls to a node: delays, losses and duplicates.
func (w *world) faults(int) func(op memnode.Op, claims int) memnode.Fault {
	bad := w.random.Float64() * 0.4 // some nodes are worse than others
	return func(memnode.Op, int) memnode.Fault {
		w.mu.Lock()
		defer w.mu.Unlock()
		delay := func(most time.Duration) time.Duration { return time.Duration(w.random.Int64N(int64(most))) }
		f := memnode.Fault{Request: delay(ms), Reply: delay(ms)}
		if w.calm || w.random.Float64() > bad {
			return f
		}
		switch w.random.IntN(6) {
		case 0:
			f.Request = delay(2 * w.ttl)
		case 1:
			f.Reply = delay(2 * w.ttl)
		case 2:
			f.LoseRequest = true
		case 3:
			f.LoseReply = true
		case 4:
			f.NotRun = true
		case 5:
			f.Twice, f.Reply = true, delay(w.ttl/2)
		}
		return f
	}
}

// pushes returns the faults of the pushes of a node: they come late, or never.
func (w *world) pushes() func() (time.Duration, bool) {
	bad := w.random.Float64() * 0.4
	return func() (time.Duration, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.calm || w.random.Float64() > bad {
			return time.Duration(w.random.Int64N(int64(ms))), false
		}
		return time.Duration(w.random.Int64N(int64(2 * w.ttl))), w.random.IntN(3) == 0
	}
}

// plague hits whole nodes: they stop for a while, or lose their data. Without the restart guard a
// node that lost its data is away for longer than the longest ttl.
func (w *world) plague(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		i, how := w.random.IntN(len(w.stores)), w.random.IntN(3)
		rest, stop := time.Duration(w.random.Int64N(int64(2*w.ttl))), time.Duration(w.random.Int64N(int64(3*w.ttl)))
		w.mu.Unlock()
		wait(ctx, rest)
		w.setAway(i, true)
		w.stores[i].Pause()
		switch how {
		case 0:
			wait(ctx, stop)
		case 1:
			w.stores[i].Wipe()
			if w.quarantine == 0 {
				time.Sleep(w.ttl + w.ttl/10) // not cut short: it must be away for that long
			}
		case 2: // several at once
			j := (i + 1) % len(w.stores)
			w.setAway(j, true)
			w.stores[j].Pause()
			wait(ctx, stop)
			w.stores[j].Resume()
			w.setAway(j, false)
		}
		w.stores[i].Resume()
		w.setAway(i, false)
	}
}

// estrange makes the ways of one process slow for a while, or cuts them, to some nodes or all.
func (w *world) estrange(ctx context.Context, ways []*lockertest.Way) {
	for ctx.Err() == nil {
		w.mu.Lock()
		how, some := w.random.IntN(3), w.random.IntN(1<<len(ways))
		late := time.Duration(w.random.Int64N(int64(2 * w.ttl)))
		lasts := time.Duration(w.random.Int64N(int64(3 * w.ttl)))
		w.mu.Unlock()
		for i, way := range ways {
			switch {
			case some&(1<<i) == 0 || how == 2:
				way.Set(ms)
			case how == 1:
				way.Set(late)
			default:
				way.Cut()
			}
		}
		wait(ctx, lasts)
	}
}

func (w *world) setAway(i int, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[i] = away
}

func (w *world) heal() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	for _, s := range w.stores {
		s.Resume()
	}
	for _, ways := range w.ways {
		setAll(ways, ms)
	}
	time.Sleep(4 * w.ttl) // delayed commands arrive, and the keys they leave expire
}

// kept is the oracle. It counts the nodes that have the token, or grant the key to no process.
func (w *world) kept(key, token string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for i, s := range w.stores {
		if owner, _ := s.Get(key); w.away[i] || owner == token || w.quarantine > 0 && !s.Votes(w.quarantine) {
			n++
		}
	}
	return n
}
