package waiting

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// patient is as long as votes may make no quorum.
const patient = usualWindow * 5 / 4

// scatter has the key held by a different owner on each node from the second on.
func (w *world) scatter(key string) {
	for i, s := range w.stores[1:] {
		s.Set(key, fmt.Sprint("owner ", i+1), time.Hour)
	}
}

// tokens are those with which the process has joined a node, in order, and when it did so
// first and last.
func (p *process) tokens(i int) (tokens []string, first, last []time.Time) {
	for _, j := range p.joins(i) {
		if n := len(tokens); n > 0 && tokens[n-1] == j.token {
			last[n-1] = j.at
			continue
		}
		tokens, first, last = append(tokens, j.token), append(first, j.at), append(last, j.at)
	}
	return tokens, first, last
}

// candidate is what the process has in the queues.
func (p *process) candidate(key string) *candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[key].candidate
}

func TestVotesThatMakeNoQuorumAreGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		isolate func(w *world, p *process)
		most    time.Duration // that it keeps its vote
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
				waiter := p.enter("k", ttl, node.Terms{})
				synctest.Wait()
				vote := w.owners("k")[0]
				require.NotEmpty(t, vote)
				time.Sleep(c.most)
				synctest.Wait()
				require.NotEqual(t, vote, w.owners("k")[0], "it has given it up, and may be back already")
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

// A rest is random, below a bound that doubles up to 16 windows, and that a win resets.
func TestRestsGrowUntilAWin(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.scatter("k")
		p := w.process("p", 0)
		waiter, next := p.enter("k", ttl, node.Terms{}), p.enter("k", ttl, node.Terms{})
		time.Sleep(30 * time.Minute)
		tokens, first, last := p.tokens(0)
		require.Greater(t, len(tokens), 200)
		bound, longest := usualWindow, time.Duration(0)
		for i := 1; i < len(tokens); i++ {
			// It gives up within a heartbeat of its last call.
			rest := first[i].Sub(last[i-1])
			require.LessOrEqual(t, rest, bound+usualWindow/2, "rest %d", i)
			longest = max(longest, rest)
			bound = min(2*bound, longestRest*usualWindow)
		}
		require.Greater(t, longest, (longestRest-2)*usualWindow)
		p.mu.Lock()
		require.Equal(t, longestRest*usualWindow, p.lines["k"].rest)
		p.mu.Unlock()
		for _, s := range w.stores[1:] {
			s.Wipe()
		}
		g := p.got(waiter, longestRest*usualWindow)
		p.mu.Lock()
		require.Zero(t, p.lines["k"].rest)
		p.mu.Unlock()
		p.Return("k", g)
		p.Return("k", p.got(next, time.Second))
	})
}

// It comes back with another token, and as old as it is.
func TestACandidateThatRestsKeepsItsPlace(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.scatter("k")
		elder, younger := w.process("elder", 0), w.process("younger", 0)
		first := elder.enter("k", ttl, node.Terms{})
		time.Sleep(5 * time.Second)
		second := younger.enter("k", ttl, node.Terms{})
		time.Sleep(5 * time.Second)
		w.release("k", 0)
		for rests := false; !rests; time.Sleep(ms) {
			elder.mu.Lock()
			rests = elder.lines["k"].candidate.phase == resting
			elder.mu.Unlock()
		}
		w.stores[0].Set("k", "holder", time.Hour)
		time.Sleep(3 * usualWindow) // it is back
		tokens, _, _ := elder.tokens(1)
		require.Len(t, tokens, 2)
		tokens, _, _ = younger.tokens(1)
		require.Len(t, tokens, 1, "it has stayed")
		w.release("k")
		elder.Return("k", elder.got(first, 10*ms))
		younger.Return("k", younger.got(second, 10*ms))
	})
}

