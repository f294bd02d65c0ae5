package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

// Testbed is real servers, each behind a proxy.
type Testbed struct {
	Servers []*redistest.Server
	Proxies []*redistest.Proxy
	TTL     time.Duration
	Drift   float64

	waits [redlock.WaitHandedOver + 1]atomic.Int64 // successful acquisitions, by kind

	t          testing.TB
	restarting sync.Mutex // held while nodes are away
}

// patience bounds waits for a server. Loaded machines need much of it.
const patience = 30 * time.Second

// NewTestbed starts n servers.
func NewTestbed(t testing.TB, n int, ttl time.Duration, args ...string) *Testbed {
	return testbed(t, redistest.StartN(t, n, args...), ttl)
}

func testbed(t testing.TB, servers []*redistest.Server, ttl time.Duration) *Testbed {
	bed := &Testbed{Servers: servers, TTL: ttl, Drift: 0.05, t: t}
	for _, s := range bed.Servers {
		bed.Proxies = append(bed.Proxies, redistest.NewProxy(t, s.Addr()))
	}
	return bed
}

// Open opens the Locker of another process.
func (bed *Testbed) Open(opts ...redlock.Option) *redlock.Locker {
	bed.t.Helper()
	var urls []string
	for _, p := range bed.Proxies {
		urls = append(urls, p.URL())
	}
	l, err := redlock.Open(context.Background(), urls, append(opts, redlock.WithDriftFactor(bed.Drift))...)
	if err != nil {
		bed.t.Fatal(err)
	}
	return l
}

// Contention returns contenders in a number of processes for the keys. Two of four processes have
// fences, unless opts give them to all.
func (bed *Testbed) Contention(processes, perProcess int, keys []string, seed uint64, h *history.History, opts ...redlock.Option) *Contention {
	c := &Contention{
		PerLocker: perProcess,
		Keys:      keys,
		TTL:       bed.TTL,
		Allowance: time.Duration(float64(bed.TTL)*bed.Drift) + 2*time.Millisecond,
		Need:      len(bed.Servers)/2 + 1,
		Seed:      seed,
		History:   h,
	}
	for i := range processes {
		own := slices.Clone(opts)
		if i%2 == 0 { // one without middleware, one with
			own = append(own, redlock.WithMiddleware(bed.countWaits))
		}
		if i%4 < 2 { // two with fences, two without
			own = append(own, redlock.WithFence())
		}
		c.Lockers = append(c.Lockers, bed.Open(own...))
	}
	return c
}

// countWaits is a middleware that counts for Waits.
func (bed *Testbed) countWaits(next redlock.Handler) redlock.Handler {
	return func(ctx context.Context, op *redlock.Op) error {
		err := next(ctx, op)
		if op.Kind == redlock.OpAcquire && err == nil {
			bed.waits[op.Wait].Add(1)
		}
		return err
	}
}

// Waits counts the acquisitions of half of the processes since the last call, by how they waited.
func (bed *Testbed) Waits() map[redlock.WaitKind]int64 {
	waits := make(map[redlock.WaitKind]int64)
	for kind := range bed.waits {
		if n := bed.waits[kind].Swap(0); n > 0 {
			waits[redlock.WaitKind(kind)] = n
		}
	}
	return waits
}

// Keys counts the keys on all servers, without those that outlive a lock: the counters of fences and
// the markers of the restart guard.
func (bed *Testbed) Keys() int {
	n := 0
	for _, s := range bed.Servers {
		keys, err := s.Do("KEYS", "*")
		if err != nil {
			n++
			continue
		}
		for _, key := range keys.([]any) {
			if key := key.(string); !strings.HasSuffix(key, ":fence") && key != "redlock:guard" {
				n++
			}
		}
	}
	return n
}

// A Fault hits some nodes of a testbed. Inject heals it before it returns, and returns early when
// ctx ends.
type Fault struct {
	Name   string
	Inject func(ctx context.Context, bed *Testbed, random *rand.Rand)
}

// some chooses n different nodes at random.
func (bed *Testbed) some(random *rand.Rand, n int) []int {
	return random.Perm(len(bed.Servers))[:n]
}

// minority is the largest number of nodes that may fail without harm; most is the smallest majority.
func (bed *Testbed) minority() int { return (len(bed.Servers) - 1) / 2 }
func (bed *Testbed) most() int     { return len(bed.Servers)/2 + 1 }

// between returns a random duration from least to most.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)+1))
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
