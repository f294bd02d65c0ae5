package node_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

func run(t *testing.T, test func(t *testing.T, n *node.Node, s *memnode.Backend)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		defer func() {
			s.Resume()
			n.Close(time.Hour)
			synctest.Wait()
		}()
		test(t, n, s)
	})
}

func claim(i int) *node.Claim {
	return node.NewClaim([]string{fmt.Sprint("k", i)}, fmt.Sprint("token", i), 1)
}

func ask(send func(v node.Voter)) quorum.Reply {
	v := make(memnode.Voter, 1)
	send(v)
	return <-v
}

func acquire(n *node.Node, c *node.Claim, ttl time.Duration) quorum.Reply {
	return ask(func(v node.Voter) { n.Acquire(c, ttl, v) })
}

func extend(n *node.Node, c *node.Claim, ttl time.Duration) quorum.Reply {
	return ask(func(v node.Voter) {
		n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: c, TTL: ttl, Voter: v})
	})
}

func release(n *node.Node, c *node.Claim) quorum.Reply {
	return ask(func(v node.Voter) { n.Release(c, v) })
}

func TestAnAttemptThatWasGivenUpLeavesNothingInWhateverOrder(t *testing.T) {
	for _, c := range []struct{ acquire, release, giveUp time.Duration }{
		{acquire: 50 * ms, release: 0, giveUp: 10 * ms},           // the release overtakes the acquire
		{acquire: 0, release: 50 * ms, giveUp: 10 * ms},           // both late, in order
		{acquire: 5 * ms, release: 5 * ms, giveUp: 0},             // given up at once
		{acquire: 50 * ms, release: 50 * ms, giveUp: 60 * ms},     // given up when the acquire has run
		{acquire: 100 * ms, release: 200 * ms, giveUp: 1000 * ms}, // given up with all done
	} {
		run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
			s.Faults(func(op memnode.Op, _ int) memnode.Fault {
				if op == memnode.Acquire {
					return memnode.Fault{Request: c.acquire, Reply: 20 * ms}
				}
				return memnode.Fault{Request: c.release}
			})
			a := claim(1)
			go acquire(n, a, time.Hour)
			time.Sleep(c.giveUp)
			a.End()
			n.Abandon(a)
			time.Sleep(time.Minute)
			require.Zero(t, s.Len(), "%+v", c)
		})
	}
}

// Neither before nor during a release does what it is to delete get deleted by
// anything else: it would report a lock that was held as not held.
func TestAReleaseAmongLateExtensionsFindsWhatItDeletes(t *testing.T) {
	for name, c := range map[string]struct{ request, reply, release time.Duration }{
		"answered between the end and the release":     {0, 10 * ms, 0},
		"answered while the release is under way":      {0, 20 * ms, 10 * ms},
		"run only after the release, and answered":     {22 * ms, 0, 5 * ms},
		"run after the release, answered before it is": {17 * ms, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				a := claim(1)
				require.Equal(t, quorum.Granted, acquire(n, a, time.Hour).Vote)
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					if op == memnode.Extend {
						return memnode.Fault{Request: c.request, Reply: c.reply}
					}
					return memnode.Fault{Request: c.release, Reply: 5 * ms}
				})
				go extend(n, a, time.Hour)
				time.Sleep(5 * ms)
				a.End()
				time.Sleep(10 * ms)
				require.Equal(t, quorum.Granted, release(n, a).Vote)
				time.Sleep(time.Second)
				require.Zero(t, s.Len())
			})
		})
	}
}

