package redisnode_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// fenced returns a claim with a fence of at least floor.
func fenced(token string, floor int64, keys ...string) *node.Claim {
	c := node.NewClaim(keys, token, 1)
	c.Ask(node.ClaimOptions{Floor: floor, Retention: time.Hour})
	return c
}

// one runs one command.
func one(t *testing.T, s node.Backend, c node.Command) node.Command {
	t.Helper()
	batch := []node.Command{c}
	require.NoError(t, s.Do(t.Context(), batch))
	return batch[0]
}

// A node in memory and a real server must count alike.
func TestANodeCountsTheFencesOfEachKey(t *testing.T) {
	for name, s := range map[string]node.Backend{"real": connect(t, redistest.Start(t)), "in memory": &memnode.Backend{}} {
		t.Run(name, func(t *testing.T) {
			take := func(token string, floor int64, keys ...string) node.Command {
				return one(t, s, node.Command{Kind: node.Acquire, Claim: fenced(token, floor, keys...), TTL: time.Minute})
			}
			confirm := func(token string, fence int64, keys ...string) node.Command {
				return one(t, s, node.Command{Kind: node.Confirm, Claim: fenced(token, 1, keys...), Fence: fence})
			}
			free := func(token string, keys ...string) {
				require.Equal(t, node.Done, do(t, s, node.Release, 0, node.NewClaim(keys, token, 1))[0].Outcome)
			}
			c := take("one", 1_000_000, "a")
			require.Equal(t, node.Done, c.Outcome, "%v", c.Err)
			require.EqualValues(t, 1_000_000, c.Fence, "the floor, where there is no counter")
			require.Equal(t, node.Refused, take("other", 2_000_000, "a").Outcome)
			require.Equal(t, node.Refused, confirm("other", 3_000_000, "a").Outcome, "only its owner raises the counter")
			require.EqualValues(t, 1_000_000, confirm("one", 999_999, "a").Fence, "never down")
			require.EqualValues(t, 1_000_005, confirm("one", 1_000_005, "a").Fence)
			free("one", "a")
			require.Equal(t, node.Refused, confirm("one", 4_000_000, "a").Outcome, "not when it is released")
			require.EqualValues(t, 1_000_006, take("two", 7, "a").Fence, "one above the counter, where the floor is below")

			require.Equal(t, node.Refused, take("both", 9_000_000, "a", "b").Outcome)
			require.EqualValues(t, 8, take("three", 8, "b").Fence, "a refusal counts nothing")
			free("two", "a")
			free("three", "b")
			require.EqualValues(t, 1_000_007, take("both", 9, "a", "b").Fence, "one for all keys")
			free("both", "a", "b")
			require.EqualValues(t, 1_000_008, take("four", 9, "b").Fence)

			unfenced := one(t, s, node.Command{Kind: node.Acquire, Claim: node.NewClaim([]string{"c"}, "five", 1), TTL: time.Minute})
			require.Zero(t, unfenced.Fence)
		})
	}
}

func TestACounterLivesForItsRetentionAndNoLonger(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", 1, "plain", "tag{ged}"), TTL: time.Minute})
	one(t, s, node.Command{Kind: node.Acquire, Claim: node.NewClaim([]string{"unfenced"}, "two", 1), TTL: time.Minute})
	require.ElementsMatch(t, []string{"plain", "tag{ged}", "unfenced", "{plain}:redlock:fence", "tag{ged}:redlock.fence"}, server.Keys(t))
	for _, counter := range []string{"{plain}:redlock:fence", "tag{ged}:redlock.fence"} {
		left, err := server.Do("PTTL", counter)
		require.NoError(t, err)
		require.InDelta(t, time.Hour/time.Millisecond, left, 10_000)
	}
}

func TestACounterThatIsNoneIsAnErrorThatNamesIt(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	for _, value := range []string{"hello", "-1", "1.5", "9007199254740991", "99999999999999999999999", ""} {
		_, err := server.Do("SET", "{k}:redlock:fence", value)
		require.NoError(t, err)
		c := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", 5, "k"), TTL: time.Minute})
		require.Equal(t, node.Unknown, c.Outcome)
		require.ErrorContains(t, c.Err, "the fence counter {k}:redlock:fence holds no number below 2^53")
		_, held := server.Get(t, "k")
		require.False(t, held)
	}
	_, err := server.Do("DEL", "{k}:redlock:fence")
	require.NoError(t, err)
	_, err = server.Do("RPUSH", "{k}:redlock:fence", "x")
	require.NoError(t, err)
	c := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", 5, "k"), TTL: time.Minute})
	require.Equal(t, node.Unknown, c.Outcome)
	require.ErrorContains(t, c.Err, "WRONGTYPE")
}

