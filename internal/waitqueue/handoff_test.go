package waitqueue

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// hot is a process that hands a key over again and again.
type hot struct {
	*process
	claim   *node.Claim
	waiters []*Waiter
}

// heat returns a process that holds the key, and in which that many waiters wait for it.
func (w *world) heat(handoffs, waiters int) *hot {
	h := &hot{process: w.process("hot", handoffs), claim: node.NewClaim([]string{"k"}, "hot", len(w.stores))}
	for _, s := range w.stores {
		s.Set("k", h.claim.Token, time.Hour)
	}
	h.Hold("k", h.claim)
	for range waiters {
		h.waiters = append(h.waiters, h.enter("k", time.Hour, node.ClaimOptions{}))
	}
	return h
}

// hand hands the key over once, and the previous holder waits again. It reports false if it
// is the turn of other processes.
func (h *hot) hand(left time.Duration) bool {
	w := h.Next("k", h.claim, left)
	if w == nil {
		return false
	}
	w.Pass(Grant{Claim: h.claim, Until: 1 << 60, Handed: true})
	<-w.Grant()
	h.waiters = append(h.waiters[1:], h.enter("k", time.Hour, node.ClaimOptions{}))
	return true
}

// end gives other processes their turn, and ends all waits.
func (h *hot) end() {
	h.Released("k", h.claim)
	h.world.release("k")
	for _, w := range h.waiters {
		w.Leave()
	}
}

// count counts the commands to all nodes from now on, by the kind of the first in their
// pipeline.
func (w *world) count() func(memnode.Op) int64 {
	counts := map[memnode.Op]*atomic.Int64{memnode.Look: {}, memnode.Join: {}, memnode.Release: {}}
	for _, s := range w.stores {
		s.Faults(func(op memnode.Op, commands int) memnode.Fault {
			counts[op].Add(int64(commands))
			return memnode.Fault{}
		})
	}
	return func(op memnode.Op) int64 { return counts[op].Load() }
}

func TestWhileNoOtherProcessWaitsThereAreNoTurns(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(4, 2)
		calls := w.count()
		for range 1000 {
			require.True(t, h.hand(time.Hour))
		}
		synctest.Wait()
		require.Zero(t, calls(memnode.Join))
		require.Zero(t, calls(memnode.Release))
		require.EqualValues(t, 3*(1000/4-1), calls(memnode.Look), "one question per batch")
		time.Sleep(batchTime)
		require.True(t, h.hand(time.Hour), "a batch that has lasted too long ends in the same way")
		h.end()
	})
}

