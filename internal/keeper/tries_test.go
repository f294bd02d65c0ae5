package keeper

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
)

// through has extensions go through a middleware, which calls extend.
func (b *bench) through(extend func(h *Hold) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.Middleware, b.middleware = true, extend
}

// due is a middleware that does nothing.
func due(h *Hold) error {
	h.ExtendDue(ttl)
	return nil
}

// tried notes when node 0 gets extensions, of which none succeeds.
func (b *bench) tried(fault memnode.Fault) func() []time.Duration {
	var mu sync.Mutex
	var tries []time.Duration
	start := time.Now()
	b.faults(func(i int, op memnode.Op, _ int) memnode.Fault {
		if op != memnode.Extend {
			return memnode.Fault{}
		}
		if i == 0 {
			mu.Lock()
			tries = append(tries, time.Since(start))
			mu.Unlock()
		}
		return fault
	})
	return func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return tries
	}
}

// Four tries fit before the deadline, evenly spaced from the threshold on: with
// a grace, and through a middleware too.
func TestFourTriesFitBeforeTheDeadline(t *testing.T) {
	for name, fault := range map[string]memnode.Fault{"refused": {NotRun: true}, "silent": {Request: time.Hour}, "lost": {LoseReply: true}} {
		for _, grace := range []time.Duration{0, 40 * ms, 80 * ms} {
			for _, middleware := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/grace=%v/middleware=%v", name, grace, middleware), func(t *testing.T) {
					run(t, 3, func(t *testing.T, b *bench) {
						if middleware {
							b.through(due)
						}
						tried := b.tried(fault)
						start := time.Now()
						h := b.hold("k", HoldOptions{Grace: grace})
						const threshold = 200 * ms
						h.Auto(threshold)
						at, _ := ended(h)
						require.Equal(t, start.Add(validity-grace), at)
						gap := (threshold - grace) / 4
						first := validity - threshold
						tries := tried()
						if len(tries) == 5 && tries[4] == at.Sub(start) { // in the moment of the end
							tries = tries[:4]
						}
						want := []time.Duration{first, first + gap, first + 2*gap, first + 3*gap}
						if name == "silent" { // what is more waits for the first answer
							want = want[:3]
						}
						require.Equal(t, want, tries)
						b.faults(func(int, memnode.Op, int) memnode.Fault { return memnode.Fault{} })
						time.Sleep(2 * time.Hour)
					})
				})
			}
		}
	}
}

// A middleware that takes longer than there is between two tries skips none that
// there is time for.
func TestASlowMiddlewareSkipsNoTry(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.through(func(h *Hold) error {
			defer time.Sleep(20 * ms)
			return due(h)
		})
		tried := b.tried(memnode.Fault{LoseRequest: true, Request: 45 * ms})
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		ended(h)
		first := validity - 200*ms
		require.Equal(t, []time.Duration{first, first + 65*ms, first + 130*ms, first + 195*ms}, tried())
	})
}

// One that ends its goroutine, when the next try is due already, ends one
// extension only.
func TestAMiddlewareThatEndsItsGoroutineLateEndsOneTryOnly(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var calls atomic.Int64
		b.through(func(h *Hold) error {
			if calls.Add(1) == 1 {
				time.Sleep(60 * ms)
				runtime.Goexit()
			}
			return due(h)
		})
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(10 * ttl)
		require.True(t, h.Valid())
	})
}

// The last extension that was due is not made up for after StopAuto.
func TestNothingIsExtendedAfterStopAuto(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var stopped atomic.Bool
		b.through(func(h *Hold) error {
			if stopped.Load() {
				return due(h)
			}
			time.Sleep(60 * ms) // by then the next is due
			return errors.New("refused")
		})
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(validity - 200*ms + 55*ms)
		h.StopAuto()
		stopped.Store(true)
		at, _ := ended(h)
		require.Equal(t, start.Add(validity), at)
	})
}

// A caller that waits for an extension learns that a quorum granted it, even if that happens just
// when its patience ends.
func TestAnExtensionThatIsCarriedIsToldSo(t *testing.T) {
	for range 100 {
		run(t, 1, func(t *testing.T, b *bench) {
			var told, calls atomic.Int64
			b.through(func(h *Hold) error {
				tally, extended := h.ExtendDue(ttl)
				calls.Add(1)
				if extended != (tally.Granted() == 1) {
					told.Add(1)
				}
				return nil
			})
			b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
				if op == memnode.Extend {
					return memnode.Fault{Reply: 50 * ms} // as long as there is between two tries
				}
				return memnode.Fault{}
			})
			h := b.hold("k", HoldOptions{})
			h.Auto(200 * ms)
			time.Sleep(3 * ttl)
			require.True(t, h.Valid())
			h.StopAuto()
			time.Sleep(ttl)
			synctest.Wait()
			require.Positive(t, calls.Load())
			require.Zero(t, told.Load())
		})
	}
}
