package keeper

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
)

const fewTurns = 100

// far has extensions take 50 ms, and no more than fewTurns of them be started at a time.
func (b *bench) far() {
	b.mu.Lock()
	b.turns.most = fewTurns
	b.mu.Unlock()
	b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
		if op == memnode.Extend {
			return memnode.Fault{Request: 25 * ms, Reply: 25 * ms}
		}
		return memnode.Fault{}
	})
}

// many holds as many keys, all of which are to be extended at the same time.
func (b *bench) many(n int, ttl time.Duration) []*Hold {
	holds := make([]*Hold, n)
	for i := range holds {
		holds[i] = b.hold(fmt.Sprint("k", i), HoldOptions{TTL: ttl})
		holds[i].Auto(ttl / 3 * 2)
	}
	return holds
}

func TestExtensionsThroughAMiddlewareAreBounded(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		const ttl = 30 * time.Second
		var running, most, calls atomic.Int64
		b.through(func(h *Hold) error {
			defer running.Add(-1)
			for n := running.Add(1); n > most.Load(); {
				most.Store(n)
			}
			calls.Add(1)
			h.ExtendDue(ttl)
			return nil
		})
		b.far()
		holds := b.many(5*fewTurns, ttl)
		time.Sleep(ttl / 2)
		require.EqualValues(t, len(holds), calls.Load(), "each once")
		require.LessOrEqual(t, most.Load(), int64(2*fewTurns), "those that return, and those that begin")
		for _, h := range holds {
			require.Greater(t, time.Until(h.Until()), ttl*3/4, "each is extended")
		}
	})
}

// However many are stuck in what they call, or wait for nodes that say nothing.
func TestExtensionsThatAreStuckHoldUpNoOthers(t *testing.T) {
	const ttl = 30 * time.Second
	for name, silent := range map[string]bool{"blocked": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, b *bench) {
				var stuck sync.Map
				over := make(chan struct{})
				end := sync.OnceFunc(func() { close(over) })
				defer end()
				var all sync.WaitGroup
				b.through(func(h *Hold) error {
					all.Add(1)
					defer all.Done()
					if _, is := stuck.Load(h); is && silent {
						time.Sleep(h.retryPause()) // as ExtendDue waits for nodes that say nothing
					} else if is {
						<-over
					}
					h.ExtendDue(ttl)
					return nil
				})
				b.far()
				holds := b.many(4*fewTurns, ttl)
				for _, h := range holds[:3*fewTurns] {
					stuck.Store(h, nil)
				}
				time.Sleep(ttl/3 + time.Second)
				for _, h := range holds[3*fewTurns:] {
					require.Greater(t, time.Until(h.Until()), ttl*3/4)
				}
				end()
				synctest.Wait()
				for _, h := range holds {
					h.End(errReleased)
				}
				time.Sleep(ttl)
				all.Wait()
			})
		})
	}
}

// A hold that ends while it waits for its turn, or is no longer to be extended, is not
// extended.
func TestAHoldThatEndsBeforeItsTurnHasNone(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		const ttl = 30 * time.Second
		var begun sync.Map
		var calls atomic.Int64
		b.through(func(h *Hold) error {
			begun.Store(h, nil)
			calls.Add(1)
			h.ExtendDue(ttl)
			return nil
		})
		b.far()
		holds := b.many(3*fewTurns, ttl)
		time.Sleep(b.clock.Validity(ttl) - ttl/3*2 + ms)
		synctest.Wait()
		require.EqualValues(t, fewTurns, calls.Load())
		for i, h := range holds {
			if _, is := begun.Load(h); is {
				continue
			}
			if i%2 == 0 {
				require.True(t, h.End(errReleased))
			} else {
				h.StopAuto()
			}
		}
		time.Sleep(time.Second)
		require.EqualValues(t, fewTurns, calls.Load())
	})
}
