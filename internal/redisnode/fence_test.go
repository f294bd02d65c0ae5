package redisnode_test

import (
	"math"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redistest"
)

// fenced is a claim with a fence of at least floor.
func fenced(token string, floor int64, keys ...string) *node.Claim {
	c := node.NewClaim(keys, token, 1)
	c.Ask(node.Terms{Floor: floor, Retention: time.Hour})
	return c
}

// one runs one command.
func one(t *testing.T, s node.Backend, c node.Command) node.Command {
	t.Helper()
	batch := []node.Command{c}
	require.NoError(t, s.Do(t.Context(), batch))
	return batch[0]
}

// The store in memory and a real server must count alike.
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
	require.ElementsMatch(t, []string{"plain", "tag{ged}", "unfenced", "{plain}:fence", "tag{ged}:fence"}, server.Keys(t))
	for _, counter := range []string{"{plain}:fence", "tag{ged}:fence"} {
		left, err := server.Do("PTTL", counter)
		require.NoError(t, err)
		require.InDelta(t, time.Hour/time.Millisecond, left, 10_000)
	}
}

func TestACounterThatIsNoneIsAnErrorThatNamesIt(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	for _, value := range []string{"hello", "-1", "1.5", "9007199254740991", "99999999999999999999999", ""} {
		_, err := server.Do("SET", "{k}:fence", value)
		require.NoError(t, err)
		c := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", 5, "k"), TTL: time.Minute})
		require.Equal(t, node.Unknown, c.Outcome)
		require.ErrorContains(t, c.Err, "the fence counter {k}:fence holds no number below 2^53")
		_, held := server.Get(t, "k")
		require.False(t, held)
	}
	_, err := server.Do("DEL", "{k}:fence")
	require.NoError(t, err)
	_, err = server.Do("RPUSH", "{k}:fence", "x")
	require.NoError(t, err)
	c := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", 5, "k"), TTL: time.Minute})
	require.Equal(t, node.Unknown, c.Outcome)
	require.ErrorContains(t, c.Err, "WRONGTYPE")
}

// Up to 2^53 - 1, and no digit is lost on the way.
func TestFencesAreExact(t *testing.T) {
	s := connect(t, redistest.Start(t))
	const largest = 1<<53 - 1
	require.EqualValues(t, largest-1, one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("one", largest-1, "k"), TTL: time.Minute}).Fence)
	do(t, s, node.Release, 0, node.NewClaim([]string{"k"}, "one", 1))
	require.EqualValues(t, largest, one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("two", 1, "k"), TTL: time.Minute}).Fence)
}

// A client whose clock is beyond what a counter holds gets no lock, and the counters stay as
// they are for the others.
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
		_, counted := server.Get(t, "{k}:fence")
		require.False(t, counted)
	}
	right := one(t, s, node.Command{Kind: node.Acquire, Claim: fenced("right", 5, "k"), TTL: time.Minute})
	require.EqualValues(t, 5, right.Fence)
}

// enter joins the queue of "k" with a fence of at least floor. The first join of a claim
// has come so long ago.
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
	_, err := server.Do("DEL", "{k}:fence")
	require.NoError(t, err)
	require.EqualValues(t, 1500, enter(t, s, fenced("fourth", 1, "k"), 0, 2, 1500).Fence, "its counter was evicted")
}

// A counter that is broken keeps no lock held.
func TestAReleaseWorksWithABrokenCounter(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	holding(t, server, "holder")
	enter(t, s, fenced("waiter", 1, "k"), 0, 1, 500)
	_, err := server.Do("SET", "{k}:fence", "hello")
	require.NoError(t, err)
	require.Equal(t, node.Done, leave(t, s, "holder"))
	_, held := server.Get(t, "k")
	require.False(t, held)
	require.ErrorContains(t, enter(t, s, fenced("waiter", 1, "k"), 0, 2, 500).Err, "{k}:fence")
	_, err = server.Do("PUBLISH", "grants", "nothing nonce-of-nothing 1 0")
	require.NoError(t, err)
	require.Equal(t, "nothing 1", next(t, told))
}

// guarded is a claim under a restart guard.
func guarded(token string, quarantine time.Duration, keys ...string) *node.Claim {
	c := node.NewClaim(keys, token, 1)
	c.Ask(node.Terms{Quarantine: quarantine})
	return c
}