// A waiter to which the nodes answer late has votes that are void when it learns of them. It
// keeps no other from the key by renewing them, whether a longer window helps it or not.
func TestVoidVotesAreGivenUp(t *testing.T) {
	for _, c := range []struct{ late, ttl time.Duration }{{600 * ms, ttl}, {2 * time.Second, ttl}, {2 * time.Second, time.Second}} {
		t.Run(fmt.Sprint("late=", c.late, ", ttl=", c.ttl), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				slow, healthy := w.process("slow", 0), w.process("healthy", 0)
				slow.change(func(l *link) { l.back, l.late = c.late, c.late })
				waiter := slow.enter("k", c.ttl, node.Terms{})
				time.Sleep(100 * ms)
				w.release("k")
				other := healthy.enter("k", ttl, node.Terms{})
				began := time.Now()
				for {
					select {
					case g := <-waiter.Granted():
						require.Greater(t, g.Until, slow.clock.Now())
						slow.Return("k", g)
						continue
					case g := <-other.Granted():
						healthy.Return("k", g)
					case <-time.After(6 * time.Second):
						require.FailNow(t, "not granted", "%q", w.owners("k"))
					}
					break
				}
				t.Logf("the healthy one has it after %v", time.Since(began))
				if tooShort := c.ttl < c.late; tooShort {
					time.Sleep(30 * time.Second)
					require.ErrorContains(t, waiter.Far(), "use a longer ttl")
				}
				waiter.Leave()
			})
		})
	}
}

// Where grants take longer than a window, it grows; but each token has only one: a node
// keeps the number of the call that was made last, and the window of the one that came last.
func TestTheWindowGrowsUnderANewTokenOnly(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 600 * ms })
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(100 * ms)
		w.release("k")
		p.Return("k", p.got(waiter, 10*time.Second))
		windows := p.oneWindowPerToken()
		require.Greater(t, len(windows), 1)
		require.Greater(t, windows[len(windows)-1], windows[0])
	})
	run(t, 3, func(t *testing.T, w *world) { // whatever happens
		random := rand.New(rand.NewPCG(1, 2))
		var processes []*process
		ends := time.Now().Add(2 * time.Minute)
		done := make(chan struct{})
		for i := range 4 {
			p := w.process(fmt.Sprint("p", i), 0)
			processes = append(processes, p)
			go func() {
				for time.Now().Before(ends) {
					waiter, err := p.Enter("k", 30*time.Second, node.Terms{})
					if err != nil {
						time.Sleep(100 * ms)
						continue
					}
					select {
					case g := <-waiter.Granted():
						time.Sleep(50 * ms)
						p.Return("k", g)
					case <-time.After(10 * time.Second):
						waiter.Leave()
					}
				}
				done <- struct{}{}
			}()
		}
		for time.Now().Before(ends) {
			p := processes[random.IntN(len(processes))]
			p.change(func(l *link) {
				l.trip = time.Duration(random.IntN(1000)) * ms / 2
				if random.IntN(2) == 0 {
					l.trip = ms
				}
				l.cut, l.deaf = random.IntN(5) == 0, random.IntN(5) == 0
			}, random.IntN(3))
			time.Sleep(time.Duration(random.IntN(1000)) * ms)
		}
		for _, p := range processes {
			p.change(func(l *link) { l.cut, l.deaf, l.trip = false, false, ms })
		}
		for range processes {
			<-done
		}
		different := make(map[time.Duration]bool)
		for _, p := range processes {
			for _, window := range p.oneWindowPerToken() {
				different[window] = true
			}
		}
		require.Greater(t, len(different), 3)
	})
}

