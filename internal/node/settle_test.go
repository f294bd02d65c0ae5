package node_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

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

// Only the release deletes its keys, before and while it runs: otherwise it would report a lock
// that was held as not held.
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

// With a quorum of the other nodes a lock may be acquired and released before this node has
// answered at all.
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

// A slow node may answer an attempt when the lock, which the other nodes granted, has already
// been extended.
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

// A look sets nothing, so there is nothing to release after it.
func TestALookLeavesNothing(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		var calls []memnode.Op
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			calls = append(calls, op)
			return memnode.Fault{LoseReply: true}
		})
		look := func(c *node.Claim) quorum.Reply {
			return ask(func(v node.ReplyHandler) { n.Look(c, v) })
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

func TestANodeCountsAReplyThatNamesTheClaimAsAGrant(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		a := claim(1)
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{LoseReply: true} })
		require.Equal(t, quorum.Failed, acquire(n, a, time.Minute).Vote)
		s.Faults(nil)
		time.Sleep(10 * time.Second)
		reply := ask(func(v node.ReplyHandler) { n.AcquireAgain(a, time.Hour, v) })
		require.Equal(t, quorum.Reply{Vote: quorum.Granted}, reply)
		time.Sleep(51 * time.Second)
		require.Zero(t, s.Len(), "it lives from the first ask on")
		a.End()
		n.Abandon(a)
	})
}

// Two calls for one claim may be under way when it ends, and run before its release, after
// it, or one before and one after.
func TestAnAttemptThatWasAskedTwiceLeavesNothingInWhateverOrder(t *testing.T) {
	delays := []time.Duration{0, 15 * ms, 40 * ms, 90 * ms}
	for _, first := range delays {
		for _, second := range delays {
			for _, release := range []time.Duration{0, 20 * ms, 60 * ms} {
				for _, reply := range []time.Duration{0, 30 * ms} {
					for _, giveUp := range []time.Duration{2 * ms, 20 * ms, 50 * ms, 200 * ms} {
						for _, extended := range []bool{false, true} {
							name := fmt.Sprintf("first %v, second %v, release %v, reply %v, given up after %v, extended %v", first, second, release, reply, giveUp, extended)
							run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
								var asks atomic.Int32
								s.Faults(func(op memnode.Op, _ int) memnode.Fault {
									switch op {
									case memnode.Acquire:
										return memnode.Fault{Request: []time.Duration{first, second}[asks.Add(1)-1], Reply: reply}
									case memnode.Extend:
										return memnode.Fault{Request: 10 * ms, Reply: reply}
									}
									return memnode.Fault{Request: release, Reply: reply}
								})
								a := claim(1)
								go acquire(n, a, time.Hour)
								time.Sleep(ms)
								go ask(func(v node.ReplyHandler) { n.AcquireAgain(a, time.Hour, v) })
								if extended {
									go extend(n, a, time.Hour)
								}
								time.Sleep(giveUp)
								a.End()
								n.Abandon(a)
								time.Sleep(time.Minute)
								require.Zero(t, s.Len(), name)
							})
						}
					}
				}
			}
		}
	}
}

// keyByKey is a node whose Backend runs commands key by key: an extension sets the first key of
// two, and finds the other one taken; the first Leaves leave the claim in its queue.
type keyByKey struct {
	*memnode.Backend
	partial, leaves int
}

func (b *keyByKey) Do(ctx context.Context, batch []node.Command) error {
	c := &batch[0]
	switch c.Kind {
	case node.Extend:
		b.Set(c.Claim.Keys[0], c.Claim.Token, c.TTL)
		c.Outcome, c.Partial = node.Refused, true
		return nil
	case node.Leave:
		if b.leaves++; b.leaves <= b.partial {
			c.Kind = node.Release
			err := b.Backend.Do(ctx, batch)
			c.Kind, c.Partial = node.Leave, true
			return err
		}
	}
	return b.Backend.Do(ctx, batch)
}

// Invariant 4, where an extension was refused after it had set a key.
func TestARefusedExtensionThatHasSetAKeyIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &keyByKey{Backend: &memnode.Backend{}}
		n := node.New(0, "n", b, false)
		defer n.Close(time.Second)
		b.Set("b", "another", time.Hour)
		c := node.NewClaim([]string{"a", "b"}, "ours", 1)
		require.Equal(t, quorum.Refused, acquire(n, c, time.Hour).Vote)
		require.Equal(t, quorum.Refused, extend(n, c, time.Hour).Vote)
		require.Equal(t, 2, b.Len())
		c.End()
		n.Abandon(c)
		time.Sleep(time.Second)
		require.Equal(t, 1, b.Len(), "the other owner's")
	})
}

// join has a claim join the queue of its key, and returns the outcome.
func join(t *testing.T, n *node.Node, c *node.Claim) node.Outcome {
	t.Helper()
	joined := make(joins, 1)
	n.Join(c, &node.Entry{Number: 1, Order: time.Now().UnixMilli(), Window: time.Minute, Lease: time.Minute, Channel: "c"}, "nonce", joined)
	return (<-joined).Outcome
}

// A queue that a claim has not left may yet grant it the key.
func TestAClaimThatMayStillBeInAQueueLeavesItLater(t *testing.T) {
	for name, vote := range map[string]quorum.Vote{"it has the key": quorum.Granted, "it waits": quorum.Refused} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &keyByKey{Backend: &memnode.Backend{}, partial: 1}
				n := node.New(0, "n", b, true)
				defer n.Close(time.Second)
				if vote == quorum.Refused {
					b.Set("k", "another", time.Hour)
				}
				c := node.NewClaim([]string{"k"}, "ours", 1)
				join(t, n, c)
				c.End()
				require.Equal(t, vote, release(n, c).Vote, "its caller does not wait for that")
				time.Sleep(time.Second)
				synctest.Wait()
				require.Equal(t, 2, b.leaves)
			})
		})
	}
	t.Run("it was in no queue", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &keyByKey{Backend: &memnode.Backend{}, partial: 1}
			n := node.New(0, "n", b, true)
			defer n.Close(time.Second)
			held := node.NewClaim([]string{"k"}, "held", 1)
			require.Equal(t, quorum.Granted, acquire(n, held, time.Hour).Vote)
			held.End()
			require.Equal(t, quorum.Granted, release(n, held).Vote)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, 1, b.leaves)
		})
	})
}

// While a slot moves a claim may have released its key, and be unable to leave the queue. Another
// owner's key is no key of that claim's, even where the node does not name its owner.
func TestAReleasedKeyWhoseQueueIsNotLeftRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &keyByKey{Backend: &memnode.Backend{}, partial: 1 << 30}
		b.Mute = true
		n := node.New(0, "n", b, true)
		defer n.Close(time.Second)
		c := node.NewClaim([]string{"k"}, "ours", 1)
		require.Equal(t, node.Done, join(t, n, c))
		c.End()
		n.ReleaseInBackground(c, nil)
		synctest.Wait()
		b.Set("k", "another", time.Hour)
		asked := time.Now()
		require.Equal(t, quorum.Refused, acquire(n, node.NewClaim([]string{"k"}, "next", 1), time.Minute).Vote)
		require.Equal(t, asked, time.Now(), "at once")
		require.Zero(t, node.OwnReleases(n))
	})
}

type joins chan *node.Command

func (j joins) Joined(_ int, c *node.Command) { again := *c; j <- &again }
