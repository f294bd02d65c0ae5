package node_test

import (
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

// locked returns a claim to keys that the node has granted from afar, so that later pipelines
// overlap.
func locked(t *testing.T, n *node.Node, s *memnode.Backend, keys ...string) *node.Claim {
	t.Helper()
	s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: ms, Reply: ms} })
	c := node.NewClaim(keys, fmt.Sprint("first of ", keys), 1)
	require.Equal(t, quorum.Granted, acquire(n, c, time.Minute).Vote)
	c.End()
	return c
}

// lateReleases has the first releases run late, and all other calls at once.
func lateReleases(first int64, late memnode.Fault) func(memnode.Op, int) memnode.Fault {
	var releases atomic.Int64
	return func(op memnode.Op, _ int) memnode.Fault {
		if op == memnode.Release && releases.Add(1) <= first {
			return late
		}
		return memnode.Fault{Request: ms, Reply: ms}
	}
}

func TestNoOwnReleaseIsTakenForARefusal(t *testing.T) {
	overtaken, lost := memnode.Fault{Request: 50 * ms, Reply: ms}, memnode.Fault{Request: 10 * ms, LoseRequest: true}
	for name, c := range map[string]struct {
		first int64
		late  memnode.Fault
	}{"overtaken": {1, overtaken}, "failed": {1, lost}, "failed three times": {3, lost}, "in order": {}} {
		for _, mute := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, mute=%v", name, mute), func(t *testing.T) {
				run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
					s.Mute = mute
					a, b := locked(t, n, s, "x"), locked(t, n, s, "y", "z")
					s.Faults(lateReleases(2*c.first, c.late))
					for _, own := range []*node.Claim{a, b} {
						n.ReleaseInBackground(own, nil)
						synctest.Wait() // it has left, in a pipeline of its own
					}
					next := node.NewClaim([]string{"x", "z"}, "next", 1)
					require.Equal(t, quorum.Granted, acquire(n, next, time.Minute).Vote)
					next.End()
					require.Equal(t, quorum.Granted, release(n, next).Vote)
					require.Zero(t, s.Len())
					require.Zero(t, node.OwnReleases(n), "all is forgotten")
				})
			})
		}
	}
}

// Only what the claim that is being released explains is no refusal.
func TestAnotherOwnersRefusalStands(t *testing.T) {
	t.Run("an owner that is named", func(t *testing.T) {
		run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
			a := locked(t, n, s, "x")
			s.Faults(lateReleases(1, memnode.Fault{Request: time.Second}))
			n.ReleaseInBackground(a, nil)
			synctest.Wait()
			s.Set("x", "another", time.Minute)
			asked := time.Now()
			reply := acquire(n, node.NewClaim([]string{"x"}, "next", 1), time.Minute)
			require.Equal(t, quorum.Refused, reply.Vote)
			require.Equal(t, "another", reply.Owner)
			require.Less(t, time.Since(asked), 100*ms, "at once")
			s.Wipe()
		})
	})
	t.Run("an owner that the second answer does not name either", func(t *testing.T) {
		run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
			s.Mute = true
			a := locked(t, n, s, "x")
			s.Faults(lateReleases(1, memnode.Fault{Request: time.Second}))
			n.ReleaseInBackground(a, nil)
			synctest.Wait()
			s.Set("x", "another", time.Minute)
			require.Equal(t, quorum.Refused, acquire(n, node.NewClaim([]string{"x"}, "next", 1), time.Minute).Vote)
			s.Wipe()
		})
	})
	t.Run("an own claim that was acquired since", func(t *testing.T) {
		run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
			a := locked(t, n, s, "x")
			s.Faults(lateReleases(1, memnode.Fault{Request: 50 * ms}))
			n.ReleaseInBackground(a, nil)
			synctest.Wait()
			first, second := make(memnode.Replies, 1), make(memnode.Replies, 1)
			n.Acquire(node.NewClaim([]string{"x"}, "second", 1), time.Minute, first)
			n.Acquire(node.NewClaim([]string{"x"}, "third", 1), time.Minute, second)
			require.ElementsMatch(t, []quorum.Vote{quorum.Granted, quorum.Refused}, []quorum.Vote{(<-first).Vote, (<-second).Vote})
			s.Wipe()
		})
	})
	t.Run("a claim whose release is waited for", func(t *testing.T) {
		run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
			a := locked(t, n, s, "x")
			s.Faults(lateReleases(1, memnode.Fault{Request: 50 * ms}))
			n.Abandon(a)
			synctest.Wait()
			require.Equal(t, quorum.Refused, acquire(n, node.NewClaim([]string{"x"}, "next", 1), time.Minute).Vote)
			time.Sleep(time.Second)
		})
	})
}

// An extension may run after the release, and set the key again.
func TestAKeyThatALateExtensionSetAgainIsNoRefusal(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		a := node.NewClaim([]string{"x"}, "first", 1)
		require.Equal(t, quorum.Granted, acquire(n, a, time.Minute).Vote)
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Extend {
				return memnode.Fault{Request: 20 * ms, Reply: 30 * ms}
			}
			return memnode.Fault{Request: ms, Reply: ms}
		})
		go extend(n, a, time.Minute)
		synctest.Wait()
		a.End()
		n.ReleaseInBackground(a, nil)
		time.Sleep(25 * ms)
		require.Equal(t, 1, s.Len(), "the release has run, and then the extension")
		next := node.NewClaim([]string{"x"}, "next", 1)
		require.Equal(t, quorum.Granted, acquire(n, next, time.Minute).Vote)
		next.End()
		require.Equal(t, quorum.Granted, release(n, next).Vote)
		require.Zero(t, node.OwnReleases(n))
	})
}

// An acquisition that waits for a release is told whatever happens, and never hangs.
func TestAnAcquisitionBehindAReleaseIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		do  func(n *node.Node, s *memnode.Backend, next *node.Claim)
		err error
	}{
		"its claim has ended": {func(_ *node.Node, _ *memnode.Backend, next *node.Claim) { next.End() }, node.ErrUnasked},
		"the server is down":  {func(_ *node.Node, s *memnode.Backend, _ *node.Claim) { s.Down() }, node.ErrNotRun},
		"the node is closed": {func(n *node.Node, _ *memnode.Backend, _ *node.Claim) {
			require.Error(t, n.Close(50*ms))
		}, node.ErrUnasked},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				a := locked(t, n, s, "x")
				s.Faults(func(op memnode.Op, _ int) memnode.Fault { return memnode.Fault{LoseRequest: op == memnode.Release} })
				n.ReleaseInBackground(a, nil)
				synctest.Wait() // it has left, in a pipeline of its own
				next, reply := node.NewClaim([]string{"x"}, "next", 1), make(memnode.Replies, 1)
				n.Acquire(next, time.Minute, reply)
				time.Sleep(100 * ms)
				require.Empty(t, reply)
				c.do(n, s, next)
				time.Sleep(10 * time.Second) // the release is tried again once a second
				require.Len(t, reply, 1)
				answer := <-reply
				require.Equal(t, quorum.Failed, answer.Vote)
				require.ErrorIs(t, answer.Err, c.err)
				s.Up()
				s.Faults(nil)
				time.Sleep(time.Minute)
			})
		})
	}
}