// However many batches there were, and whenever the other process joined: before a question,
// after it, or while it was under way.
func TestAnotherProcessHasItsTurnWithinABatch(t *testing.T) {
	const handoffs = 4
	for _, n := range []int{1, 2, 3, 5} {
		for joins := range 3 * handoffs {
			t.Run(fmt.Sprintf("nodes=%d/after=%d", n, joins), func(t *testing.T) {
				run(t, n, func(t *testing.T, w *world) {
					h, other := w.heat(handoffs, 2), w.process("other", 0)
					for _, s := range w.stores {
						s.Faults(func(op memnode.Op, _ int) memnode.Fault {
							return memnode.Fault{Request: 300 * time.Microsecond, Reply: 300 * time.Microsecond}
						})
					}
					joined := time.Now().Add(time.Duration(joins)*ms + 50*time.Microsecond)
					waiting := make(chan *Waiter, 1)
					time.AfterFunc(time.Until(joined), func() { waiting <- other.enter("k", ttl, node.ClaimOptions{}) })
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

// Where holds are long, a batch ends after its time, which counts from before the question:
// the other process may have joined before a late answer.
func TestAnotherProcessHasItsTurnInTime(t *testing.T) {
	const hold, late = 10 * ms, 40 * ms
	for after := time.Duration(0); after < 300*ms; after += 7 * ms {
		run(t, 3, func(t *testing.T, w *world) {
			h, other := w.heat(1000, 2), w.process("other", 0)
			for _, s := range w.stores {
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					if op == memnode.Look {
						return memnode.Fault{Reply: late}
					}
					return memnode.Fault{}
				})
			}
			joined := time.Now().Add(after)
			waiting := make(chan *Waiter, 1)
			time.AfterFunc(after, func() { waiting <- other.enter("k", ttl, node.ClaimOptions{}) })
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

// It stands in the queues of a majority only: it cannot reach the remaining node.
func TestAnotherProcessIsSeenByAQuorum(t *testing.T) {
	for away := range 3 {
		for silent := range 3 {
			run(t, 3, func(t *testing.T, w *world) {
				h, other := w.heat(2, 2), w.process("other", 0)
				w.cut((away+1)%3, (away+2)%3)
				waiter := other.enter("k", ttl, node.ClaimOptions{})
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

// If no quorum answers, other processes may wait, and a batch ends in time.
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

// Short holds end before they are extended, so that batches use validity up.
func TestABatchDoesNotGoOnWithALockThatNearlyEnds(t *testing.T) {
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

// While other processes wait, batches mostly end without a question. Once none waits, all
// end with one.
func TestQuestionsBecomeRareWhileOthersWait(t *testing.T) {
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
func TestAKeyThatIsLostDuringAQuestionIsNotHandedOver(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		h := w.heat(1, 2)
		require.True(t, h.hand(time.Hour))
		for _, s := range w.stores {
			s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: 10 * ms} })
		}
		time.AfterFunc(5*ms, func() {
			h.claim.End()
			h.Released("k", h.claim)
		})
		require.False(t, h.hand(time.Hour))
		require.NotNil(t, h.local["k"].candidate, "the waiters have a candidate")
		h.end()
	})
}

func TestAKeyIsHandedOverOnlySoOften(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 2)
		held := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", held)
		first, second, third := p.enter("k", ttl, node.ClaimOptions{}), p.enter("k", ttl, node.ClaimOptions{}), p.enter("k", ttl, node.ClaimOptions{})
		for _, waiter := range []*Waiter{first, second} {
			require.Same(t, waiter, p.Next("k", held, ttl))
			waiter.Pass(Grant{Claim: held, Until: 1 << 60, Handed: true})
			require.Same(t, held, p.got(waiter, ms).Claim)
		}
		other := w.process("other", 0)
		for _, s := range w.stores {
			s.Set("k", held.Token, time.Hour)
		}
		elsewhere := other.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(ms)
		require.Nil(t, p.Next("k", held, ttl), "another process has its turn")
		w.release("k")
		other.Return("k", other.got(elsewhere, time.Second))
		p.Return("k", p.got(third, time.Second))

		p.Hold("k", held)
		short := p.enter("k", time.Second, node.ClaimOptions{})
		require.Nil(t, p.Next("k", held, ttl), "the keys would stay for a minute")
		p.Return("k", p.got(short, time.Second))
	})
}

// A waiter that leaves after it was granted the key passes the grant on.
func TestAGrantThatIsLeftGoesToTheNextWaiterThatCanUseIt(t *testing.T) {
	for name, c := range map[string]struct {
		ttl     time.Duration
		options node.ClaimOptions
		late    time.Duration // when the first waiter leaves
		passes  bool
	}{
		"the same":                              {ttl: ttl, passes: true},
		"a shorter ttl":                         {ttl: usualWindow / 2},
		"other metadata":                        {ttl: ttl, options: node.ClaimOptions{Metadata: "another"}},
		"a fence":                               {ttl: ttl, options: node.ClaimOptions{Floor: 1}},
		"too little left":                       {ttl: ttl, late: usualWindow - 20*ms},
		"enough is left":                        {ttl: ttl, late: usualWindow / 2, passes: true},
		"nothing is left":                       {ttl: ttl, late: usualWindow + 10*ms},
		"a ttl that is as long as what is left": {ttl: usualWindow, passes: true},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				p, other := w.process("p", 0), w.process("other", 0)
				p.floor = func() int64 { return 1 }
				first := p.enter("k", ttl, node.ClaimOptions{})
				second := p.enter("k", c.ttl, c.options)
				time.Sleep(100 * ms)
				elsewhere := other.enter("k", ttl, node.ClaimOptions{})
				time.Sleep(100 * ms)
				token := p.candidate("k").claim.Token
				w.release("k")
				synctest.Wait()
				require.Len(t, first.Grant(), 1)
				time.Sleep(c.late)
				first.Leave()
				synctest.Wait()
				if c.passes {
					require.Len(t, second.Grant(), 1, "at once")
					g := <-second.Grant()
					require.Equal(t, token, g.Claim.Token)
					require.Greater(t, g.Until, p.clock.Now())
					require.False(t, g.Handed)
					p.Return("k", g)
				} else {
					require.Empty(t, second.Grant())
					require.Len(t, elsewhere.Grant(), 1, "the other process has its turn")
				}
				other.Return("k", other.got(elsewhere, time.Second))
				if !c.passes {
					p.Return("k", p.got(second, time.Second))
				}
				time.Sleep(ms)
				require.Equal(t, make([]string, 3), w.owners("k"))
				require.Empty(t, p.local)
			})
		})
	}
}
