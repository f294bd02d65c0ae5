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

// split grants the key to two candidates at once, each alone in the queues of one half of
// four nodes.
func (w *world) split(apart time.Duration) (one, other *process, first, second *Waiter) {
	w.hold("k")
	one, other = w.process("one", 0), w.process("other", 0)
	w.cut(0, 1)
	first = one.enter("k", ttl, node.ClaimOptions{})
	synctest.Wait()
	time.Sleep(apart)
	w.cut(2, 3)
	second = other.enter("k", ttl, node.ClaimOptions{})
	synctest.Wait()
	w.heal()
	w.release("k")
	return one, other, first, second
}

func TestSplitVotesEnd(t *testing.T) {
	for _, apart := range []time.Duration{0, ms, 100 * ms} {
		t.Run(fmt.Sprint("apart=", apart), func(t *testing.T) {
			run(t, 4, func(t *testing.T, w *world) {
				one, other, first, second := w.split(apart)
				began := time.Now()
				var g Grant
				winner, loser, next := one, other, second
				select {
				case g = <-first.Grant():
				case g = <-second.Grant():
					winner, loser, next = other, one, first
				case <-time.After(time.Minute):
					require.FailNow(t, "still split", "%q", w.owners("k"))
				}
				t.Logf("%s has it after %v", winner.name, time.Since(began))
				require.Less(t, time.Since(began), 100*ms)
				winner.Return("k", g)
				loser.Return("k", loser.got(next, 10*ms))
			})
		})
	}
}

// After a lost push the candidate asks again: after a few ms if another push has come, or
// else with the heartbeat.
func TestLostPushesCostLittle(t *testing.T) {
	for lost, most := range map[int]time.Duration{1: 2 * ms, 2: 20 * ms, 3: usualWindow/2 + 2*ms} {
		t.Run(fmt.Sprint("lost=", lost), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				p := w.process("p", 0)
				waiter := p.enter("k", ttl, node.ClaimOptions{})
				time.Sleep(ms)
				for _, s := range w.stores[:lost] {
					s.Pushes(func() (time.Duration, bool) { return 0, true })
				}
				w.release("k")
				began := time.Now()
				p.Return("k", p.got(waiter, time.Second))
				require.LessOrEqual(t, time.Since(began), most)
			})
		})
	}
}

// A holder goes on with the votes of a majority. A candidate leaves it the rest, and asks no
// more often than by its heartbeat.
func TestAStrayVoteCostsLittle(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, b)
		w.release("k")
		held := a.got(waiters[0], ms)
		for _, s := range w.stores[:2] {
			s.Set("k", held.Claim.Token, time.Hour)
		}
		w.stores[2].Wipe()
		var calls atomic.Int64
		for _, s := range w.stores {
			s.Faults(func(memnode.Op, int) memnode.Fault { calls.Add(1); return memnode.Fault{} })
		}
		time.Sleep(10 * time.Second)
		t.Logf("%d calls in 10 s", calls.Load())
		require.Less(t, calls.Load(), int64(10*3*5))
		require.Equal(t, []string{held.Claim.Token, held.Claim.Token, ""}, w.owners("k"))
		a.Return("k", held)
		began := time.Now()
		b.Return("k", b.got(waiters[1], time.Second))
		require.Less(t, time.Since(began), 2*ms)

		// A lock that expires is not released: no node pushes.
		for _, s := range w.stores[:2] {
			s.Set("k", "dies", 100*ms)
		}
		w.stores[2].Wipe()
		waiter := b.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(50 * ms)
		require.Equal(t, []string{"dies", "dies", ""}, w.owners("k"))
		b.Return("k", b.got(waiter, 52*ms+usualWindow/2))
	})
}

// patient bounds the time for which votes may make no quorum.
const patient = usualWindow * 5 / 4

func TestVotesThatMakeNoQuorumAreGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		isolate func(w *world, p *process)
		most    time.Duration // for which it keeps its vote
	}{
		"the other nodes are held":           {func(w *world, _ *process) { w.scatter("k") }, patient + 20*ms},
		"the other nodes cannot be reached":  {func(_ *world, p *process) { p.change(func(l *link) { l.cut = true }, 1, 2) }, 50 * ms},
		"the other nodes say nothing":        {func(w *world, _ *process) { w.stores[1].Pause(); w.stores[2].Pause() }, patient + 20*ms},
		"the other nodes refuse and are cut": {func(w *world, p *process) { w.scatter("k"); p.change(func(l *link) { l.cut = true }, 1) }, patient + 20*ms},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				p := w.process("p", 0)
				c.isolate(w, p)
				waiter := p.enter("k", ttl, node.ClaimOptions{})
				synctest.Wait()
				vote := w.owners("k")[0]
				require.NotEmpty(t, vote)
				time.Sleep(c.most)
				synctest.Wait()
				require.NotEqual(t, vote, w.owners("k")[0], "it has given the vote up, and may be back already")
				busy := 0
				for range 12_000 { // a minute
					time.Sleep(5 * ms)
					if _, held := w.stores[0].Get("k"); held {
						busy++
					}
				}
				t.Logf("it has a vote for %d ms of a minute", 5*busy)
				require.Less(t, busy, 4000)
				if name == "the other nodes say nothing" { // they seem far for a while
					waiter.Leave()
					return
				}
				p.change(func(l *link) { l.cut = false })
				w.stores[1].Wipe()
				w.stores[2].Wipe()
				p.Return("k", p.got(waiter, longestRest*usualWindow+2*time.Second))
			})
		})
	}
}

// A rest is random. Its bound doubles up to 16 windows, and a win resets it.
func TestRestsGrowUntilAWin(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.scatter("k")
		p := w.process("p", 0)
		waiter, next := p.enter("k", ttl, node.ClaimOptions{}), p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(30 * time.Minute)
		tokens, first, last := p.tokens(0)
		require.Greater(t, len(tokens), 200)
		bound, longest := usualWindow, time.Duration(0)
		for i := 1; i < len(tokens); i++ {
			// The candidate gives up within a heartbeat of its last join.
			rest := first[i].Sub(last[i-1])
			require.LessOrEqual(t, rest, bound+usualWindow/2, "rest %d", i)
			longest = max(longest, rest)
			bound = min(2*bound, longestRest*usualWindow)
		}
		require.Greater(t, longest, (longestRest-2)*usualWindow)
		p.mu.Lock()
		require.Equal(t, longestRest*usualWindow, p.local["k"].restBound)
		p.mu.Unlock()
		for _, s := range w.stores[1:] {
			s.Wipe()
		}
		g := p.got(waiter, longestRest*usualWindow)
		p.mu.Lock()
		require.Zero(t, p.local["k"].restBound)
		p.mu.Unlock()
		p.Return("k", g)
		p.Return("k", p.got(next, time.Second))
	})
}

// It comes back with another token of the same age.
func TestACandidateThatRestsKeepsItsPlace(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.scatter("k")
		elder, younger := w.process("elder", 0), w.process("younger", 0)
		first := elder.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(5 * time.Second)
		second := younger.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(5 * time.Second)
		w.release("k", 0)
		for rests := false; !rests; time.Sleep(ms) {
			elder.mu.Lock()
			rests = elder.local["k"].candidate.phase == resting
			elder.mu.Unlock()
		}
		w.stores[0].Set("k", "holder", time.Hour)
		time.Sleep(3 * usualWindow) // it is back
		tokens, _, _ := elder.tokens(1)
		require.Len(t, tokens, 2)
		tokens, _, _ = younger.tokens(1)
		require.Len(t, tokens, 1, "it has not rested")
		w.release("k")
		elder.Return("k", elder.got(first, 10*ms))
		younger.Return("k", younger.got(second, 10*ms))
	})
}