// Fences are exact up to 2^53 - 1.
func TestFencesAreExact(t *testing.T) {
	s := connect(t, redistest.Start(t))
	const largest = 1<<53 - 1
	require.EqualValues(t, largest-1, one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", largest-1, "k"), TTL: time.Minute}).Fence)
	do(t, s, node.Release, 0, node.NewClaim([]string{"k"}, "one", 1))
	require.EqualValues(t, largest, one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("two", 1, "k"), TTL: time.Minute}).Fence)
}

// A client whose clock is beyond the range of a counter gets no lock, and the counters stay
// unchanged for other clients.
func TestAFloorThatLeavesNoRoomToCountIsRefused(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	listening(t, s)
	for _, floor := range []int64{1<<53 - 1, 1 << 53, math.MaxInt64} {
		c := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("wrong", floor, "k"), TTL: time.Minute})
		require.Equal(t, node.Unknown, c.Outcome)
		require.ErrorContains(t, c.Err, "the clock of the client is wrong")
		c = enter(t, s, fenced("waits", 1, "k"), 0, 1, floor)
		require.Equal(t, node.Unknown, c.Outcome)
		_, held := server.Get(t, "k")
		require.False(t, held)
		_, counted := server.Get(t, "{k}:redlock:fence")
		require.False(t, counted)
	}
	right := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("right", 5, "k"), TTL: time.Minute})
	require.EqualValues(t, 5, right.Fence)
}

// enter joins the queue of "k" with a fence of at least floor, for a claim that first joined ago
// before now.
func enter(t *testing.T, s node.Backend, claim *node.Claim, ago time.Duration, number, floor int64) node.Command {
	t.Helper()
	return one(t, s, node.Command{Kind: node.Join, Claim: claim, Nonce: "nonce-of-" + claim.Token, Entry: &node.Entry{
		Number: number, Order: time.Now().Add(-ago).UnixMilli(), Floor: floor, Channel: "grants", Window: 10 * time.Second, Lease: 15 * time.Second,
	}})
}

func TestAGrantOfTheQueueIsNumbered(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	holder := fenced("holder", 1000, "k")
	require.EqualValues(t, 1000, one(t, s, node.Command{Kind: node.Acquire, Claim: holder, TTL: time.Minute}).Fence)
	first, second, third := fenced("first", 1, "k"), node.NewClaim([]string{"k"}, "second", 1), fenced("third", 1, "k")
	require.Equal(t, node.Refused, enter(t, s, first, 300*ms, 2, 500).Outcome)
	require.Equal(t, node.Refused, enter(t, s, second, 200*ms, 1, 0).Outcome)
	require.Equal(t, node.Refused, enter(t, s, third, 100*ms, 2, 2000).Outcome)
	require.Equal(t, node.Refused, enter(t, s, third, 0, 1, 5000).Outcome, "overtaken: its floor does not count")

	leave(t, s, "holder")
	require.Equal(t, "first 2 1001", next(t, told))
	c := enter(t, s, first, 0, 3, 9000)
	require.Equal(t, node.Done, c.Outcome)
	require.EqualValues(t, 9000, c.Fence, "a vote has at least the floor of the call that it counts from")
	leave(t, s, "first")
	require.Equal(t, "second 1", next(t, told), "without a fence")
	leave(t, s, "second")
	require.Equal(t, "third 2 9001", next(t, told))
	c = enter(t, s, third, 0, 3, 5000)
	require.EqualValues(t, 9001, c.Fence, "an answer says what the push said")
	leave(t, s, "third")
	c = enter(t, s, fenced("fourth", 1, "k"), 0, 1, 1500)
	require.Equal(t, node.Done, c.Outcome, "a free key is taken at once")
	require.EqualValues(t, 9002, c.Fence)
	_, err := server.Do("DEL", "{k}:redlock:fence")
	require.NoError(t, err)
	require.EqualValues(t, 1500, enter(t, s, fenced("fourth", 1, "k"), 0, 2, 1500).Fence, "its counter was evicted")
}

// A broken counter does not prevent a release.
func TestAReleaseWorksWithABrokenCounter(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	holding(t, server, "holder")
	enter(t, s, fenced("waiter", 1, "k"), 0, 1, 500)
	_, err := server.Do("SET", "{k}:redlock:fence", "hello")
	require.NoError(t, err)
	require.Equal(t, node.Done, leave(t, s, "holder"))
	_, held := server.Get(t, "k")
	require.False(t, held)
	require.ErrorContains(t, enter(t, s, fenced("waiter", 1, "k"), 0, 2, 500).Err, "{k}:redlock:fence")
	_, err = server.Do("PUBLISH", "grants", "nothing nonce-of-nothing 1 0")
	require.NoError(t, err)
	require.Equal(t, "nothing 1", next(t, told))
}
