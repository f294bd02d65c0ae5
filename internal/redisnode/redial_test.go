package redisnode_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// demote makes s a replica, of a server that does not answer: that is enough.
func demote(t *testing.T, s *redistest.Server) {
	_, err := s.Do("REPLICAOF", "127.0.0.1", "1")
	require.NoError(t, err)
}

// A managed endpoint points to the promoted server, and the old master stays up as a replica,
// with its connections.
func TestAnEndpointThatHasMovedIsFoundAgain(t *testing.T) {
	for name, connect := range map[string]func(*endpoint, *testing.T) *redisnode.Redis{"its own client": (*endpoint).dial, "a caller's client": (*endpoint).wrap} {
		t.Run(name, func(t *testing.T) {
			before, after := redistest.Start(t), redistest.Start(t)
			e := startEndpoint(t, before)
			s := connect(e, t)
			for i := range 3 {
				require.Equal(t, node.Done, do(t, s, node.Acquire, time.Minute, claim(i))[0].Outcome)
			}
			// A waiter's subscription is at the old server, too.
			ended := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ready := make(chan struct{})
			go func() { ended <- s.Listen(ctx, "channel", func() { close(ready) }, func(node.Push) {}) }()
			<-ready
			demote(t, before)
			e.point(after)
			refused := take(t, s, "k", "ours")
			require.ErrorIs(t, refused.Err, node.ErrNotRun)
			require.ErrorContains(t, refused.Err, "READONLY")
			require.ErrorContains(t, refused.Err, "the server is a replica")
			began := time.Now()
			eventually.True(t, "the new server is asked", func() bool { return take(t, s, "k", "ours").Outcome == node.Done })
			require.Less(t, time.Since(began), 10*time.Second)
			_, held := after.Get(t, "k")
			require.True(t, held)
			require.Error(t, <-ended)
			require.NoError(t, ctx.Err())
		})
	}
}

func TestAPingOfAReplicaFailsAndHasItDialledAgain(t *testing.T) {
	before, after := redistest.Start(t), redistest.Start(t)
	e := startEndpoint(t, before)
	s := e.dial(t)
	require.NoError(t, do(t, s, node.Ping, 0, claim(0))[0].Err)
	demote(t, before)
	e.point(after)
	ping := func() error {
		batch := []node.Command{{Kind: node.Ping, Claim: claim(0)}}
		_ = s.Do(t.Context(), batch)
		return batch[0].Err
	}
	require.ErrorContains(t, ping(), "READONLY")
	eventually.True(t, "the new server is asked", func() bool { return ping() == nil })
}

// A server that stays a replica is not dialled all the time.
func TestAServerThatStaysAReplicaIsDialledOnceASecond(t *testing.T) {
	for name, connect := range map[string]func(*endpoint, *testing.T) *redisnode.Redis{"its own client": (*endpoint).dial, "a caller's client": (*endpoint).wrap} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			e := startEndpoint(t, server)
			s := connect(e, t)
			demote(t, server)
			began, asked := time.Now(), 0
			for e.dials() < 4 {
				c := take(t, s, "k", "ours")
				require.Equal(t, node.Unknown, c.Outcome)
				if asked++; strings.Contains(c.Err.Error(), "READONLY") {
					require.ErrorIs(t, c.Err, node.ErrNotRun)
				}
				require.Less(t, time.Since(began), eventually.Soon)
			}
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second, "the first at once, and one in each second after that")
			require.Greater(t, asked, 10)
		})
	}
}

// These servers are masters: another dial would not help.
func TestAMasterThatRefusesWritesKeepsItsConnection(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	s := e.dial(t)
	require.Equal(t, node.Done, take(t, s, "a", "ours").Outcome)
	set := func(parameter, value string) {
		_, err := server.Do("CONFIG", "SET", parameter, value)
		require.NoError(t, err)
	}
	for code, cause := range map[string][3]string{
		"OOM":        {"maxmemory", "1", "0"},
		"NOREPLICAS": {"min-replicas-to-write", "1", "0"},
	} {
		set(cause[0], cause[1])
		for range 3 {
			c := take(t, s, "k", "ours")
			require.ErrorContains(t, c.Err, code)
			require.ErrorIs(t, c.Err, node.ErrNotRun)
			require.ErrorContains(t, do(t, s, node.Ping, 0, claim(0))[0].Err, code)
		}
		set(cause[0], cause[2])
		require.NoError(t, do(t, s, node.Ping, 0, claim(0))[0].Err)
	}
	require.Equal(t, 1, e.dials())
}

// A redial leaves no connection behind after Close.
func TestAStoreForgetsTheConnectionsThatAreClosed(t *testing.T) {
	e := startEndpoint(t, redistest.Start(t))
	s := e.dial(t)
	for range 5 {
		e.cut()
		eventually.True(t, "there is a connection", func() bool {
			return s.Do(t.Context(), []node.Command{{Kind: node.Look, Claim: claim(1)}}) == nil
		})
		require.LessOrEqual(t, redisnode.Open(s), 1)
	}
	s.Close()
	eventually.True(t, "all are closed", func() bool { return redisnode.Open(s) == 0 })
}

// The replaced master stays up as a replica, as after a planned failover.
func TestASentinelGroupsNewMasterIsFoundWhileTheOldOneLives(t *testing.T) {
	group := redistest.StartSentinel(t)
	option, reason := redisnode.ParseURL(group.URL())
	require.Empty(t, reason)
	option.DisableCache, option.AlwaysPipelining, option.PipelineMultiplex = true, true, -1
	s := redisnode.Dial(option, nil)
	t.Cleanup(s.Close)
	<-s.Tried()
	old := group.Master()
	require.Equal(t, node.Done, take(t, s, "before", "ours").Outcome)
	var asked time.Time
	eventually.True(t, "another server is the master", func() bool {
		if time.Since(asked) > 10*time.Second { // on a busy machine the Sentinels may abort a failover
			_, _ = group.Sentinels()[0].Do("SENTINEL", "FAILOVER", redistest.MasterSet)
			asked = time.Now()
		}
		role, err := old.Do("ROLE")
		return err == nil && role.([]any)[0] == "slave" // a server that becomes a replica closes its connections
	})
	eventually.True(t, "it is asked", func() bool { return take(t, s, "after", "ours").Outcome == node.Done })
	_, held := group.Master().Get(t, "after")
	require.True(t, held)
}