func TestANodeThatMayHaveForgottenDoesNotVote(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	const quarantine = time.Minute
	number := 0
	votes := func() node.Command {
		number++
		key := "k" + strconv.Itoa(number)
		return one(t, s, node.Command{Kind: node.Acquire, Claim: guarded("one", quarantine, key), TTL: time.Minute})
	}
	refuses := func(why string) {
		t.Helper()
		asked := time.Now()
		c := votes()
		require.Equal(t, node.Unknown, c.Outcome, why)
		require.ErrorIs(t, c.Err, node.ErrNotRun)
		var q *node.Quarantined
		require.ErrorAs(t, c.Err, &q, why)
		require.WithinRange(t, q.Until, asked.Add(quarantine/2), time.Now().Add(quarantine+time.Second))
		c = enter(t, s, guarded("waiter", quarantine, "k"), 0, 1, 0)
		require.ErrorAs(t, c.Err, &q, "it takes no place in the queue either")
		c = one(t, s, node.Command{Kind: node.Extend, Claim: guarded("holder", quarantine, "held"), TTL: time.Minute})
		require.ErrorAs(t, c.Err, &q, "no extension sets what it may have forgotten")
		require.ErrorIs(t, c.Err, node.ErrNotRun)
		require.Equal(t, []string{"redlock:guard"}, server.Keys(t))
	}
	trust := func() {
		require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Trust, Claim: node.NewClaim([]string{"k"}, "", 1)}).Outcome)
		require.Equal(t, node.Done, votes().Outcome)
		require.Equal(t, node.Done, votes().Outcome)
	}
	refuses("it is new")
	refuses("it is still new")
	trust()
	_, err := server.Do("FLUSHALL")
	require.NoError(t, err)
	refuses("it was emptied")
	trust()
	server.Restart()
	eventually.True(t, "the server answers again", func() bool {
		return s.Do(t.Context(), []node.Command{{Kind: node.Ping, Claim: node.NewClaim([]string{"k"}, "x", 1)}}) == nil
	})
	refuses("it came back empty")
	trust()
	_, err = server.Do("SET", "redlock:guard", "0123456789abcdef-0123456789abcdef-0 0")
	require.NoError(t, err)
	_, err = server.Do("DEL", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11", "k12", "k13", "k14", "k15", "k16")
	require.NoError(t, err)
	refuses("its data is that of another run, as after a failover")
}

// pair is two servers of which either may follow the other, and drops its backlog after a
// second without replicas; and a guarded node, which is the first of them.
type pair struct {
	t             *testing.T
	first, second *redistest.Server
	node          node.Backend
	keys          int
}

func newPair(t *testing.T) *pair {
	args := []string{"--repl-backlog-ttl", "1", "--repl-diskless-sync-delay", "0"}
	p := &pair{t: t, first: redistest.Start(t, args...), second: redistest.Start(t, args...)}
	p.node = connect(t, p.first)
	return p
}

// replication is a field of what a server says of its replication.
func (p *pair) replication(s *redistest.Server, field string) string {
	p.t.Helper()
	info, err := s.Do("INFO", "replication")
	require.NoError(p.t, err)
	_, text, found := strings.Cut(info.(string), field+":")
	require.True(p.t, found)
	value, _, _ := strings.Cut(text, "\r\n")
	return value
}

func (p *pair) follow(replica, master *redistest.Server) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(p.t, err)
	_, err = replica.Do("REPLICAOF", host, port)
	require.NoError(p.t, err)
	eventually.True(p.t, "the replica follows", func() bool { return p.replication(replica, "master_link_status") == "up" })
}

func (p *pair) promote(s *redistest.Server) {
	p.t.Helper()
	_, err := s.Do("REPLICAOF", "NO", "ONE")
	require.NoError(p.t, err)
}

const noHistory = "0000000000000000000000000000000000000000"

// forgets waits until the first server has dropped its backlog.
func (p *pair) forgets() {
	p.t.Helper()
	eventually.True(p.t, "it drops its backlog", func() bool { return p.replication(p.first, "repl_backlog_active") == "0" })
	require.Equal(p.t, noHistory, p.replication(p.first, "master_replid2"))
}

func (p *pair) take() node.Command {
	p.keys++
	return one(p.t, p.node, node.Command{Kind: node.Acquire, Claim: guarded("one", time.Minute, "k"+strconv.Itoa(p.keys)), TTL: time.Minute})
}