// With the quorum of other nodes a lock may be taken and released before this
// one has answered at all.
func TestAReleaseThatDeletedWhatWasAcquiredIsNotRepeated(t *testing.T) {
	for name, acquired := range map[string]time.Duration{
		"answered while the release is under way": 15 * ms,
		"answered after the release":              25 * ms,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				var releases atomic.Int64
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					if op == memnode.Acquire {
						return memnode.Fault{Reply: acquired}
					}
					releases.Add(1)
					return memnode.Fault{Reply: 10 * ms}
				})
				a := claim(1)
				go acquire(n, a, time.Hour)
				time.Sleep(10 * ms)
				a.End()
				require.Equal(t, quorum.Granted, release(n, a).Vote)
				time.Sleep(time.Minute)
				require.Zero(t, s.Len())
				require.EqualValues(t, 1, releases.Load())
			})
		})
	}
}

// A node that is slow may answer an attempt when its lock, which the others
// granted, has already been extended.
func TestALateRefusalHidesNoKeyThatAnExtensionSet(t *testing.T) {
	for name, end := range map[string]time.Duration{
		"released before the extension is answered": 170 * ms,
		"released after it":                         410 * ms,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				s.Set("k1", "another", 120*ms)
				s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 100 * ms, Reply: 100 * ms} })
				a := claim(1)
				go acquire(n, a, time.Hour) // refused
				time.Sleep(50 * ms)
				go extend(n, a, time.Hour) // refills
				time.Sleep(end)
				a.End()
				release(n, a)
				time.Sleep(time.Minute)
				require.Zero(t, s.Len())
			})
		})
	}
}

func TestALostReplyIsAmbiguousAndReleased(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		s.Faults(func(op memnode.Op, _ int) memnode.Fault { return memnode.Fault{LoseReply: op == memnode.Acquire} })
		a := claim(1)
		reply := acquire(n, a, time.Hour)
		require.Equal(t, quorum.Failed, reply.Vote)
		require.Equal(t, 1, s.Len())
		a.End()
		n.Abandon(a)
		synctest.Wait()
		require.Zero(t, s.Len())
	})
}

func TestNothingIsSentForAClaimThatHasEnded(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		var calls atomic.Int64
		s.Faults(func(memnode.Op, int) memnode.Fault { calls.Add(1); return memnode.Fault{} })
		a := claim(1)
		a.End()
		acquired, extended, released := acquire(n, a, time.Hour), extend(n, a, time.Hour), release(n, a)
		require.Equal(t, quorum.Failed, acquired.Vote)
		require.Equal(t, quorum.Failed, extended.Vote)
		require.Equal(t, quorum.Refused, released.Vote)
		for _, reply := range []quorum.Reply{acquired, extended, released} {
			require.ErrorIs(t, reply.Err, node.ErrUnasked)
		}
		n.Abandon(a)
		synctest.Wait()
		require.Zero(t, calls.Load())
	})
}

func TestADefiniteAnswerLeavesNothingToRelease(t *testing.T) {
	for name, fault := range map[string]memnode.Fault{"refused": {}, "not run": {NotRun: true}} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				var releases atomic.Int64
				s.Set("k1", "another", time.Hour)
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					if op == memnode.Release {
						releases.Add(1)
					}
					return fault
				})
				a := claim(1)
				require.NotEqual(t, quorum.Granted, acquire(n, a, time.Hour).Vote)
				a.End()
				n.Abandon(a)
				synctest.Wait()
				require.Zero(t, releases.Load())
			})
		})
	}
}

func TestAFailedReleaseIsTriedAgainUntilTheKeyHasExpired(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		a, b := claim(1), claim(2)
		require.Equal(t, quorum.Granted, acquire(n, a, 10*time.Second).Vote)
		require.Equal(t, quorum.Granted, acquire(n, b, time.Hour).Vote)
		var tries atomic.Int64
		start := time.Now()
		s.Faults(func(memnode.Op, int) memnode.Fault {
			tries.Add(1)
			return memnode.Fault{LoseRequest: time.Since(start) < time.Minute}
		})
		a.End()
		b.End()
		require.Equal(t, quorum.Failed, release(n, a).Vote)
		require.Equal(t, quorum.Failed, release(n, b).Vote)
		time.Sleep(2 * time.Minute)
		require.Zero(t, s.Len())
		require.Less(t, tries.Load(), int64(200), "with pauses between")
	})
}

