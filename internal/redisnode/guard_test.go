package redisnode_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// guarded returns a claim under a restart guard.
func guarded(token string, quarantine time.Duration, keys ...string) *node.Claim {
	c := node.NewClaim(keys, token, 1)
	c.Ask(node.ClaimOptions{Quarantine: quarantine})
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

// replication returns a field of a server's INFO replication.
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

// A group fails over and back: its first master has the data of the second one.
func TestAMasterThatWasAReplicaForAWhileDoesNotVote(t *testing.T) {
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

// Nor does it vote if it is first asked when it has dropped the backlog of that time, and no
// longer has a master_replid2.
func TestAMasterThatWasAReplicaLongAgoDoesNotVote(t *testing.T) {
	p := newPair(t)
	p.trust()
	p.follow(p.second, p.first)
	p.votes("it was never a replica")
	p.promote(p.second)
	p.follow(p.first, p.second)
	p.promote(p.first)
	p.forgets()
	p.refuses("it may have forgotten locks")
}

// A promoted master goes through one quarantine, and not through another when it drops its
// backlog.
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

// Dropping a backlog ends no quarantine either.
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

// A caller without a guard may not touch the marker. It leaves the key free for a waiter with one,
// which keeps its turn, and is told to join again.
func TestAWaiterWithAGuardIsNotGrantedByACallerWithoutOne(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	heard := pushes(t, s)
	one(t, s, node.Command{Kind: node.Trust, Claim: node.NewClaim([]string{"k"}, "", 1)})
	joinAs := func(c *node.Claim, channel string, number int64) node.Command {
		t.Helper()
		return joins(t, s, c, channel, time.Minute, number)
	}
	waiter, other := guarded("waiter", time.Minute, "k"), node.NewClaim([]string{"k"}, "other", 1)
	free := func() {
		t.Helper()
		_, held := server.Get(t, "k")
		require.False(t, held)
	}
	told := func(want node.Push) {
		t.Helper()
		select {
		case p := <-heard:
			require.Equal(t, want, p)
		case <-time.After(eventually.Soon):
			require.FailNow(t, "it is not told")
		}
	}
	comeBack := node.Push{Token: "waiter", Nonce: "nonce-of-waiter"}

	holding(t, server, "holder")
	require.Equal(t, node.Refused, joinAs(node.NewClaim([]string{"k"}, "dead", 1), "unheard", 1).Outcome)
	later(t, server)
	require.Equal(t, node.Refused, joinAs(waiter, "pushes", 1).Outcome)
	later(t, server)
	require.Equal(t, node.Refused, joinAs(other, "pushes", 1).Outcome)
	require.Equal(t, node.Done, leave(t, s, "holder"))
	free() // and not the dead waiter's
	told(comeBack)
	c := joinAs(other, "pushes", 2)
	require.Equal(t, node.Refused, c.Outcome, "it is not its turn")
	require.Empty(t, c.Owner)
	require.Equal(t, 1, c.Rank)
	free()
	told(comeBack)
	require.Equal(t, node.Done, joinAs(waiter, "pushes", 2).Outcome)

	leaving := one(t, s, node.Command{Kind: node.Leave, Claim: waiter})
	require.Equal(t, node.Done, leaving.Outcome)
	told(node.Push{Token: "other", Nonce: "nonce-of-other", Number: 2})
	require.Equal(t, node.Refused, joinAs(waiter, "pushes", 3).Outcome)
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Leave, Claim: guarded("other", time.Minute, "k")}).Outcome)
	told(node.Push{Token: "waiter", Nonce: "nonce-of-waiter", Number: 3}) // by a caller with a guard
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Leave, Claim: waiter}).Outcome)

	holding(t, server, "holder")
	require.Equal(t, node.Refused, joinAs(waiter, "unheard", 4).Outcome)
	require.Equal(t, node.Done, leave(t, s, "holder"))
	require.Equal(t, node.Done, joinAs(other, "pushes", 3).Outcome, "the waiter with a guard is dead")
}

// A lock that was restored from an old snapshot is released by its late owner: the node must not
// give its vote to the waiter.
func TestANodeInQuarantineGrantsNothingToItsQueue(t *testing.T) {
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
	left := one(t, s, node.Command{Kind: node.Leave, Claim: guarded("holder", time.Minute, "k")})
	require.Equal(t, node.Done, left.Outcome)
	_, held := server.Get(t, "k")
	require.False(t, held)
	_, err = server.Do("PUBLISH", "grants", "nothing nonce-of-nothing 1 0")
	require.NoError(t, err)
	require.Equal(t, "nothing 1", next(t, told))
}
