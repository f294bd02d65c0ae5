package redisnode_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// deployment is a server or a node in memory: both must answer alike.
type deployment struct {
	node.Backend
	set    func(key, value string)
	remove func(key string)
	get    func(key string) string
}

// onBoth runs a test on a real server and on a node in memory.
func onBoth(t *testing.T, test func(t *testing.T, d deployment)) {
	t.Run("server", func(t *testing.T) {
		server := redistest.Start(t)
		run := func(args ...string) {
			_, err := server.Do(args...)
			require.NoError(t, err)
		}
		test(t, deployment{
			Backend: connect(t, server),
			set:     func(key, value string) { run("SET", key, value, "PX", "60000") },
			remove:  func(key string) { run("DEL", key) },
			get:     func(key string) string { value, _ := server.Get(t, key); return value },
		})
	})
	t.Run("memory", func(t *testing.T) {
		s := &memnode.Backend{}
		test(t, deployment{
			Backend: s,
			set:     func(key, value string) { s.Set(key, value, time.Minute) },
			remove:  s.Delete,
			get:     func(key string) string { value, _ := s.Get(key); return value },
		})
	})
}

// again asks for a claim that has been asked for before.
func again(t *testing.T, s node.Backend, c *node.Claim, ttl time.Duration) node.Command {
	t.Helper()
	batch := []node.Command{{Kind: node.Acquire, Claim: c, TTL: ttl, Script: true}}
	require.NoError(t, s.Do(context.Background(), batch))
	require.NoError(t, batch[0].Err)
	return batch[0]
}

func TestAClaimThatAsksAgainIsToldItsOwnToken(t *testing.T) {
	onBoth(t, func(t *testing.T, d deployment) {
		for _, keys := range [][]string{{"a"}, {"a", "b", "c"}} {
			ours := node.NewClaim(keys, "ours", 1)
			require.Equal(t, node.Done, again(t, d, ours, time.Minute).Outcome)
			c := again(t, d, ours, time.Hour)
			require.Equal(t, node.Refused, c.Outcome)
			require.Equal(t, "ours", c.Owner)
			c = again(t, d, node.NewClaim(keys, "others", 1), time.Hour)
			require.Equal(t, node.Refused, c.Outcome)
			require.Equal(t, "ours", c.Owner)
			require.Equal(t, node.Done, do(t, d, node.Release, 0, ours)[0].Outcome)
		}
	})
}

// If one of several keys is gone, it is acquired again, unless another owner has it.
func TestAKeyThatIsGoneIsTakenAgainUnlessAnotherHasIt(t *testing.T) {
	onBoth(t, func(t *testing.T, d deployment) {
		ours := node.NewClaim([]string{"a", "b", "c"}, "ours", 1)
		require.Equal(t, node.Done, again(t, d, ours, time.Minute).Outcome)
		d.remove("b")
		require.Equal(t, node.Done, again(t, d, ours, time.Minute).Outcome)
		require.Equal(t, "ours", d.get("b"))
		d.remove("a")
		d.set("c", "others")
		c := again(t, d, ours, time.Minute)
		require.Equal(t, node.Refused, c.Outcome)
		require.Equal(t, "others", c.Owner)
		require.Equal(t, []string{"", "ours", "others"}, []string{d.get("a"), d.get("b"), d.get("c")}, "nothing is changed")
	})
}

// Validity counts from the first ask, so a later one raises nothing that it finds.
func TestAClaimThatAsksAgainRaisesNothing(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	number := func(args ...string) int64 {
		n, err := server.Do(args...)
		require.NoError(t, err)
		if text, ok := n.(string); ok {
			value, err := strconv.ParseInt(text, 10, 64)
			require.NoError(t, err)
			return value
		}
		return n.(int64)
	}
	for _, keys := range [][]string{{"k"}, {"k", "l"}} {
		_, err := server.Do("FLUSHALL")
		require.NoError(t, err)
		ours := fenced("ours", 1000, keys...)
		require.EqualValues(t, 1000, again(t, s, ours, time.Minute).Fence)
		require.Equal(t, node.Refused, again(t, s, ours, time.Hour).Outcome)
		require.LessOrEqual(t, number("PTTL", "k"), int64(60_000))
		require.EqualValues(t, 1000, number("GET", "{k}:redlock:fence"), "no fence is used up")
	}
}

// read asks who owns the keys.
func read(t *testing.T, s node.Backend, keys ...string) node.Command {
	t.Helper()
	c := do(t, s, node.Read, 0, node.NewClaim(keys, "reader", 1))[0]
	require.NoError(t, c.Err)
	return c
}

func TestAReadTellsTheOwnerAndChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, d deployment) {
		require.Equal(t, node.Done, read(t, d, "a").Outcome)
		require.Equal(t, node.Done, read(t, d, "a", "b").Outcome)
		d.set("b", "owner")
		for _, keys := range [][]string{{"b"}, {"a", "b"}, {"b", "c"}} {
			c := read(t, d, keys...)
			require.Equal(t, node.Refused, c.Outcome)
			require.Equal(t, "owner", c.Owner)
		}
		d.set("a", "another")
		require.Equal(t, "another", read(t, d, "a", "b").Owner, "of the first")
		require.Equal(t, node.Done, read(t, d, "c").Outcome)
		require.Empty(t, d.get("c"))
	})
}

func TestAReadOfAKeyOfAForeignTypeNamesNoOwner(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	_, err := server.Do("RPUSH", "b", "x")
	require.NoError(t, err)
	for _, keys := range [][]string{{"b"}, {"a", "b"}} {
		c := read(t, s, keys...)
		require.Equal(t, node.Refused, c.Outcome)
		require.Equal(t, node.Foreign, c.Owner)
	}
	_, err = server.Do("SET", "e", "")
	require.NoError(t, err)
	require.Equal(t, node.Foreign, read(t, s, "e").Owner, "an empty value is no token")
	require.Equal(t, []string{"b", "e"}, server.Keys(t))
}