// oneWindowPerToken checks all joins of a process, and returns their windows, by token in
// the order of their first.
func (p *process) oneWindowPerToken() (windows []time.Duration) {
	byToken := make(map[string]time.Duration)
	nonces := make(map[string]string) // for which claim, and node
	for i := range p.links {
		numbers := make(map[string]bool)
		for _, j := range p.joins(i) {
			window, known := byToken[j.token]
			if !known {
				windows, window = append(windows, j.Window), j.Window
				byToken[j.token] = window
			}
			require.Equal(p.world.t, window, j.Window, "two windows under one token")
			number := fmt.Sprint(j.token, j.Number)
			require.False(p.world.t, numbers[number], "two calls of one number")
			numbers[number] = true
			of := fmt.Sprint(j.token, " on node ", i)
			if before, used := nonces[j.nonce]; used {
				require.Equal(p.world.t, before, of, "a nonce is of one claim and node")
			}
			nonces[j.nonce] = of
		}
	}
	return windows
}

// Calls of which nothing is heard would renew grants of which nothing is heard.
func TestANodeThatOwesAnAnswerIsNotAskedAgain(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 2 * time.Second }, 2)
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(30 * time.Second)
		t.Logf("joins: %d of a near node, %d of one that takes 2 s", len(p.joins(0)), len(p.joins(2)))
		require.Greater(t, len(p.joins(0)), 115)
		require.Less(t, len(p.joins(2)), 50)
		require.Greater(t, len(p.joins(2)), 15)
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// A call that was never made of a node is no call that it has not answered, however many
// were made of the others since.
func TestANodeThatWasNotAskedOwesNothing(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.Terms{})
		c := p.candidate("k")
		for range 10 * remembered {
			synctest.Wait()
			p.mu.Lock()
			c.join(0)
			p.unlock()
		}
		before := len(p.joins(2))
		time.Sleep(10 * time.Second)
		require.Greater(t, len(p.joins(2)), before+35)
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// However many processes wait, and whatever the nodes do meanwhile, all of them join on.
func TestACrowdJoinsOn(t *testing.T) {
	const crowd = 120
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		var processes []*process
		for i := range crowd {
			p := w.process(fmt.Sprint("p", i), 0)
			p.change(func(l *link) { l.trip = 20 * ms })
			processes = append(processes, p)
		}
		waiters := w.enter(processes...)
		joinsOn := func(nodes ...int) {
			t.Helper()
			time.Sleep(longestHeartbeat + time.Second)
			for _, p := range processes {
				for _, i := range nodes {
					joins := p.joins(i)
					require.Less(t, time.Since(joins[len(joins)-1].at), longestHeartbeat+500*ms, "%s, node %d", p.name, i)
				}
			}
		}
		joinsOn(0, 1, 2)
		w.stores[1].Pause()
		w.stores[2].Pause()
		time.Sleep(10 * time.Second)
		joinsOn(0) // the one that answers
		w.stores[1].Resume()
		w.stores[2].Resume()
		joinsOn(0, 1, 2)
		w.stores[1].Down()
		w.stores[2].Down()
		time.Sleep(10 * time.Second)
		joinsOn(0)
		w.stores[1].Up()
		w.stores[2].Up()
		time.Sleep(time.Second)
		joinsOn(0, 1, 2)
		for _, waiter := range waiters {
			waiter.Leave()
		}
	})
}

// A grant that would be over before the lock can be extended is of no use to anybody.
func TestATTLForWhichTheNodesAreTooFarHasNoPlace(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 30 * ms })
		early := p.enter("k", 60*ms, node.Terms{}) // nothing is known of the nodes yet
		long := p.enter("k", ttl, node.Terms{})
		time.Sleep(200 * ms)
		_, err := p.Enter("k", 60*ms, node.Terms{})
		require.ErrorContains(t, err, "not queued: a grant for the ttl 60ms would be valid for 57.4ms, and three round trips to the nodes take 90ms: use a longer ttl")
		require.True(t, p.Asks("k")) // looks whether the first is still to be asked for
		require.ErrorContains(t, early.Far(), "use a longer ttl")
		w.release("k")
		p.Return("k", p.got(long, 2*time.Second))
		early.Leave()
		require.NoError(t, long.Far())
		require.Empty(t, p.lines)
	})
}