func TestCommandsInFlightToASilentServerAreBounded(t *testing.T) {
	for name, far := range map[string]bool{"near": false, "far": true} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				if !far { // it is known to be near when it has answered at once
					require.Equal(t, quorum.Granted, acquire(n, claim(0), time.Millisecond).Vote)
				}
				const bound = 64 * 256
				var sent, refused atomic.Int64
				s.Faults(func(op memnode.Op, commands int) memnode.Fault {
					if op == memnode.Acquire {
						sent.Add(int64(commands))
					}
					return memnode.Fault{}
				})
				s.Pause()
				var all sync.WaitGroup
				try := func(i int) {
					a := claim(i)
					v := make(memnode.Voter, 1)
					n.Acquire(a, time.Hour, v)
					select {
					case reply := <-v:
						if reply.Vote == quorum.Failed {
							refused.Add(1)
							require.ErrorIs(t, reply.Err, node.ErrNotRun)
						}
					case <-time.After(time.Second): // as a Poll does
					}
					a.End()
					n.Abandon(a)
				}
				for i := range 20_000 {
					all.Go(func() { try(1 + i) })
				}
				all.Wait()
				require.LessOrEqual(t, sent.Load(), int64(bound))
				require.Positive(t, sent.Load())
				require.Zero(t, refused.Load(), "what was queued before it fell silent waits")
				all.Go(func() { try(30_000) }) // the first look at the silence
				time.Sleep(50 * ms)
				before := time.Now()
				try(30_001)
				require.EqualValues(t, 1, refused.Load())
				require.Zero(t, time.Since(before), "once it is known to be silent nobody waits")
				s.Resume()
				all.Wait()
				synctest.Wait()
				require.Zero(t, s.Len())
				require.LessOrEqual(t, sent.Load(), int64(bound), "what nobody wants any more is not sent")
				require.Equal(t, quorum.Granted, acquire(n, claim(1), time.Hour).Vote, "and it works again")
			})
		})
	}
}

// To be busy is not to be sick: whoever waits for a lock on a node that answers
// gets his answer, and keeps nobody from extending and releasing.
func TestABusyNodeAnswersAll(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		held := claim(-1)
		require.Equal(t, quorum.Granted, acquire(n, held, time.Hour).Vote)
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 100 * ms, Reply: 200 * ms} })
		var claims []*node.Claim
		each := func(do func(c *node.Claim) quorum.Reply) *sync.WaitGroup {
			all := new(sync.WaitGroup)
			for _, c := range claims {
				all.Go(func() { require.Equal(t, quorum.Granted, do(c).Vote) })
			}
			return all
		}
		for i := range 5000 {
			claims = append(claims, claim(i))
		}
		acquiring := each(func(c *node.Claim) quorum.Reply { return acquire(n, c, time.Hour) })
		time.Sleep(ms)
		start := time.Now()
		require.Equal(t, quorum.Granted, extend(n, held, time.Hour).Vote)
		require.Equal(t, 300*ms, time.Since(start), "extended at once")
		acquiring.Wait()
		for _, c := range claims {
			c.End()
		}
		each(func(c *node.Claim) quorum.Reply { return release(n, c) }).Wait()
		require.Equal(t, 1, s.Len())
		held.End()
		require.Equal(t, quorum.Granted, release(n, held).Vote)
	})
}

