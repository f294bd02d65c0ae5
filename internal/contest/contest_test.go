package contest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// permutations are all orders of 0, …, n-1.
func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return all
}

// each has all contenders try, each so much later than the one before.
func (w *world) each(apart time.Duration) []result {
	results := make([]result, len(w.contenders))
	var all sync.WaitGroup
	for i, c := range w.contenders {
		all.Go(func() {
			time.Sleep(time.Duration(i) * apart)
			results[i] = c.try(w.t.Context(), nil)
		})
	}
	all.Wait()
	return results
}

// splitTrips are the trips of contender i of k that gets its share of the nodes first.
func splitTrips(i, k, nodes int) (trips []time.Duration) {
	for n := range nodes {
		trip := 10 * ms
		if n%k == i {
			trip = ms
		}
		trips = append(trips, trip)
	}
	return trips
}

func TestTheEldestOfContendersWithSplitVotesGoesOn(t *testing.T) {
	for _, c := range []struct{ contenders, nodes int }{{2, 2}, {2, 4}, {3, 3}, {3, 5}, {3, 6}} {
		for _, ages := range permutations(c.contenders) {
			for _, apart := range []time.Duration{0, ms} {
				t.Run(fmt.Sprint(c.contenders, " over ", c.nodes, " nodes, ages=", ages, ", apart=", apart), func(t *testing.T) {
					run(t, c.nodes, func(t *testing.T, w *world) {
						for i, age := range ages {
							w.contender(int64(age), splitTrips(i, c.contenders, c.nodes)...)
						}
						for i, r := range w.each(apart) {
							require.True(t, r.contested)
							won := quorum.Lost
							if ages[i] == 0 {
								won = quorum.Won
							}
							require.Equal(t, won, r.verdict, "the one of age %d", ages[i])
							require.Less(t, r.took, 100*ms)
						}
					})
				})
			}
		}
	}
}

// What waits in a queue has waited for longer than any attempt, and what has no age does
// not know the rule.
func TestAnOwnerThatIsNoAttemptIsOlder(t *testing.T) {
	mine := node.AttemptToken(age)
	for owner, is := range map[string]bool{
		node.CandidateToken(1 << 60): true, "foreign": true, node.Foreign: true,
		node.AttemptToken(age - 1): true, node.AttemptToken(age + 1): false,
	} {
		require.Equal(t, is, older(owner, mine), owner)
	}
}

// No further command is sent to anyone who was refused by a holder.
func TestARefusalByAHolderIsFinal(t *testing.T) {
	for name, owners := range map[string][]string{
		"all nodes":                 {"HOLDER", "HOLDER", "HOLDER"},
		"a quorum, and one is free": {"HOLDER", "HOLDER", ""},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				c := w.contender(age)
				for i, owner := range owners {
					if owner != "" {
						w.stores[i].Set("k", owner, time.Hour)
					}
				}
				r := c.try(t.Context(), nil)
				require.Equal(t, quorum.Lost, r.verdict)
				require.False(t, r.contested)
				require.Equal(t, ms, r.took, "a round trip")
				time.Sleep(time.Second)
				require.Equal(t, 3, c.commands(node.Acquire, node.Read))
			})
		})
	}
}

func TestVotesAreSplitIfAnyIsOursOrMayBeAndNoOwnerHasAQuorum(t *testing.T) {
	refused := func(owner string) quorum.Reply { return quorum.Reply{Vote: quorum.Refused, Owner: owner} }
	granted, failed := quorum.Reply{Vote: quorum.Granted}, quorum.Reply{Vote: quorum.Failed}
	for name, c := range map[string]struct {
		replies []quorum.Reply // Pending: it is still to come
		split   bool
	}{
		"each has one":     {[]quorum.Reply{granted, refused("A"), refused("B")}, true},
		"one may yet come": {[]quorum.Reply{{}, refused("A"), refused("B")}, true},
		"none is ours, and none is still to come": {[]quorum.Reply{refused("A"), refused("B"), refused("C")}, false},
		"a holder":                                 {[]quorum.Reply{granted, refused("A"), refused("A")}, false},
		"a holder, and one may yet come":           {[]quorum.Reply{{}, refused("A"), refused("A")}, false},
		"no node names the owner":                  {[]quorum.Reply{granted, refused(""), refused("")}, true},
		"one of two nodes of a holder is not seen": {[]quorum.Reply{granted, refused("A"), failed}, true},
		"half of the nodes are no quorum":          {[]quorum.Reply{granted, granted, refused("A"), refused("A")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			poll := quorum.NewPanel(len(c.replies)).Open()
			for i, r := range c.replies {
				if r.Vote != quorum.Awaited {
					poll.Cast(i, r)
				}
			}
			require.Equal(t, c.split, Split(poll))
			poll.Close()
		})
	}
}