// Nothing joins a node that seems to be too far, and so nothing shows that it is near again.
func TestANodeThatHasHungIsNotTakenForFarForLong(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 0)
		w.stores[1].Pause()
		w.stores[2].Pause()
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(2 * time.Minute)
		w.stores[1].Resume()
		w.stores[2].Resume()
		time.Sleep(forgotten + longestRest*usualWindow)
		waiter.Leave()
		again, err := p.Enter("k", ttl, node.Terms{})
		require.NoError(t, err)
		p.Return("k", p.got(again, time.Second))
	})
}

// Only what a node says to the claim it was given a nonce for, and of a call that was made,
// is a vote.
func TestAPushThatANodeCannotHaveMadeIsNoVote(t *testing.T) {
	for _, floor := range []int64{0, 1000} {
		t.Run(fmt.Sprint("floor=", floor), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				p := w.process("p", 0)
				p.floor = func() int64 { return floor + 1 }
				waiter := p.enter("k", ttl, node.Terms{Floor: floor})
				time.Sleep(1100 * ms) // between two joins
				c := p.candidate("k")
				p.mu.Lock()
				number, token := c.number, c.claim.Token
				nonces := []string{c.seats[0].nonce, c.seats[1].nonce, c.seats[2].nonce}
				p.mu.Unlock()
				right := int64(0)
				if floor > 0 {
					right = floor + 5
				}
				for name, forge := range map[string]func(i int, push *node.Push){
					"no nonce":                func(_ int, push *node.Push) { push.Nonce = "" },
					"the nonce of another":    func(i int, push *node.Push) { push.Nonce = nonces[(i+1)%3] },
					"a call that is to come":  func(_ int, push *node.Push) { push.Number++ },
					"a number below 0":        func(_ int, push *node.Push) { push.Number = -1 },
					"a fence that is none":    func(_ int, push *node.Push) { push.Fence = node.MaxFence },
					"a fence below 0":         func(_ int, push *node.Push) { push.Fence = -1 },
					"a fence below the floor": func(_ int, push *node.Push) { push.Fence = 500 },
					"the token of another":    func(_ int, push *node.Push) { push.Token += "x" },
				} {
					for i := range w.stores {
						push := node.Push{Token: token, Nonce: nonces[i], Number: number, Fence: right}
						forge(i, &push)
						p.heard(i, push)
					}
					require.Empty(t, waiter.Granted(), name)
					p.mu.Lock()
					for _, s := range c.seats {
						require.Zero(t, s.vote, name)
					}
					p.mu.Unlock()
				}
				for i := range 2 {
					p.heard(i, node.Push{Token: token, Nonce: nonces[i], Number: number, Fence: right})
				}
				p.Return("k", p.got(waiter, ms))
			})
		})
	}
}

// What a claim that has been given up was granted is no vote of the one that follows.
func TestAPushOfACallBeforeTheClaimsFirstIsNoVote(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(time.Second)
		c := p.candidate("k")
		p.mu.Lock()
		p.releaseLater(c.renew())
		c.join(everyNode)
		before, token, nonces := c.base, c.claim.Token, []string{c.seats[0].nonce, c.seats[1].nonce, c.seats[2].nonce}
		p.unlock()
		require.Positive(t, before)
		for i := range w.stores {
			p.heard(i, node.Push{Token: token, Nonce: nonces[i], Number: before})
		}
		require.Empty(t, waiter.Granted())
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// The node says so to the second in its queue, whose grant would count from its last join.
func TestOneThatIsToldToJoinAgainDoes(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		var processes []*process
		for i := range 12 {
			processes = append(processes, w.process(fmt.Sprint("p", i), 0))
		}
		waiters := w.enter(processes...)
		time.Sleep(20 * time.Second)
		last := processes[11]
		c := last.candidate("k")
		for { // its last join is old enough, and its next is not due
			last.mu.Lock()
			old := last.clock.Now().Sub(c.seats[0].at)
			last.mu.Unlock()
			if old > usualWindow && old < 2*usualWindow {
				break
			}
			time.Sleep(10 * ms)
		}
		again := func(i int) {
			last.mu.Lock()
			push := node.Push{Token: c.claim.Token, Nonce: c.seats[i].nonce}
			last.mu.Unlock()
			last.heard(i, push)
			synctest.Wait()
		}
		count := func() (n []int) { return []int{len(last.joins(0)), len(last.joins(1)), len(last.joins(2))} }
		before := count()
		again(1)
		require.Equal(t, []int{before[0], before[1] + 1, before[2]}, count(), "that node alone")
		time.Sleep(usualWindow/2 - ms)
		again(1)
		require.Equal(t, []int{before[0], before[1] + 1, before[2]}, count(), "it has just joined")
		for _, waiter := range waiters {
			waiter.Leave()
		}
	})
}

