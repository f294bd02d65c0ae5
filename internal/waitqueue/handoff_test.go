package waitqueue

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/sim"
)

// hot is a process that hands a key over and over.
type hot struct {
	*process
	claim   *node.Claim
	waiters []*Waiter
}

// heat has a process hold the key, with so many more that wait for it there.
func (w *world) heat(handoffs, waiters int) *hot {
	h := &hot{process: w.process("hot", handoffs), claim: node.NewClaim([]string{"k"}, "hot", len(w.stores))}
	for _, s := range w.stores {
		s.Set("k", h.claim.Token, time.Hour)
	}
	h.Hold("k", h.claim)
	for range waiters {
		h.waiters = append(h.waiters, h.enter("k", time.Hour, node.Terms{}))
	}
	return h
}

// hand hands the key over once, and has whoever held it wait again. It reports false
// if it is the turn of others.
func (h *hot) hand(left time.Duration) bool {
	w := h.Next("k", h.claim, left)
	if w == nil {
		return false
	}
	w.Pass(Grant{Claim: h.claim, Until: 1 << 60, Handed: true})
	<-w.Grant()
	h.waiters = append(h.waiters[1:], h.enter("k", time.Hour, node.Terms{}))
	return true
}

// end has the turn of others, and ends all waits.
func (h *hot) end() {
	h.Released("k", h.claim)
	h.world.release("k")
	for _, w := range h.waiters {
		w.Leave()
	}
}

// count counts the commands to all nodes from now on, by the kind of the first in their
// pipeline.
func (w *world) count() func(sim.Op) int64 {
	counts := map[sim.Op]*atomic.Int64{sim.Look: {}, sim.Join: {}, sim.Release: {}}
	for _, s := range w.stores {
		s.Faults(func(op sim.Op, commands int) sim.Fault {
			counts[op].Add(int64(commands))
			return sim.Fault{}
		})
	}
	return func(op sim.Op) int64 { return counts[op].Load() }
}

func TestWhileNobodyElseWaitsThereAreNoTurns(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(4, 2)
		calls := w.count()
		for range 1000 {
			require.True(t, h.hand(time.Hour))
		}
		synctest.Wait()
		require.Zero(t, calls(sim.Join))
		require.Zero(t, calls(sim.Release))
		require.EqualValues(t, 3*(1000/4-1), calls(sim.Look), "a question a row")
		time.Sleep(batchTime)
		require.True(t, h.hand(time.Hour), "a row that has lasted too long ends in the same way")
		h.end()
	})
}

// However many rows there were, and whenever the other joined: before a question,
// after it, or while it was under way.
func TestAnotherProcessHasItsTurnWithinARow(t *testing.T) {
	const handoffs = 4
	for _, n := range []int{1, 2, 3, 5} {
		for joins := range 3 * handoffs {
			t.Run(fmt.Sprintf("nodes=%d/after=%d", n, joins), func(t *testing.T) {
				run(t, n, func(t *testing.T, w *world) {
					h, other := w.heat(handoffs, 2), w.process("other", 0)
					for _, s := range w.stores {
						s.Faults(func(op sim.Op, _ int) sim.Fault {
							return sim.Fault{Request: 300 * time.Microsecond, Reply: 300 * time.Microsecond}
						})
					}
					joined := time.Now().Add(time.Duration(joins)*ms + 50*time.Microsecond)
					waiting := make(chan *Waiter, 1)
					time.AfterFunc(time.Until(joined), func() { waiting <- other.enter("k", ttl, node.Terms{}) })
					late := 0
					for time.Sleep(ms); h.hand(time.Hour); time.Sleep(ms) {
						if time.Since(joined) > 300*time.Microsecond {
							late++
						}
						require.LessOrEqual(t, late, handoffs)
					}
					h.end()
					other.Return("k", other.got(<-waiting, 10*ms))
				})
			})
		}
	}
}

