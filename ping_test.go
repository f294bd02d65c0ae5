package redlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func TestPingTellsOfEachNode(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	statuses, err := l.Ping(t.Context())
	require.NoError(t, err)
	require.Len(t, statuses, 3)
	for i, s := range statuses {
		require.Equal(t, ns.proxies[i].Addr(), s.Node)
		require.NoError(t, s.Err)
		require.Positive(t, s.Took)
	}
	require.True(t, ns.released())

	ns.proxies[2].Refuse(true)
	eventually.True(t, "one node does not answer", func() bool {
		statuses, err := l.Ping(t.Context())
		require.NoError(t, err, "a quorum does")
		require.NoError(t, statuses[0].Err)
		require.NoError(t, statuses[1].Err)
		return statuses[2].Err != nil
	})

	ns.proxies[1].Refuse(true)
	eventually.True(t, "no quorum answers", func() bool {
		statuses, err := l.Ping(t.Context())
		require.NoError(t, statuses[0].Err)
		var failed *redlock.QuorumError
		if !errors.As(err, &failed) {
			require.NoError(t, err)
			return false
		}
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Equal(t, "ping", failed.Op)
		require.Equal(t, 1, failed.Got)
		require.Len(t, failed.Nodes, 2)
		return true
	})

	ns.proxies[1].Heal()
	ns.proxies[2].Heal()
	eventually.True(t, "they are back", func() bool {
		statuses, _ := l.Ping(t.Context())
		return statuses[1].Err == nil && statuses[2].Err == nil
	})
}

func TestPingWaitsForSilentNodesForTheNodeTimeout(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithNodeTimeout(200 * ms))
		stores[1].Pause()
		defer stores[1].Resume()
		began := time.Now()
		statuses, err := l.Ping(t.Context())
		require.NoError(t, err)
		require.Equal(t, 200*ms, time.Since(began))
		require.Equal(t, redlock.NodeStatus{Node: "n0"}, statuses[0])
		require.EqualError(t, statuses[1].Err, "no reply within 200ms")
		require.Equal(t, 200*ms, statuses[1].Took)

		stores[2].Pause()
		defer stores[2].Resume()
		_, err = l.Ping(t.Context())
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "redlock: ping: 1 of 3 nodes answered, 2 needed: n1: ")
		require.NotErrorIs(t, err, context.DeadlineExceeded, "no ctx of the caller's has ended")
	})
}

func TestPingEndsWithItsCtx(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		for _, s := range stores[1:] {
			s.Pause()
			defer s.Resume()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		began := time.Now()
		statuses, err := l.Ping(ctx)
		require.Equal(t, 100*ms, time.Since(began))
		require.NoError(t, statuses[0].Err)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "redlock: ping: 1 of 3 nodes answered, 2 needed: n1: not waited for; n2: not waited for: context deadline exceeded")
	})
}

func TestPingEndsWithClose(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		for _, s := range stores {
			s.Pause()
		}
		closed := make(chan error)
		time.AfterFunc(100*ms, func() { closed <- l.Close() })
		began := time.Now()
		_, err := l.Ping(t.Context())
		require.ErrorIs(t, err, redlock.ErrClosed)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Equal(t, 100*ms, time.Since(began))
		for _, s := range stores {
			s.Resume()
		}
		require.NoError(t, <-closed)
		_, err = l.Ping(t.Context())
		require.ErrorIs(t, err, redlock.ErrClosed)
		require.EqualError(t, err, "redlock: ping: locker closed")
	})
}