// queueOf has so many processes wait for a held key, in order.
func (w *world) queueOf(n int) []*process {
	w.hold("k")
	var processes []*process
	for i := range n {
		processes = append(processes, w.process(fmt.Sprint("p", i), 0))
	}
	w.enter(processes...)
	return processes
}

// Those that are first join often, as a vote counts from the last join; the others are told
// when they are among them.
func TestTheHeartbeatGrowsWithThePlaceInTheQueue(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		processes := w.queueOf(50)
		time.Sleep(20 * time.Second) // all know their place
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
			require.Equal(t, pause+usualWindow, joins[len(joins)-1].Lease, "rank %d: it loses its place soon after it has died", rank)
		}
	})
}

// Only the first two wake up for a holder that may have died, and then the key is taken.
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

// One that leaves when the key has been granted passes it on.
func TestAGrantThatIsLeftGoesToTheNextHereOfUseToIt(t *testing.T) {
	for name, c := range map[string]struct {
		ttl    time.Duration
		terms  node.Terms
		late   time.Duration // when the first leaves
		passes bool
	}{
		"the same":                              {ttl: ttl, passes: true},
		"a shorter ttl":                         {ttl: usualWindow / 2},
		"other metadata":                        {ttl: ttl, terms: node.Terms{Metadata: "another"}},
		"a fence":                               {ttl: ttl, terms: node.Terms{Floor: 1}},
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
				first := p.enter("k", ttl, node.Terms{})
				second := p.enter("k", c.ttl, c.terms)
				time.Sleep(100 * ms)
				elsewhere := other.enter("k", ttl, node.Terms{})
				time.Sleep(100 * ms)
				token := p.candidate("k").claim.Token
				w.release("k")
				synctest.Wait()
				require.Len(t, first.Granted(), 1)
				time.Sleep(c.late)
				first.Leave()
				synctest.Wait()
				if c.passes {
					require.Len(t, second.Granted(), 1, "at once")
					g := <-second.Granted()
					require.Equal(t, token, g.Claim.Token)
					require.Greater(t, g.Until, p.clock.Now())
					require.False(t, g.Handed)
					p.Return("k", g)
				} else {
					require.Empty(t, second.Granted())
					require.Len(t, elsewhere.Granted(), 1, "the other process has its turn")
				}
				other.Return("k", other.got(elsewhere, time.Second))
				if !c.passes {
					p.Return("k", p.got(second, time.Second))
				}
				time.Sleep(ms)
				require.Equal(t, make([]string, 3), w.owners("k"))
				require.Empty(t, p.lines)
			})
		})
	}
}

// The candidate was made for the first, who leaves.
func TestAWaiterGetsACandidateOfItsOwnTerms(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.floor = func() int64 { return 1000 }
		first, second := p.enter("k", ttl, node.Terms{}), p.enter("k", ttl, node.Terms{Floor: 1000})
		time.Sleep(ms)
		first.Leave()
		w.release("k")
		g := p.got(second, 10*ms)
		require.True(t, g.Claim.Fenced())
		require.Len(t, g.Fences, 3)
		p.Return("k", g)
	})
}
