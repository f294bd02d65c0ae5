package node_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

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

// A caller that the other nodes have answered does not wait for the turn of its claim, and does
// not keep other callers waiting.
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
