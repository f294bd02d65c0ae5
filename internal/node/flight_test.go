package node_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// sent is a handler that keeps the progress of its command.
type sent struct {
	progress chan quorum.Progress
	reply    memnode.Replies
}

func newSent() sent { return sent{make(chan quorum.Progress, 1), make(memnode.Replies, 1)} }

func (s sent) Sent(_ int, p quorum.Progress) { s.progress <- p }

func (s sent) Cast(node int, r quorum.Reply) { s.reply.Cast(node, r) }

// An answer is progress with the commands that were sent after the answered one, and not with
// those sent long before: they may be on another connection, which hangs.
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
		// The second was answered at 250 ms, and the fourth at 650 ms.
		require.Equal(t, start.Add(250*ms), (<-all[0].progress).Since(), "the second might have overtaken it")
		require.Equal(t, start.Add(650*ms), (<-all[2].progress).Since())
		require.Len(t, all[1].reply, 1)
		require.Len(t, all[3].reply, 1)
	})
}