// If the nodes answer a waiter late, its votes are void when it learns of them. It must not
// keep other processes from the key by renewing them, whether a longer window helps or not.
func TestVoidVotesAreGivenUp(t *testing.T) {
	for _, c := range []struct{ late, ttl time.Duration }{{600 * ms, ttl}, {2 * time.Second, ttl}, {2 * time.Second, time.Second}} {
		t.Run(fmt.Sprint("late=", c.late, ", ttl=", c.ttl), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				slow, healthy := w.process("slow", 0), w.process("healthy", 0)
				slow.change(func(l *link) { l.back, l.late = c.late, c.late })
				waiter := slow.enter("k", c.ttl, node.ClaimOptions{})
				time.Sleep(100 * ms)
				w.release("k")
				other := healthy.enter("k", ttl, node.ClaimOptions{})
				began := time.Now()
				for {
					select {
					case g := <-waiter.Grant():
						require.Greater(t, g.Until, slow.clock.Now())
						slow.Return("k", g)
						continue
					case g := <-other.Grant():
						healthy.Return("k", g)
					case <-time.After(6 * time.Second):
						require.FailNow(t, "not granted", "%q", w.owners("k"))
					}
					break
				}
				t.Logf("the healthy process has it after %v", time.Since(began))
				if tooShort := c.ttl < c.late; tooShort {
					time.Sleep(30 * time.Second)
					require.ErrorContains(t, waiter.Far(), "use a longer ttl")
				}
				waiter.Leave()
			})
		})
	}
}

// queueOf returns n processes that wait for a held key, in order.
func (w *world) queueOf(n int) []*process {
	w.hold("k")
	var processes []*process
	for i := range n {
		processes = append(processes, w.process(fmt.Sprint("p", i), 0))
	}
	w.enter(processes...)
	return processes
}

// The first candidates in a queue join often, since a vote counts from the last join. A node
// tells a candidate that becomes one of them.
func TestTheHeartbeatGrowsWithThePlaceInTheQueue(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		processes := w.queueOf(50)
		time.Sleep(20 * time.Second) // all know their rank
		before := make([]int, len(processes))
		for i, p := range processes {
			before[i] = len(p.joins(1))
		}
		const lasts = time.Minute
		time.Sleep(lasts)
		for rank, p := range processes {
			pause := usualWindow / 2
			if rank > 2 {
				pause = min(pause*time.Duration(rank)/2, longestHeartbeat)
			}
			joins := p.joins(1)
			require.InDelta(t, float64(lasts/pause), len(joins)-before[rank], 2, "rank %d", rank)
			require.Equal(t, pause+usualWindow, joins[len(joins)-1].Lease, "rank %d: a candidate that dies soon loses its place", rank)
		}
	})
}

// If the holder may have died, only the first two candidates wake up when the key expires,
// and one of them takes it.
func TestTheKeyOfADeadHolderIsTakenByTheFirstAndWakesFewOthers(t *testing.T) {
	const n = 40
	run(t, 3, func(t *testing.T, w *world) {
		for _, s := range w.stores {
			s.Set("k", "dead", 30*time.Second)
		}
		dies := time.Now().Add(30 * time.Second)
		var processes []*process
		for i := range n {
			processes = append(processes, w.process(fmt.Sprint("p", i), 0))
		}
		waiters := w.enter(processes...)
		g := processes[0].got(waiters[0], time.Minute)
		require.WithinDuration(t, dies, time.Now(), 10*ms)
		woken := 0
		for _, p := range processes {
			for _, j := range p.joins(0) {
				if !j.at.Before(dies) && j.at.Before(dies.Add(5*ms)) {
					woken++
				}
			}
		}
		t.Logf("%d of %d join when the key expires", woken, n)
		require.LessOrEqual(t, woken, 4)
		for _, waiter := range waiters[1:] {
			waiter.Leave()
		}
		processes[0].Return("k", g)
	})
}
