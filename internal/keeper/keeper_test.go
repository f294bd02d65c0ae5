package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errLost     = errors.New("lost")
	errReleased = errors.New("released")
	errClosed   = errors.New("closed")
)

const (
	ms  = time.Millisecond
	ttl = 300 * ms
	// validity is what a ttl is worth with a drift of 0.01.
	validity = ttl - ttl/100 - 2*ms
)

// bench is a keeper over nodes in memory.
type bench struct {
	*Keeper
	t      *testing.T
	stores []*memnode.Backend
	loss   atomic.Pointer[Loss] // the last
	once   sync.Once

	middleware func(*Hold) error // what the middleware does
}

// owner is the lock of a hold of a bench.
type owner struct {
	b *bench
	h *Hold
}

func (o owner) Cause(l Loss) error {
	if o.b != nil {
		o.b.loss.Store(&l)
	}
	return fmt.Errorf("%w: %s", errLost, l.Claim.Keys)
}

func (o owner) Extend() error { return o.b.middleware(o.h) }
func (owner) Ended()          {}
func (owner) Lost()           {}

func (b *bench) close() { b.once.Do(func() { b.Keeper.Close(errClosed) }) }

func run(t *testing.T, n int, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		config := Config{Clock: clock.New(0.01)}
		var nodes []*node.Node
		for i := range n {
			s := &memnode.Backend{}
			b.stores = append(b.stores, s)
			nodes = append(nodes, node.New(i, fmt.Sprint("n", i), s, false))
		}
		config.Nodes = node.NewNodes(nodes...)
		b.Keeper = New(config)
		defer func() {
			b.close()
			for i, node := range nodes {
				b.stores[i].Resume()
				node.Close(time.Second)
			}
			b.Wait()
		}()
		test(t, b)
	})
}

// hold acquires a key on every node, and holds it.
func (b *bench) hold(key string, options HoldOptions) *Hold {
	b.t.Helper()
	if options.TTL == 0 {
		options.TTL = ttl
	}
	claim := node.NewClaim([]string{key}, "token of "+key, len(b.stores))
	start := b.clock.Now()
	for _, n := range b.config.Nodes.All() {
		v := make(memnode.Replies, 1)
		n.Acquire(claim, options.TTL, v)
		require.Equal(b.t, quorum.Granted, (<-v).Vote)
	}
	h := &Hold{}
	require.True(b.t, h.Start(context.Background(), b.Keeper, owner{b, h}, claim, start, options))
	return h
}

// ended waits for the end of h's context, and returns when that was and why.
func ended(h *Hold) (time.Time, error) {
	<-h.Context().Done()
	return time.Now(), context.Cause(h.Context())
}

func (b *bench) faults(fault func(i int, op memnode.Op, claims int) memnode.Fault) {
	for i, s := range b.stores {
		s.Faults(func(op memnode.Op, claims int) memnode.Fault { return fault(i, op, claims) })
	}
}

func TestContextEndsExactlyWithValidity(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		require.Equal(t, start.Add(validity), h.Until())
		require.True(t, h.Valid())
		at, cause := ended(h)
		require.Equal(t, start.Add(validity), at)
		require.ErrorIs(t, cause, errLost)
		require.False(t, h.Valid())
		require.Equal(t, start.Add(validity), h.Until())
		synctest.Wait()
		for i, s := range b.stores {
			require.Zero(t, s.Len(), "node %d: a lost lock is released", i)
		}
	})
}

func TestGraceEndsTheContextSooner(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{Grace: 50 * ms})
		require.Equal(t, start.Add(validity), h.Until())
		at, cause := ended(h)
		require.Equal(t, start.Add(validity-50*ms), at)
		require.ErrorIs(t, cause, errLost)
		require.Equal(t, start.Add(validity), h.Until(), "until is still the end of validity")
	})
}

func TestAutoKeepsAHoldAliveFromAbsoluteDeadlines(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var extends atomic.Int64
		b.faults(func(i int, op memnode.Op, _ int) memnode.Fault {
			if i == 0 && op == memnode.Extend {
				extends.Add(1)
			}
			return memnode.Fault{Request: 5 * ms, Reply: 5 * ms}
		})
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(20 * ttl)
		require.True(t, h.Valid())
		// Each extension is due when 200 ms remain of a validity that is
		// counted from the start of the one before: 95 ms apart, however long
		// each takes.
		period := validity - 200*ms
		require.Equal(t, int64(time.Since(start)/period), extends.Load())
	})
}

func TestValidityCountsFromTheStartOfTheRound(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		b.faults(func(int, memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 40 * ms, Reply: 40 * ms} })
		start := time.Now()
		_, ok := h.Extend(t.Context(), ttl, time.Second)
		require.True(t, ok)
		require.Equal(t, 80*ms, time.Since(start))
		require.Equal(t, start.Add(validity), h.Until())
	})
}