// Where holds are long, a row is over after its time, which counts from before the
// question: the answer may be late, and the other have joined meanwhile.
func TestAnotherProcessHasItsTurnInTime(t *testing.T) {
	const hold, late = 10 * ms, 40 * ms
	for after := time.Duration(0); after < 300*ms; after += 7 * ms {
		run(t, 3, func(t *testing.T, w *world) {
			h, other := w.heat(1000, 2), w.process("other", 0)
			for _, s := range w.stores {
				s.Faults(func(op sim.Op, _ int) sim.Fault {
					if op == sim.Look {
						return sim.Fault{Reply: late}
					}
					return sim.Fault{}
				})
			}
			joined := time.Now().Add(after)
			waiting := make(chan *Waiter, 1)
			time.AfterFunc(after, func() { waiting <- other.enter("k", ttl, node.Terms{}) })
			for h.hand(time.Hour) {
				require.Less(t, time.Since(joined), batchTime+hold+late)
				time.Sleep(hold)
			}
			require.LessOrEqual(t, time.Since(joined), batchTime+hold+late)
			h.end()
			other.Return("k", other.got(<-waiting, 10*ms))
		})
	}
}

// It stands in the queues of a majority, as the holder's last node is away for it.
func TestAnotherProcessIsSeenByAQuorum(t *testing.T) {
	for away := range 3 {
		for silent := range 3 {
			run(t, 3, func(t *testing.T, w *world) {
				h, other := w.heat(2, 2), w.process("other", 0)
				w.cut((away+1)%3, (away+2)%3)
				waiter := other.enter("k", ttl, node.Terms{})
				time.Sleep(ms)
				w.heal()
				w.stores[silent].Pause()
				require.True(t, h.hand(time.Hour))
				require.True(t, h.hand(time.Hour))
				require.False(t, h.hand(time.Hour))
				w.stores[silent].Resume()
				h.end()
				other.Return("k", other.got(waiter, time.Second))
			})
		}
	}
}

// Nobody is known not to wait where no quorum answers, and a row ends in time.
func TestWithoutAnAnswerOthersHaveTheirTurn(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(2, 2)
		w.stores[0].Pause()
		for range 10 {
			require.True(t, h.hand(time.Hour), "two nodes answer")
		}
		w.stores[1].Pause()
		began, handed := time.Now(), 0
		for h.hand(time.Hour) {
			handed++
			require.LessOrEqual(t, handed, 2)
		}
		require.LessOrEqual(t, time.Since(began), batchTime)
		w.stores[0].Resume()
		w.stores[1].Resume()
		synctest.Wait()
		h.end()
	})
}

// Short holds are over before they are extended, so that rows use validity up.
func TestARowDoesNotGoOnWithALockThatIsNearlyOver(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(2, 2)
		for left, goesOn := range map[time.Duration]bool{time.Minute: true, usualWindow / 2: true, usualWindow/2 - 1: false} {
			for !h.local["k"].batch.done(2, time.Now()) {
				require.True(t, h.hand(time.Hour))
			}
			h.mu.Lock()
			asks := h.questionDue(h.local["k"], left)
			h.mu.Unlock()
			require.Equal(t, goesOn, asks, "%v", left)
		}
		h.end()
	})
}

// While others wait, rows mostly end without a question. Once nobody does, all end
// with one.
func TestQuestionsInVainBecomeRare(t *testing.T) {
	var b askBackoff
	asked := 0
	for range 1000 {
		if b.due() {
			asked++
			b.answered(false)
		}
	}
	require.InDelta(t, 1000/maxSkipped, asked, 5)
	turns := 0
	for range 1000 {
		if b.due() {
			b.answered(true)
		} else {
			turns++
		}
	}
	require.LessOrEqual(t, turns, maxSkipped)
}

// A hold may end while the nodes are asked.
func TestAKeyThatIsLostMeanwhileIsNotHandedOver(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(1, 2)
		require.True(t, h.hand(time.Hour))
		for _, s := range w.stores {
			s.Faults(func(sim.Op, int) sim.Fault { return sim.Fault{Reply: 10 * ms} })
		}
		time.AfterFunc(5*ms, func() {
			h.claim.End()
			h.Released("k", h.claim)
		})
		require.False(t, h.hand(time.Hour))
		require.NotNil(t, h.local["k"].candidate, "those who wait go on")
		h.end()
	})
}