// It is final too if a contest finds it.
func TestAContestEndsWhenAHolderIsFound(t *testing.T) {
	run(t, 5, func(t *testing.T, w *world) {
		c := w.contender(age, ms, ms, ms, ms, 15*ms)
		for i, owner := range []string{"HOLDER", "HOLDER", "ANOTHER", "", "HOLDER"} {
			if owner != "" {
				w.stores[i].Set("k", owner, time.Hour)
			}
		}
		r := c.try(t.Context(), nil)
		require.True(t, r.contested)
		require.Equal(t, quorum.Lost, r.verdict)
		require.Equal(t, 15*ms, r.took)
		require.Equal(t, "HOLDER", r.tally.Owner(), "the error can name it")
	})
}

// A process has died and left its key on one node of three.
func TestAGhostStopsNoContest(t *testing.T) {
	for _, ghost := range []string{"GHOST", node.AttemptToken(age - 1), node.CandidateToken(1)} {
		for _, ages := range permutations(2) {
			t.Run(fmt.Sprint(strings.TrimLeft(ghost, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), " ages=", ages), func(t *testing.T) {
				run(t, 3, func(t *testing.T, w *world) {
					w.stores[0].Set("k", ghost, time.Hour)
					for i, a := range ages {
						w.contender(age+int64(a), ms, splitTrips(i, 2, 2)[0], splitTrips(i, 2, 2)[1])
					}
					results := w.each(0)
					verdicts := make(map[quorum.Verdict]int)
					for _, r := range results {
						require.True(t, r.contested)
						verdicts[r.verdict]++
						require.Less(t, r.took, patience)
					}
					// One wins: as a rule the elder, but the younger if it notices first that the
					// ghost is dead, and has both free nodes before the elder asks for them again.
					require.Equal(t, map[quorum.Verdict]int{quorum.Won: 1, quorum.Lost: 1}, verdicts)
				})
			})
		}
	}
}

// A rival that was taken for dead and takes a node after all is yielded to again.
func TestAGhostThatTakesAnotherNodeIsAlive(t *testing.T) {
	run(t, 4, func(t *testing.T, w *world) { // with its two nodes neither has a quorum
		w.stores[0].Set("k", "SLOW", time.Hour)
		w.stores[1].Set("k", "ANOTHER", 60*ms)
		c := w.contender(age)
		done := make(chan result)
		go func() { done <- c.try(t.Context(), nil) }()
		time.Sleep(40 * ms) // it has yielded, and reads; two nodes are free
		require.Equal(t, []string{"SLOW", "ANOTHER", "", ""}, w.owners())
		for _, s := range w.stores[1:] {
			s.Set("k", "SLOW", time.Hour)
		}
		r := <-done
		require.Equal(t, quorum.Lost, r.verdict)
		require.Less(t, r.took, 100*ms)
	})
}

func TestTwoGhostsLeaveNoQuorum(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.stores[0].Set("k", "GHOST", time.Hour)
		w.stores[1].Set("k", "ANOTHER", time.Hour)
		c := w.contender(age)
		r := c.try(t.Context(), nil)
		require.True(t, r.contested)
		require.Equal(t, quorum.Unreachable, r.verdict, "no owner has refused it")
		require.InDelta(t, patience, r.took, float64(5*ms))
		require.Equal(t, quorum.Granted, r.tally.Replies[2].Vote)
		time.Sleep(ms)
		require.Equal(t, []string{"GHOST", "ANOTHER", ""}, w.owners())
	})
}