// Whoever has been answered by the other nodes does not wait for the turn of his
// claim, and does not keep others waiting.
func TestACommandOfAClaimThatHasEndedIsNotSent(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		require.Equal(t, quorum.Granted, acquire(n, claim(0), time.Millisecond).Vote, "it is near")
		var sent atomic.Int64
		s.Faults(func(_ memnode.Op, commands int) memnode.Fault {
			sent.Add(int64(commands))
			return memnode.Fault{Reply: 300 * ms}
		})
		go acquire(n, claim(1), time.Hour)
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 40 {
			c := claim(1000 + i)
			all.Go(func() { require.ErrorIs(t, acquire(n, c, time.Hour).Err, node.ErrUnasked) })
			synctest.Wait()
			c.End()
		}
		require.Equal(t, quorum.Granted, acquire(n, claim(2), time.Hour).Vote)
		all.Wait()
		require.EqualValues(t, 2, sent.Load())
	})
}

func TestAbandonedClaimsAreReleasedInPipelines(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		const claims = 3000
		var held []*node.Claim
		for i := range claims {
			a := claim(i)
			require.Equal(t, quorum.Granted, acquire(n, a, time.Hour).Vote)
			held = append(held, a)
		}
		var calls, largest atomic.Int64
		s.Faults(func(_ memnode.Op, n int) memnode.Fault {
			calls.Add(1)
			largest.Store(max(largest.Load(), int64(n)))
			return memnode.Fault{Request: ms}
		})
		for _, a := range held {
			a.End()
			n.Abandon(a)
		}
		time.Sleep(time.Second)
		require.Zero(t, s.Len())
		require.LessOrEqual(t, largest.Load(), int64(256))
		require.Less(t, calls.Load(), int64(claims/10))
	})
}

func TestExtendTellsEachOutcomeApart(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		ours, gone, taken := claim(1), claim(2), claim(3)
		for _, a := range []*node.Claim{ours, gone, taken} {
			acquire(n, a, time.Second)
		}
		s.Set("k2", "", 0)
		s.Set("k3", "another", time.Hour)
		var replies []quorum.Reply
		for _, c := range []*node.Claim{ours, gone, taken} {
			replies = append(replies, extend(n, c, time.Hour))
		}
		require.Equal(t, quorum.Granted, replies[0].Vote)
		require.Equal(t, quorum.Refused, replies[1].Vote, "what was set anew is no vote")
		require.ErrorContains(t, replies[1].Err, "key was missing")
		require.Equal(t, quorum.Refused, replies[2].Vote)
		require.ErrorContains(t, replies[2].Err, "another owner")
		owner, _ := s.Get("k2")
		require.Equal(t, gone.Token, owner, "but it is set")
	})
}

func TestCloseWaitsForWhatIsOwedAndNoLonger(t *testing.T) {
	for _, hung := range []bool{false, true} {
		t.Run(fmt.Sprint("hung=", hung), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &memnode.Backend{}
				n := node.New(0, "n", s, false)
				a := claim(1)
				acquire(n, a, time.Hour)
				s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 10 * ms} })
				if hung {
					s.Pause()
				}
				a.End()
				n.Abandon(a)
				start := time.Now()
				err := n.Close(time.Second)
				if hung {
					require.EqualError(t, err, "no reply within 1s")
					require.Equal(t, time.Second, time.Since(start))
				} else {
					require.NoError(t, err)
					require.Equal(t, 10*ms, time.Since(start))
				}
				require.Equal(t, quorum.Failed, acquire(n, claim(2), time.Hour).Vote)
				s.Resume()
				synctest.Wait()
				require.Zero(t, s.Len(), "what was sent before runs")
			})
		})
	}
}

// The claim ends, and is abandoned, while the acquisition fails for certain.
func TestNoDebtRemainsOfACallThatDidNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Acquire {
				time.Sleep(10 * ms)
			}
			return memnode.Fault{NotRun: true}
		})
		a := claim(1)
		go acquire(n, a, time.Hour)
		time.Sleep(5 * ms)
		a.End()
		n.Abandon(a)
		start := time.Now()
		require.NoError(t, n.Close(time.Minute))
		require.Less(t, time.Since(start), time.Second)
	})
}

func TestCloseSaysWhyKeysWereNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		a := claim(1)
		acquire(n, a, time.Hour)
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{NotRun: true} })
		a.End()
		n.Abandon(a)
		require.ErrorContains(t, n.Close(time.Second), "keys not released within 1s: connection refused")
	})
}

// A look sets nothing, so that there is nothing to take back after it.
func TestALookLeavesNothing(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		var calls []memnode.Op
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			calls = append(calls, op)
			return memnode.Fault{LoseReply: true}
		})
		look := func(c *node.Claim) quorum.Reply {
			return ask(func(v node.Voter) { n.Look(c, v) })
		}
		c := claim(1)
		require.Equal(t, quorum.Failed, look(c).Vote)
		require.Equal(t, []memnode.Op{memnode.Look}, calls)
		c.End()
		require.Equal(t, quorum.Failed, look(c).Vote)
		require.ErrorIs(t, release(n, c).Err, node.ErrUnasked)
		require.Equal(t, []memnode.Op{memnode.Look}, calls, "of a claim that has ended")
	})
}

// A silence is looked at twice: the process may have been stopped itself, and the answers
// be there. From then on nobody waits for a server that hangs.
func TestASilenceIsBelievedAtTheSecondLook(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		acquired := make(memnode.Voter, 1)
		take := func(i int) memnode.Voter {
			v := make(memnode.Voter, 1)
			n.Acquire(claim(i), time.Hour, v)
			return v
		}
		require.Equal(t, quorum.Granted, (<-take(0)).Vote, "the server is near")
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: 600 * ms} })
		n.Acquire(claim(1), time.Hour, acquired)
		time.Sleep(590 * ms) // as if nothing had run here meanwhile
		queued := take(2)
		require.Equal(t, quorum.Granted, (<-acquired).Vote)
		require.Equal(t, quorum.Granted, (<-queued).Vote, "it was not refused")

		s.Pause()
		hung := take(3)
		time.Sleep(590 * ms)
		first := take(4)
		time.Sleep(60 * ms)
		refused := <-take(5)
		require.Equal(t, quorum.Failed, refused.Vote)
		require.ErrorIs(t, refused.Err, node.ErrNotRun)
		require.Empty(t, hung)
		require.Empty(t, first)
	})
}

// sent is a voter that keeps the progress of what it waits for.
type sent struct {
	progress chan quorum.Progress
	reply    memnode.Voter
}

func newSent() sent { return sent{make(chan quorum.Progress, 1), make(memnode.Voter, 1)} }

func (s sent) Sent(_ int, p quorum.Progress) { s.progress <- p }
func (s sent) Cast(node int, r quorum.Reply) { s.reply.Cast(node, r) }

// What a server answers is progress with what it was sent after that, and not with what it
// was sent long before: that may be on a connection of its own, which hangs.
func TestAnAnswerIsProgressWithWhatWasSentLaterOnly(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		var trips []time.Duration
		s.Faults(func(memnode.Op, int) memnode.Fault {
			trip := trips[0]
			trips = trips[1:]
			return memnode.Fault{Reply: trip}
		})
		trips = []time.Duration{50 * ms, time.Hour, 50 * ms, 500 * ms, 50 * ms}
		require.Equal(t, quorum.Granted, acquire(n, claim(0), time.Hour).Vote, "it is far")
		start := time.Now()
		var all []sent
		for i := range 4 { // at 0, 200, 400 and 600 ms
			v := newSent()
			n.Acquire(claim(1+i), time.Hour, v)
			all = append(all, v)
			time.Sleep(200 * ms)
		}
		// At 250 ms the second was answered, and at 650 ms the fourth.
		require.Equal(t, start.Add(250*ms), (<-all[0].progress).Since(), "the second might have overtaken it")
		require.Equal(t, start.Add(650*ms), (<-all[2].progress).Since())
		require.Len(t, all[1].reply, 1)
		require.Len(t, all[3].reply, 1)
	})
}
