package simulation

import (
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

var simTicks = flag.Int("sim.ticks", fewer(100, 30), "ticks to simulate, in each of which several contenders try once")

// tick is one moment at which several contenders, each a process of its own, try once.
type tick struct {
	random     *rand.Rand
	nodes      int
	contenders int
	keys       []string
	opts       []redlock.Option
	apart      time.Duration // all contenders come within this time
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

// run lets all contenders try, and returns the number that succeeded, and the time of the winner.
func (k tick) run(t *testing.T) (won int, took time.Duration) {
	t.Helper()
	stores := lockertest.Stores(k.nodes)
	for _, s := range stores {
		s.Mute = k.mute
		s.Faults(k.fault)
	}
	if k.ghosts && k.nodes > 2 { // it died with one vote
		stores[k.random.IntN(k.nodes)].Set(k.keys[0], "GHOST", 10*time.Second)
	}
	var lockers []*redlock.Locker
	for range k.contenders {
		ways := lockertest.Ways(stores, func() time.Duration { return time.Duration(k.random.Int64N(int64(k.trip))) })
		lockers = append(lockers, lockertest.Over(t, ways, k.opts...))
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
	time.Sleep(10 * time.Second) // late commands arrive, and the key of the ghost expires
	for i, s := range stores {
		require.Zero(t, s.Len(), "keys of node %d", i)
	}
	return won, took
}

// A job that several machines start at the same moment runs on one of them, wherever the
// nodes are, even if each tries only once.
func TestOneOfSimultaneousAttemptsSucceeds(t *testing.T) {
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