// A holder with a bare quorum is one, though a node of that cannot be seen.
func TestAHolderWithASilentNodeIsFoundSoon(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.stores[0].Set("k", "HOLDER", time.Hour)
		w.stores[1].Set("k", "HOLDER", time.Hour)
		c := w.contender(age)
		c.routes[1].faults = func() memnode.Fault { return memnode.Fault{NotRun: true} }
		r := c.try(t.Context(), nil)
		require.True(t, r.contested)
		require.Equal(t, quorum.Lost, r.verdict)
		require.Less(t, r.took, patience/2)
	})
}

// The nodes that a contender yields are free again, whatever is in flight and lost.
func TestAnAttemptThatYieldsLeavesNoKey(t *testing.T) {
	won, yielded := 0, 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		n := []int{3, 4, 5}[random.IntN(3)]
		run(t, n, func(t *testing.T, w *world) { // which looks for what is left
			var mu sync.Mutex // guards random
			some := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			for i := range 2 + some(3) {
				c := w.contender(int64(some(1000)*10 + i))
				bad := some(50)
				for _, r := range c.routes {
					r.trip = time.Duration(some(20)) * ms
					r.faults = func() (f memnode.Fault) {
						if some(100) > bad {
							return f
						}
						switch some(5) {
						case 0:
							f.LoseRequest = true
						case 1:
							f.LoseReply = true
						case 2:
							f.NotRun = true
						case 3:
							f.Request = time.Duration(some(300)) * ms
						case 4:
							f.Reply = time.Duration(some(300)) * ms
						}
						return f
					}
				}
			}
			if some(3) == 0 {
				w.stores[some(n)].Set("k", "GHOST", 10*time.Second)
			}
			winners := 0
			for _, r := range w.each(time.Duration(some(5)) * ms) {
				if r.verdict == quorum.Won {
					winners++
				}
			}
			won += winners
			if winners > 1 {
				t.Errorf("seed %d: %d winners", seed, winners)
			}
			for _, c := range w.contenders {
				yielded += len(c.tokens) - 1
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d won, %d claims were given up in contests", won, yielded)
	require.Positive(t, yielded)
}

func TestAContestEndsWithItsCtxAndWithStop(t *testing.T) {
	for _, how := range []string{"ctx", "stop"} {
		t.Run(how, func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.stores[0].Set("k", "GHOST", time.Hour)
				w.stores[1].Set("k", "ANOTHER", time.Hour)
				c := w.contender(age)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop := make(chan struct{})
				time.AfterFunc(47*ms, func() {
					if how == "ctx" {
						cancel()
					} else {
						close(stop)
					}
				})
				r := c.try(ctx, stop)
				require.True(t, r.contested)
				require.Equal(t, quorum.Pending, r.verdict)
				require.Equal(t, 47*ms, r.took)
			})
		})
	}
}

// The first ask has set the key, and its reply was lost.
func TestAReplyThatNamesOurOwnTokenIsAGrant(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		c := w.contender(age)
		w.stores[2].Set("k", node.AttemptToken(age+1), time.Hour) // of a younger one that has died
		lost := false
		c.routes[0].faults = func() (f memnode.Fault) {
			f.LoseReply, lost = !lost, true
			return f
		}
		start, token := c.Now(), c.Claim.Token
		time.Sleep(5 * ms)
		start = start.Add(5 * ms)
		r := c.try(t.Context(), nil)
		require.True(t, r.contested)
		require.Equal(t, quorum.Won, r.verdict)
		require.Equal(t, start, c.Start, "validity counts from the first ask")
		require.Equal(t, token, c.Claim.Token)
		require.Equal(t, []string{token, token}, w.owners()[:2])
		require.Zero(t, c.commands(node.Read))
	})
}

// After it has yielded, an attempt counts from when it asks with its new token.
func TestAnAttemptThatEntersAgainCountsFromThen(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.stores[0].Set("k", "GHOST", time.Hour)
		w.stores[1].Set("k", "ANOTHER", 60*ms)
		c := w.contender(age)
		began, token := c.Now(), c.Claim.Token
		r := c.try(t.Context(), nil)
		require.Equal(t, quorum.Won, r.verdict)
		require.NotEqual(t, token, c.Claim.Token)
		require.Greater(t, c.Start.Sub(began), 20*ms, "it waited for the ghost")
		asked := 0
		for i := range c.routes {
			for _, s := range c.sent(i) {
				if s.kind == node.Acquire && s.token == c.Claim.Token {
					asked++
					require.GreaterOrEqual(t, s.at, c.Start)
				}
			}
		}
		require.GreaterOrEqual(t, asked, 2)
	})
}

