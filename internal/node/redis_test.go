package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redistest"
)

func unreachable() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true, DisableCache: true}
}

func connect(t *testing.T, s *redistest.Server) *node.Redis {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return node.Wrap(client)
}

// The store in memory, with which the rest is tested, and a real server must
// answer alike.
func TestOneKeyIsTakenWithoutAScript(t *testing.T) {
	server := redistest.Start(t)
	s, ctx := connect(t, server), context.Background()
	ok, err := s.Acquire(ctx, []string{"k"}, "ours", 1500*time.Microsecond+time.Minute)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = s.Acquire(ctx, []string{"k"}, "another", time.Minute)
	require.NoError(t, err)
	require.False(t, ok)
	owner, _ := server.Get(t, "k")
	require.Equal(t, "ours", owner)
	stats, err := server.Do("INFO", "commandstats")
	require.NoError(t, err)
	require.NotContains(t, stats, "eval")
	left, err := server.Do("PTTL", "k")
	require.NoError(t, err)
	require.Greater(t, left.(int64), int64(time.Minute/time.Millisecond)-5000)
}

func TestScripts(t *testing.T) {
	server := redistest.Start(t)
	s, ctx := connect(t, server), context.Background()
	set := func(key, value, px string) {
		_, err := server.Do("SET", key, value, "PX", px)
		require.NoError(t, err)
	}
	pttl := func(key string) time.Duration {
		left, err := server.Do("PTTL", key)
		require.NoError(t, err)
		return time.Duration(left.(int64)) * time.Millisecond
	}
	for round := range 2 { // the second with the scripts known
		ok, err := s.Acquire(ctx, []string{"a", "b"}, "ours", time.Minute)
		require.NoError(t, err)
		require.True(t, ok)
		require.Greater(t, pttl("a"), 50*time.Second)
		ok, err = s.Acquire(ctx, []string{"b", "c"}, "another", time.Minute)
		require.NoError(t, err)
		require.False(t, ok)
		_, held := server.Get(t, "c")
		require.False(t, held, "all or none")

		ours := &node.Claim{Keys: []string{"a", "b"}, Token: "ours"}
		extend := func(ttl time.Duration) node.Extension {
			batch := []node.Extension{{Claim: ours, TTL: ttl}, {Claim: &node.Claim{Keys: []string{"b"}, Token: "our"}, TTL: ttl}}
			s.Extend(ctx, batch)
			require.Equal(t, node.Taken, batch[1].Outcome, "a prefix of the token is another token")
			return batch[0]
		}
		require.Equal(t, node.Extended, extend(time.Hour).Outcome)
		require.Greater(t, pttl("a"), 50*time.Minute)
		require.Equal(t, node.Extended, extend(time.Second).Outcome)
		require.Greater(t, pttl("a"), 50*time.Minute, "never shorter")
		_, err = server.Do("DEL", "a")
		require.NoError(t, err)
		require.Equal(t, node.Refilled, extend(time.Hour).Outcome)
		owner, _ := server.Get(t, "a")
		require.Equal(t, "ours", owner)
		set("b", "another", "60000")
		_, err = server.Do("DEL", "a")
		require.NoError(t, err)
		require.Equal(t, node.Taken, extend(time.Hour).Outcome)
		_, held = server.Get(t, "a")
		require.False(t, held, "nothing is changed where one is another's")

		set("a", "ours", "60000")
		their := &node.Claim{Keys: []string{"a"}, Token: "our"}
		release := []node.Deletion{{Claim: their}, {Claim: ours}}
		s.Release(ctx, release)
		require.Equal(t, []node.Deletion{{Claim: their}, {Claim: ours, Deleted: 1}}, release)
		owner, _ = server.Get(t, "b")
		require.Equal(t, "another", owner)
		_, err = server.Do("FLUSHALL")
		require.NoError(t, err, "round %d", round)
	}
}

func TestABatchMayBeLargerThanOnePipeline(t *testing.T) {
	server := redistest.Start(t)
	n := node.New(0, "n", connect(t, server))
	var batch []node.Extension
	for i := range 1000 {
		batch = append(batch, node.Extension{Claim: claim(i), TTL: time.Minute})
	}
	for i, reply := range n.ExtendAll(batch) {
		require.ErrorContains(t, reply.Err, "the key was gone", "claim %d", i)
	}
	for i, reply := range n.ExtendAll(batch) {
		require.NoError(t, reply.Err, "claim %d", i)
	}
	for _, e := range batch {
		e.Claim.End()
		n.Abandon(e.Claim)
	}
	require.NoError(t, n.Close(10*time.Second))
	require.Empty(t, server.Keys(t))
}
