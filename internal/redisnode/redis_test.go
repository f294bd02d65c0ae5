package redisnode_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func unreachable() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, ForceSingleClient: true, DisableCache: true}
}

func connect(t *testing.T, s *redistest.Server) *redisnode.Redis {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return redisnode.Wrap(client).(*redisnode.Redis)
}

// do runs a pipeline of commands of one kind.
func do(t *testing.T, s node.Backend, kind node.Kind, ttl time.Duration, claims ...*node.Claim) []node.Command {
	t.Helper()
	var batch []node.Command
	for _, c := range claims {
		batch = append(batch, node.Command{Kind: kind, Claim: c, TTL: ttl})
	}
	require.NoError(t, s.Do(context.Background(), batch))
	return batch
}

// Other tests use nodes in memory. A real server must answer as they do.
func TestOneKeyIsTakenWithoutAScriptOnceOneHasSucceeded(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	require.Equal(t, node.Refused, do(t, s, node.Release, 0, node.NewClaim([]string{"k"}, "ours", 1))[0].Outcome)
	_, err := server.Do("CONFIG", "RESETSTAT")
	require.NoError(t, err)
	acquire := func(token string, ttl time.Duration) node.Outcome {
		return do(t, s, node.Acquire, ttl, node.NewClaim([]string{"k"}, token, 1))[0].Outcome
	}
	require.Equal(t, node.Done, acquire("ours", 1500*time.Microsecond+time.Minute))
	require.Equal(t, node.Refused, acquire("another", time.Minute))
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
	s := connect(t, server)
	set := func(key, value, px string) {
		_, err := server.Do("SET", key, value, "PX", px)
		require.NoError(t, err)
	}
	pttl := func(key string) time.Duration {
		left, err := server.Do("PTTL", key)
		require.NoError(t, err)
		return time.Duration(left.(int64)) * time.Millisecond
	}
	for round := range 2 { // in the second the server knows the scripts
		ours := node.NewClaim([]string{"a", "b"}, "ours", 1)
		require.Equal(t, node.Done, do(t, s, node.Acquire, time.Minute, ours)[0].Outcome)
		require.Greater(t, pttl("a"), 50*time.Second)
		require.Equal(t, node.Refused, do(t, s, node.Acquire, time.Minute, node.NewClaim([]string{"b", "c"}, "another", 1))[0].Outcome)
		_, held := server.Get(t, "c")
		require.False(t, held, "all or none")

		extend := func(ttl time.Duration) node.Outcome {
			batch := do(t, s, node.Extend, ttl, ours, node.NewClaim([]string{"b"}, "our", 1))
			require.Equal(t, node.Refused, batch[1].Outcome, "a prefix of the token is another token")
			return batch[0].Outcome
		}
		require.Equal(t, node.Done, extend(time.Hour))
		require.Greater(t, pttl("a"), 50*time.Minute)
		require.Equal(t, node.Done, extend(time.Second))
		require.Greater(t, pttl("a"), 50*time.Minute, "never shorter")
		_, err := server.Do("DEL", "a")
		require.NoError(t, err)
		require.Equal(t, node.Refilled, extend(time.Hour))
		owner, _ := server.Get(t, "a")
		require.Equal(t, "ours", owner)
		set("b", "another", "60000")
		_, err = server.Do("DEL", "a")
		require.NoError(t, err)
		require.Equal(t, node.Refused, extend(time.Hour))
		_, held = server.Get(t, "a")
		require.False(t, held, "nothing is changed where one is another's")

		set("a", "ours", "60000")
		batch := do(t, s, node.Release, 0, node.NewClaim([]string{"a"}, "our", 1), ours, node.NewClaim([]string{"a"}, "ours", 1))
		require.Equal(t, node.Refused, batch[0].Outcome)
		require.Equal(t, node.Refused, batch[1].Outcome, "one of two")
		require.Equal(t, node.Refused, batch[2].Outcome, "it is gone")
		_, held = server.Get(t, "a")
		require.False(t, held)
		owner, _ = server.Get(t, "b")
		require.Equal(t, "another", owner)
		set("a", "ours", "60000")
		set("b", "ours", "60000")
		require.Equal(t, node.Done, do(t, s, node.Release, 0, ours)[0].Outcome)
		_, err = server.Do("FLUSHALL")
		require.NoError(t, err, "round %d", round)
	}
}

// A key of a foreign type counts as another owner's.
func TestAKeyOfAForeignTypeIsAnotherOwners(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	foreign := func(key string) {
		_, err := server.Do("DEL", key)
		require.NoError(t, err)
		_, err = server.Do("RPUSH", key, "x")
		require.NoError(t, err)
	}
	foreign("b")
	one, both := node.NewClaim([]string{"b"}, "ours", 1), node.NewClaim([]string{"a", "b"}, "ours", 1)
	for _, c := range []*node.Claim{one, both} {
		batch := append(do(t, s, node.Acquire, time.Minute, c), do(t, s, node.Extend, time.Minute, c)...)
		for _, command := range append(batch, do(t, s, node.Release, 0, c)...) {
			require.NoError(t, command.Err)
			require.Equal(t, node.Refused, command.Outcome)
		}
	}
	// One key becomes such a key while the lock is held: the other key is released.
	_, err := server.Do("DEL", "b")
	require.NoError(t, err)
	require.Equal(t, node.Done, do(t, s, node.Acquire, time.Minute, both)[0].Outcome)
	foreign("b")
	require.Equal(t, node.Refused, do(t, s, node.Release, 0, both)[0].Outcome)
	require.Equal(t, []string{"b"}, server.Keys(t))
}

func TestManyExtensionsLeaveInSeveralPipelines(t *testing.T) {
	server := redistest.Start(t)
	n := node.New(0, "n", connect(t, server), false)
	var held []*node.Claim
	for i := range 1000 {
		held = append(held, claim(i))
	}
	extendAll := func() []quorum.Reply {
		var handlers []memnode.Replies
		for _, c := range held {
			v := make(memnode.Replies, 1)
			n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: c, TTL: time.Minute, Handler: v})
			handlers = append(handlers, v)
		}
		var replies []quorum.Reply
		for _, v := range handlers {
			replies = append(replies, <-v)
		}
		return replies
	}
	for i, reply := range extendAll() {
		require.ErrorContains(t, reply.Err, "key was missing", "claim %d", i)
	}
	for i, reply := range extendAll() {
		require.NoError(t, reply.Err, "claim %d", i)
	}
	for _, c := range held {
		c.End()
		n.Abandon(c)
	}
	require.NoError(t, n.Close(10*time.Second))
	require.Empty(t, server.Keys(t))
}

func TestErrNotRunKeepsTheTextAndTheType(t *testing.T) {
	s := redisnode.Dial(unreachable(), nil)
	defer s.Close()
	<-s.Tried()
	batch := []node.Command{{Kind: node.Acquire, Claim: claim(1), TTL: time.Second}}
	err := s.Do(context.Background(), batch)
	require.ErrorIs(t, err, node.ErrNotConnected)
	require.Equal(t, err, batch[0].Err)
	require.ErrorIs(t, err, node.ErrNotRun)
	require.ErrorContains(t, err, "not connected: ")
	require.False(t, errors.Is(err, context.DeadlineExceeded))
}

const ms = time.Millisecond

// claim returns the i-th of many claims.
func claim(i int) *node.Claim {
	return node.NewClaim([]string{fmt.Sprint("k", i)}, fmt.Sprint("token", i), 1)
}