// drain is one whose votes are split over five nodes of which the last is slow, or silent,
// and that has an older rival.
func drain(t *testing.T, trip time.Duration, silent bool, test func(t *testing.T, w *world, c *contender, token string, done <-chan result)) {
	t.Helper()
	run(t, 5, func(t *testing.T, w *world) {
		for i, owner := range []string{"ELDER", "GHOST", "ANOTHER"} {
			w.stores[i].Set("k", owner, time.Hour)
		}
		c := w.contender(age, ms, ms, ms, ms, trip)
		c.routes[4].silent = silent
		token, done := c.Claim.Token, make(chan result, 1)
		go func() { done <- c.try(t.Context(), nil) }()
		test(t, w, c, token, done)
	})
}

// If it gave up its votes while it may still be granted others, it could be taken for the
// holder, by one that sees the votes at different moments.
func TestAContenderThatYieldsAsksNoMoreAndWaitsForPendingReplies(t *testing.T) {
	drain(t, 15*ms, false, func(t *testing.T, w *world, c *contender, token string, done <-chan result) {
		time.Sleep(14 * ms)
		require.Equal(t, token, w.owners()[3], "it keeps its vote")
		require.Equal(t, 5, c.commands(node.Acquire))
		require.Zero(t, c.commands(node.Read, node.Release, node.Leave))
		time.Sleep(2 * ms)
		require.Equal(t, 2, c.commands(node.Release), "of both at once")
		<-done
		require.Equal(t, 5, c.commands(node.Acquire))
		require.Positive(t, c.commands(node.Read))
	})
}

func TestASilentNodeDelaysNoYield(t *testing.T) {
	drain(t, ms, true, func(t *testing.T, w *world, c *contender, _ string, done <-chan result) {
		time.Sleep(untaken + lastPause + 2*ms)
		require.Empty(t, w.owners()[3], "it has yielded")
		r := <-done
		require.Less(t, r.took, patience+5*ms)
		require.Contains(t, []quorum.Verdict{quorum.Lost, quorum.Unreachable}, r.verdict)
		require.Equal(t, 5, c.commands(node.Acquire))
	})
}

// One call is under way to a node at a time, and the pauses between them grow.
func TestAContestAsksWithGrowingPauses(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.stores[0].Set("k", node.AttemptToken(age+1), time.Hour)
		w.stores[1].Set("k", node.AttemptToken(age+2), time.Hour) // younger, and dead
		c := w.contender(age)
		r := c.try(t.Context(), nil)
		require.Equal(t, quorum.Unreachable, r.verdict)
		require.InDelta(t, patience, r.took, float64(5*ms))
		require.Less(t, c.commands(node.Acquire), 45)
		acquires := func(i int) []sent {
			return slices.DeleteFunc(c.sent(i), func(s sent) bool { return s.kind != node.Acquire })
		}
		require.Len(t, acquires(2), 1, "what has granted is not asked again")
		for i := range 2 {
			calls := acquires(i)
			for k := range calls[1:] {
				require.GreaterOrEqual(t, calls[k+1].at.Sub(calls[k].at), ms, "the answer comes first")
			}
			require.Equal(t, lastPause, calls[len(calls)-1].at.Sub(calls[len(calls)-2].at))
		}
	})
}

// A lock that would not last is not asked for again and again.
func TestAContestEndsWhenAQuorumWouldBeUseless(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.stores[0].Set("k", node.AttemptToken(age+1), time.Hour)
		w.stores[1].Set("k", node.AttemptToken(age+2), time.Hour)
		c := w.contender(age)
		c.Lasts = 60 * ms
		r := c.try(t.Context(), nil)
		require.Equal(t, quorum.Unreachable, r.verdict)
		require.InDelta(t, 60*ms, r.took, float64(lastPause+ms))
	})
}
