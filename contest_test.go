package redlock_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

var simTicks = flag.Int("sim.ticks", fewer(100, 30), "ticks to simulate, in each of which several contenders try once")

// fewer is how many histories are simulated by default: few under the race detector, which
// does not stand very many timers in one process.
func fewer(usually, few int) int {
	if redlock.RaceDetector {
		return few
	}
	return usually
}

// way is the way from one client to a node: every call and push takes some time.
type way struct {
	*memnode.Backend
	trip atomic.Int64 // in ns; below 0 it is cut
}

func newWay(s *memnode.Backend, trip time.Duration) *way {
	w := &way{Backend: s}
	w.trip.Store(int64(trip))
	return w
}

func (w *way) Do(ctx context.Context, batch []node.Command) error {
	trip := time.Duration(w.trip.Load())
	if trip < 0 {
		for i := range batch {
			batch[i].Err = node.NotConnected(memnode.ErrDown)
		}
		return node.NotConnected(memnode.ErrDown)
	}
	time.Sleep(trip / 2)
	err := w.Backend.Do(ctx, batch)
	time.Sleep(time.Duration(max(w.trip.Load(), int64(trip))) - trip/2)
	return err
}

func (w *way) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return w.Backend.Listen(ctx, channel, ready, func(p node.Push) {
		if trip := time.Duration(w.trip.Load()); trip >= 0 {
			time.Sleep(trip / 2)
			heard(p)
		}
	})
}

// tick is one moment at which several contenders, each a process of its own, try once.
type tick struct {
	random     *rand.Rand
	nodes      int
	contenders int
	keys       []string
	opts       []redlock.Option
	apart      time.Duration // the contenders come within
	ghosts     bool          // a process has died and left keys
	mute       bool          // servers before Redis 7.0
	trip       time.Duration // of the longest way
	fault      func(memnode.Op, int) memnode.Fault
}

func randomTick(seed uint64) tick {
	r := rand.New(rand.NewPCG(seed, 7))
	k := tick{
		random: r, nodes: []int{1, 2, 3, 3, 3, 5, 5}[r.IntN(7)], contenders: 2 + r.IntN(8), keys: []string{"k"},
		apart: []time.Duration{0, 2 * ms, 10 * ms}[r.IntN(3)], ghosts: r.IntN(4) == 0, mute: r.IntN(3) == 0, trip: 20 * ms,
	}
	if r.IntN(8) == 0 {
		k.contenders = 20
	}
	if r.IntN(4) == 0 {
		k.keys = []string{"k", "l", "m"}
	}
	if r.IntN(3) == 0 {
		k.opts = append(k.opts, redlock.WithFence())
	}
	if r.IntN(3) == 0 {
		k.opts = append(k.opts, redlock.WithoutWaitQueue())
	}
	return k
}

// run has all contenders try, and returns how many succeeded, and how long the winner took.
func (k tick) run(t *testing.T) (won int, took time.Duration) {
	t.Helper()
	stores := make([]*memnode.Backend, k.nodes)
	for i := range stores {
		stores[i] = &memnode.Backend{Mute: k.mute}
		stores[i].Faults(k.fault)
	}
	if k.ghosts && k.nodes > 2 { // it died with one vote
		stores[k.random.IntN(k.nodes)].Set(k.keys[0], "GHOST", 10*time.Second)
	}
	var lockers []*redlock.Locker
	for range k.contenders {
		var ways []node.Backend
		for _, s := range stores {
			ways = append(ways, newWay(s, time.Duration(k.random.Int64N(int64(k.trip)))))
		}
		l, err := redlock.NewOver(ways, k.opts...)
		require.NoError(t, err)
		lockers = append(lockers, l)
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards won and took
	for _, l := range lockers {
		late := time.Duration(0)
		if k.apart > 0 {
			late = time.Duration(k.random.Int64N(int64(k.apart)))
		}
		all.Go(func() {
			time.Sleep(late)
			began := time.Now()
			// What is acquired is held until the Locker is closed.
			if _, err := l.TryAcquireAll(t.Context(), slices.Clone(k.keys), 10*time.Second); err != nil {
				if k.fault == nil && k.trip <= 20*ms && !errors.Is(err, redlock.ErrNotAcquired) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won++
			took = time.Since(began)
		})
	}
	all.Wait()
	for _, s := range stores {
		s.Faults(nil)
	}
	for _, l := range lockers {
		require.NoError(t, l.Close())
	}
	time.Sleep(10 * time.Second) // what is late, and what the ghost left
	for i, s := range stores {
		require.Zero(t, s.Len(), "keys of node %d", i)
	}
	return won, took
}

// A job that several machines start at the same moment runs on one of them, wherever the
// nodes are, even if each tries only once.
func TestOneOfThoseThatTryAtOnceSucceeds(t *testing.T) {
	var longest time.Duration
	for i := range *simTicks {
		synctest.Test(t, func(t *testing.T) {
			k := randomTick(uint64(i))
			won, took := k.run(t)
			longest = max(longest, took)
			if won != 1 {
				t.Errorf("seed %d: %d of %d contenders over %d nodes succeeded (%d keys, apart %v, a ghost: %v, mute: %v)",
					i, won, k.contenders, k.nodes, len(k.keys), k.apart, k.ghosts, k.mute)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d ticks; the winner took %v at most", *simTicks, longest)
}