func TestALateQuorumRevivesNothing(t *testing.T) {
	for _, auto := range []bool{false, true} {
		t.Run(fmt.Sprint("auto=", auto), func(t *testing.T) {
			run(t, 3, func(t *testing.T, b *bench) {
				start := time.Now()
				h := b.hold("k", HoldOptions{})
				b.faults(func(int, memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: 250 * ms} }) // they run at once
				if auto {
					h.Auto(200 * ms)
				} else {
					time.Sleep(100 * ms)
					_, ok := h.Extend(t.Context(), ttl, time.Hour)
					require.False(t, ok)
				}
				at, _ := ended(h)
				if auto {
					require.Equal(t, start.Add(validity), at)
				}
				require.Equal(t, start.Add(validity), h.Until())
				time.Sleep(60 * ms) // the quorum is there, and would extend it to about now + 40 ms
				require.False(t, h.Valid())
				require.Equal(t, start.Add(validity), h.Until())
				time.Sleep(10 * ttl)
				require.False(t, h.Valid())
				for i, s := range b.stores {
					require.Zero(t, s.Len(), "node %d: the late extension left no key", i)
				}
			})
		})
	}
}

func TestTwoMoreTriesFitBeforeValidityEnds(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var rounds atomic.Int64
		b.faults(func(i int, op memnode.Op, _ int) memnode.Fault {
			if op != memnode.Extend {
				return memnode.Fault{}
			}
			n := rounds.Load()
			if i == 0 {
				n = rounds.Add(1)
			}
			return memnode.Fault{NotRun: n <= 2} // the first two tries fail
		})
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(validity + 10*ms)
		require.True(t, h.Valid())
		require.GreaterOrEqual(t, rounds.Load(), int64(3))
	})
}

func TestASilentQuorumEndsTheContextWithValidityAndNotBefore(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		b.stores[1].Pause()
		b.stores[2].Pause()
		h.Auto(200 * ms)
		at, cause := ended(h)
		require.Equal(t, start.Add(validity), at)
		require.ErrorIs(t, cause, errLost)
		votes := b.loss.Load().Tally
		require.NotNil(t, votes, "the cause names the silent nodes")
		require.Equal(t, quorum.Granted, votes.Replies[0].Vote)
		require.ErrorIs(t, votes.Replies[1].Err, quorum.ErrNoReply)
		b.stores[1].Resume()
		b.stores[2].Resume()
		time.Sleep(50 * ms)
		for i, s := range b.stores {
			require.Zero(t, s.Len(), "node %d: what was stuck was taken back", i)
		}
	})
}

func TestDefiniteRefusalsEndTheContextAtOnce(t *testing.T) {
	for name, fault := range map[string]func(s *memnode.Backend){
		"taken by another": func(s *memnode.Backend) { s.Set("k", "another", time.Hour) },
		"gone":             func(s *memnode.Backend) { s.Wipe() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, b *bench) {
				h := b.hold("k", HoldOptions{})
				h.Auto(200 * ms)
				start := time.Now()
				fault(b.stores[0])
				fault(b.stores[2])
				at, cause := ended(h)
				require.Equal(t, start.Add(validity-200*ms), at, "with the extension that found it")
				require.ErrorIs(t, cause, errLost)
				require.True(t, b.loss.Load().Tally.Denied())
				synctest.Wait()
				for _, s := range b.stores {
					owner, _ := s.Get("k")
					require.NotEqual(t, "token of k", owner)
				}
			})
		})
	}
}

// With one node that fails first, the refusals of the other two must still be
// added up.
func TestDefiniteRefusalsCountAfterAFailureToo(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		b.faults(func(i int, op memnode.Op, _ int) memnode.Fault {
			return memnode.Fault{NotRun: i == 0 && op == memnode.Extend, Reply: time.Duration(i) * ms}
		})
		b.stores[1].Set("k", "another", time.Hour)
		b.stores[2].Set("k", "another", time.Hour)
		h.Auto(200 * ms)
		start := time.Now()
		at, _ := ended(h)
		require.Equal(t, start.Add(validity-200*ms+2*ms), at)
	})
}

func TestAMissingKeyIsRefilledAndNotCounted(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		b.stores[1].Wipe()
		time.Sleep(validity - 200*ms)
		synctest.Wait()
		owner, ok := b.stores[1].Get("k")
		require.True(t, ok)
		require.Equal(t, "token of k", owner)
		require.True(t, h.Valid())

		// Two gone at once: what is put back is no quorum.
		b.stores[0].Wipe()
		b.stores[2].Wipe()
		_, ok = h.Extend(t.Context(), ttl, time.Second)
		require.False(t, ok)
		require.False(t, h.Valid())
	})
}