func (p *pair) trust() {
	p.t.Helper()
	require.Equal(p.t, node.Done, one(p.t, p.node, node.Command{Kind: node.Trust, Claim: node.NewClaim([]string{"k"}, "", 1)}).Outcome)
}

func (p *pair) votes(why string) {
	p.t.Helper()
	require.Equal(p.t, node.Done, p.take().Outcome, why)
}

func (p *pair) refuses(why string) {
	p.t.Helper()
	for range 2 {
		var q *node.Quarantined
		require.ErrorAs(p.t, p.take().Err, &q, why)
	}
}

// A group that fails over and back: its first master has taken over what the second one knew.
func TestAMasterThatWasAReplicaMeanwhileDoesNotVote(t *testing.T) {
	p := newPair(t)
	p.trust()
	for range 2 {
		p.follow(p.second, p.first)
		p.votes("a new replica changes nothing")
		p.promote(p.second)
		p.follow(p.first, p.second)
		p.promote(p.first)
		require.NotEqual(t, noHistory, p.replication(p.first, "master_replid2"))
		p.refuses("it has the other's data")
		p.trust()
		p.votes("it is trusted")
	}
}

// Nor does it if it is asked only when it has dropped the backlog of that time, and has no
// master_replid2 any more.
func TestAMasterThatWasAReplicaLongAgoDoesNotVote(t *testing.T) {
	p := newPair(t)
	p.trust()
	p.follow(p.second, p.first)
	p.votes("it was never a replica")
	p.promote(p.second)
	p.follow(p.first, p.second)
	p.promote(p.first)
	p.forgets()
	p.refuses("nobody knows what it has forgotten")
}

// A promoted master passes one quarantine, and not a second one when it drops its backlog.
func TestAPromotedMasterIsQuarantinedOnce(t *testing.T) {
	p := newPair(t)
	p.follow(p.first, p.second)
	p.promote(p.first)
	p.refuses("it was a replica")
	p.trust()
	p.votes("its quarantine is over")
	p.forgets()
	p.votes("nothing has happened to it")
	p.follow(p.second, p.first) // which begins another history
	p.votes("a new replica changes nothing")
	p.promote(p.second)
	p.forgets()
	p.votes("nor does one that leaves")

	p.follow(p.first, p.second)
	p.promote(p.first)
	p.refuses("it was a replica again")
}

// What drops a backlog ends no quarantine either.
func TestAQuarantineOutlivesTheBacklog(t *testing.T) {
	p := newPair(t)
	p.follow(p.first, p.second)
	p.promote(p.first)
	var before, after *node.Quarantined
	require.ErrorAs(t, p.take().Err, &before)
	p.forgets()
	require.ErrorAs(t, p.take().Err, &after)
	require.WithinDuration(t, before.Until, after.Until, time.Second, "it is the same one")
}

func TestAQuarantineEnds(t *testing.T) {
	s := connect(t, redistest.Start(t))
	began := time.Now()
	take := func() node.Command {
		return one(t, s, node.Command{Kind: node.Acquire, Claim: guarded("one", 200*ms, "k"), TTL: time.Minute})
	}
	require.Error(t, take().Err)
	eventually.True(t, "the node votes", func() bool { return take().Outcome == node.Done })
	require.GreaterOrEqual(t, time.Since(began), 200*ms)
}

// A lock that was restored from an old snapshot is released by its late owner: the node
// must not give its vote to the one who waits.
func TestANodeInQuarantineGrantsToNobodyInItsQueue(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	one(t, s, node.Command{Kind: node.Trust, Claim: node.NewClaim([]string{"k"}, "", 1)})
	holding(t, server, "holder")
	require.Equal(t, node.Refused, enter(t, s, guarded("waiter", time.Minute, "k"), 0, 1, 0).Outcome)
	_, err := server.Do("SET", "redlock:guard", "0123456789abcdef-0123456789abcdef-0 0")
	require.NoError(t, err)
	c := enter(t, s, guarded("holder", time.Minute, "k"), 0, 1, 0)
	var q *node.Quarantined
	require.ErrorAs(t, c.Err, &q, "a key that is there may be one that was another's since")
	require.Equal(t, node.Done, leave(t, s, "holder"))
	_, held := server.Get(t, "k")
	require.False(t, held)
	_, err = server.Do("PUBLISH", "grants", "nothing nonce-of-nothing 1 0")
	require.NoError(t, err)
	require.Equal(t, "nothing 1", next(t, told))
}
