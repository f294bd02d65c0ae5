package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestAPingIsAnsweredAndSetsNothing(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		require.NoError(t, n.Ping(t.Context(), nil, time.Second))
		require.Zero(t, s.Len())
	})
}

func TestAPingOfASilentNodeFailsInTime(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		s.Pause()
		began := time.Now()
		err := n.Ping(t.Context(), nil, 200*ms)
		require.ErrorIs(t, err, quorum.ErrNoReply)
		require.EqualError(t, err, "no reply within 200ms")
		require.Equal(t, 200*ms, time.Since(began))
		time.Sleep(time.Second)
		require.EqualError(t, n.Ping(t.Context(), nil, 200*ms), "no reply within 200ms")
		require.ErrorContains(t, n.Ping(t.Context(), nil, 200*ms), "not sent: 2 earlier commands are unanswered")
		require.Equal(t, 1400*ms, time.Since(began), "nor is anything queued for it then")
	})
}

func TestAPingEndsWithItsCtxAndWithStop(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		s.Pause()
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, n.Ping(ctx, nil, time.Second), node.ErrUnasked)
		require.Equal(t, 100*ms, time.Since(began))
		stop := make(chan struct{})
		time.AfterFunc(100*ms, func() { close(stop) })
		require.ErrorIs(t, n.Ping(t.Context(), stop, time.Second), node.ErrUnasked)
		require.Equal(t, 200*ms, time.Since(began))
	})
}

func TestAPingOfANodeThatIsDownFailsAtOnceUntilItIsBack(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Refuse: true} })
		for range 3 {
			began := time.Now()
			require.ErrorIs(t, n.Ping(t.Context(), nil, time.Second), node.ErrNotConnected)
			require.Zero(t, time.Since(began))
		}
		s.Faults(nil)
		time.Sleep(time.Second)
		require.NoError(t, n.Ping(t.Context(), nil, time.Second))
	})
}
