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

func TestCommandsInFlightToASilentServerAreBounded(t *testing.T) {
	for name, far := range map[string]bool{"near": false, "far": true} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				if !far { // the node is near once it has answered at once
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
					v := make(memnode.Replies, 1)
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
				require.Zero(t, time.Since(before), "no caller waits for a server that is known to be silent")
				s.Resume()
				all.Wait()
				synctest.Wait()
				require.Zero(t, s.Len())
				require.LessOrEqual(t, sent.Load(), int64(bound), "a command without a waiting caller is not sent")
				require.Equal(t, quorum.Granted, acquire(n, claim(1), time.Hour).Vote, "and it works again")
			})
		})
	}
}

// A busy node is not a sick node: a caller that waits for a lock on a node that answers gets its
// answer, and blocks no extension and no release.
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

// A silence counts at the second look: the process may have been stopped itself, and the
// answers may have arrived. From then on no caller waits for a server that hangs.
func TestASilenceIsBelievedAtTheSecondLook(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		acquired := make(memnode.Replies, 1)
		take := func(i int) memnode.Replies {
			v := make(memnode.Replies, 1)
			n.Acquire(claim(i), time.Hour, v)
			return v
		}
		require.Equal(t, quorum.Granted, (<-take(0)).Vote, "the server is near")
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: 600 * ms} })
		n.Acquire(claim(1), time.Hour, acquired)
		time.Sleep(590 * ms) // as if this process had been stopped
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