func TestNothingIsRefilledAfterTheEnd(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(validity - 200*ms - ms)
		b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Extend {
				return memnode.Fault{Request: 50 * ms} // still under way when the hold is released
			}
			return memnode.Fault{}
		})
		time.Sleep(2 * ms)
		require.True(t, h.End(errReleased))
		for _, n := range b.config.Nodes.All() {
			n.Abandon(h.claim)
		}
		time.Sleep(100 * ms)
		for i, s := range b.stores {
			require.Zero(t, s.Len(), "node %d: an extension that overtook nothing made the lock immortal", i)
		}
	})
}

func TestAHungNodeDelaysNoExtension(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		b.stores[1].Pause()
		time.Sleep(20 * ttl)
		require.True(t, h.Valid())
		b.stores[1].Resume()
		time.Sleep(ttl)
		require.True(t, h.Valid())
		_, ok := b.stores[1].Get("k")
		require.True(t, ok, "the node takes part again")
	})
}

func TestWhatIsDueTogetherIsOnePipelinePerNode(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var calls, claims atomic.Int64
		b.faults(func(i int, op memnode.Op, n int) memnode.Fault {
			if op == memnode.Extend {
				calls.Add(1)
				claims.Add(int64(n))
			}
			return memnode.Fault{}
		})
		for i := range 100 {
			b.hold(fmt.Sprint("k", i), HoldOptions{}).Auto(200 * ms)
		}
		time.Sleep(validity - 200*ms)
		synctest.Wait()
		require.Equal(t, int64(300), claims.Load())
		require.Equal(t, int64(3), calls.Load())
	})
}

func TestMaxHoldCapsEveryExtension(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{MaxHold: time.Second})
		h.Auto(200 * ms)
		at, cause := ended(h)
		require.Equal(t, start.Add(time.Second), at)
		require.ErrorIs(t, cause, errLost)
		require.True(t, b.loss.Load().Capped)
	})
}

func TestStopAutoLetsTheHoldEnd(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms)
		time.Sleep(ttl)
		until := h.Until()
		h.StopAuto()
		at, _ := ended(h)
		require.Equal(t, until, at)
	})
}

func TestAnExtensionNeverShortens(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{TTL: time.Second})
		until := h.Until()
		_, ok := h.Extend(t.Context(), 100*ms, time.Second)
		require.True(t, ok)
		require.Equal(t, until, h.Until())
		time.Sleep(500 * ms)
		for _, s := range b.stores {
			_, ok := s.Get("k")
			require.True(t, ok)
		}
	})
}

func TestAHoldEndsOnceWithTheFirstCause(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		require.True(t, h.End(errReleased))
		require.False(t, h.End(errClosed))
		require.ErrorIs(t, context.Cause(h.Context()), errReleased)
		time.Sleep(ttl)
		require.ErrorIs(t, context.Cause(h.Context()), errReleased)
		require.Nil(t, b.loss.Load())
	})
}

func TestBoundContextsEndWithTheHold(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		for _, late := range []bool{false, true} {
			h := b.hold(fmt.Sprint("k", late), HoldOptions{})
			ctx, cancel := context.WithCancelCause(t.Context())
			if late {
				h.End(errReleased)
			}
			h.Bind(cancel)
			h.End(errReleased)
			require.ErrorIs(t, context.Cause(ctx), errReleased)
		}
	})
}

func TestNothingIsHeldThatTookLongerThanItsValidity(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := b.clock.Now()
		time.Sleep(validity)
		require.False(t, new(Hold).Start(t.Context(), b.Keeper, owner{b: b}, node.NewClaim([]string{"k"}, "token", 3), start, HoldOptions{TTL: ttl}))
	})
}

func TestCloseEndsEveryHoldAndReleasesIt(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var holds []*Hold
		for i := range 10 {
			h := b.hold(fmt.Sprint("k", i), HoldOptions{})
			h.Auto(200 * ms)
			holds = append(holds, h)
		}
		b.stores[2].Pause()
		b.close()
		for _, h := range holds {
			require.ErrorIs(t, context.Cause(h.Context()), errClosed)
		}
		synctest.Wait()
		require.Zero(t, b.stores[0].Len())
		require.Zero(t, b.stores[1].Len())
		ok := new(Hold).Start(t.Context(), b.Keeper, owner{b: b}, holds[0].claim, b.clock.Now(), HoldOptions{TTL: ttl})
		require.False(t, ok, "a closed keeper keeps nothing")
	})
}
