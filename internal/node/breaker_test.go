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

// While a server is down only the probe dials: acquisitions are refused at once, extensions and
// releases wait, and all are sent as soon as the server answers.
func TestCommandsForAServerThatIsDownGoOutWhenItAnswers(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		held, dropped := claim(1), claim(2)
		require.Equal(t, quorum.Granted, acquire(n, held, time.Hour).Vote)
		require.Equal(t, quorum.Granted, acquire(n, dropped, time.Hour).Vote)
		var calls atomic.Int64
		s.Faults(func(memnode.Op, int) memnode.Fault { calls.Add(1); return memnode.Fault{Refuse: true} })
		require.ErrorIs(t, acquire(n, claim(3), time.Hour).Err, node.ErrNotConnected)
		v := make(memnode.Replies, 1)
		n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: held, TTL: 2 * time.Hour, Handler: v})
		dropped.End()
		require.ErrorIs(t, release(n, dropped).Err, node.ErrNotConnected)
		for i := range 1000 {
			require.ErrorIs(t, acquire(n, claim(4+i), time.Hour).Err, node.ErrNotRun)
		}
		time.Sleep(10 * time.Second)
		require.Empty(t, v)
		require.Less(t, calls.Load(), int64(100), "with pauses between")
		s.Faults(nil)
		time.Sleep(260 * ms)
		require.Len(t, v, 1)
		require.Equal(t, quorum.Granted, (<-v).Vote)
		require.Equal(t, 1, s.Len(), "the release has gone out")
		require.Equal(t, quorum.Granted, acquire(n, claim(3), time.Hour).Vote)
	})
}

// Pipelines that are under way on an old connection show that the server is up, though it
// accepts no new connection.
func TestAServerThatIsUpAndDownByTurnsHasOneProbe(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		refuse := func(op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Release { // the probe's dial is slow to fail
				time.Sleep(300 * ms)
			}
			return memnode.Fault{Refuse: true}
		}
		for i := range 50 {
			s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: 20 * ms} })
			go acquire(n, claim(2*i), time.Hour)
			synctest.Wait()
			s.Faults(refuse)
			require.Equal(t, quorum.Failed, acquire(n, claim(2*i+1), time.Hour).Vote)
			time.Sleep(25 * ms)
		}
		require.Equal(t, quorum.Failed, acquire(n, claim(-1), time.Hour).Vote)
		var probes atomic.Int64
		s.Faults(func(memnode.Op, int) memnode.Fault { probes.Add(1); return memnode.Fault{Refuse: true} })
		time.Sleep(time.Minute)
		require.Less(t, probes.Load(), int64(300), "each 250 ms")
		require.Greater(t, probes.Load(), int64(230))
	})
}

// The node notices the end of an outage soon.
func TestAnOutageSeemsAtMostAQuarterSecondLonger(t *testing.T) {
	for _, outage := range []time.Duration{10 * ms, 100 * ms, time.Second, time.Hour} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Refuse: true} })
				require.Equal(t, quorum.Failed, acquire(n, claim(1), time.Hour).Vote)
				time.Sleep(outage)
				s.Faults(nil)
				time.Sleep(min(outage/8, 250*ms) + 6*ms)
				require.Equal(t, quorum.Granted, acquire(n, claim(1), time.Hour).Vote)
			})
		})
	}
}
