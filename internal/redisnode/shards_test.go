package redisnode_test

import (
	"bytes"
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// waitForRueidis has the end of the test wait for goroutines of rueidis: a closed client of a Cluster
// leaves some that sleep for up to 5 s.
func waitForRueidis(t *testing.T) {
	t.Cleanup(func() {
		stacks := make([]byte, 1<<20)
		eventually.True(t, "rueidis' goroutines have ended", func() bool {
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("redis/rueidis."))
		})
	})
}

// cluster returns a Backend of a Cluster, which knows its slots.
func cluster(t *testing.T, c *redistest.Cluster) *redisnode.Redis {
	return clusterBy(t, rueidis.ClientOption{InitAddress: c.Addrs(), DisableCache: true, DisableRetry: true, ConnWriteTimeout: eventually.Soon})
}

func clusterBy(t *testing.T, option rueidis.ClientOption) *redisnode.Redis {
	waitForRueidis(t)
	client, err := rueidis.NewClient(option)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	s := redisnode.Wrap(client).(*redisnode.Redis)
	t.Cleanup(s.Close)
	eventually.True(t, "it knows its slots", func() bool {
		_ = s.Do(t.Context(), []node.Command{{Kind: node.Read, Claim: node.NewClaim([]string{"k"}, "token", 1)}})
		return len(s.Samples()) == 3
	})
	return s
}

// ear is one subscription.
type ear struct {
	ready chan struct{}
	heard chan string
	ended chan error
}

// listen subscribes to a channel until the test ends.
func listen(t *testing.T, s *redisnode.Redis, channel string) *ear {
	e := &ear{make(chan struct{}, 9), make(chan string, 9), make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ended <- s.Listen(ctx, channel, func() { e.ready <- struct{}{} }, func(p node.Push) { e.heard <- p.Token })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return e
}

// within receives from c.
func within[T any](t *testing.T, what string, c <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-c:
	case <-time.After(eventually.Soon):
		require.FailNow(t, "nothing", what)
	}
	return got
}

func TestSubscriptionsOfACluster(t *testing.T) {
	c := redistest.StartCluster(t)
	s := cluster(t, c)
	from, to := c.Owner("{order}"), c.Servers()[0]
	if from == to {
		to = c.Servers()[1]
	}
	do := func(s *redistest.Server, args ...string) any {
		t.Helper()
		answer, err := s.Do(args...)
		require.NoError(t, err)
		return answer
	}
	publish := func(at *redistest.Server, channel, token string) {
		t.Helper()
		require.EqualValues(t, 1, do(at, "SPUBLISH", channel, token+" nonce 1 0"))
	}
	const one, other = "{order}:1", "{order}:2"
	first, second := listen(t, s, one), listen(t, s, other)
	within(t, "ready", first.ready)
	within(t, "ready", second.ready)
	publish(from, one, "a")
	publish(from, other, "b")
	require.Equal(t, "a", within(t, "a push", first.heard))
	require.Equal(t, "b", within(t, "a push", second.heard))

	// The slot moves: the subscriptions end, and the next are on the other server at once.
	c.BeginMove("{order}", to)
	c.EndMove("{order}", to)
	require.ErrorIs(t, within(t, "the end", first.ended), node.ErrMoved)
	require.ErrorIs(t, within(t, "the end", second.ended), node.ErrMoved)
	first = listen(t, s, one)
	within(t, "ready", first.ready)
	publish(to, one, "c")
	require.Equal(t, "c", within(t, "a push", first.heard))

	// The server ends the subscription.
	slot := c.Slot("{order}")
	do(to, "CLUSTER", "DELSLOTS", strconv.Itoa(slot))
	require.ErrorIs(t, within(t, "the end", first.ended), node.ErrMoved)
	do(to, "CLUSTER", "ADDSLOTS", strconv.Itoa(slot))
	var e *ear
	eventually.True(t, "it subscribes again", func() bool {
		e = listen(t, s, one)
		select {
		case <-e.ready:
			return true
		case <-e.ended:
			return false
		}
	})
	publish(to, one, "d")
	require.Equal(t, "d", within(t, "a push", e.heard))

	// The connection breaks.
	do(to, "CLIENT", "KILL", "TYPE", "pubsub")
	require.ErrorIs(t, within(t, "the end", e.ended), node.ErrNotConnected)
	e = listen(t, s, one)
	within(t, "ready", e.ready)
	publish(to, one, "e")
	require.Equal(t, "e", within(t, "a push", e.heard))
}

// A subscription that the server has not answered ends with the connection.
func TestAnUnansweredSubscriptionOfAClusterEndsWithItsConnection(t *testing.T) {
	c := redistest.StartCluster(t)
	s := clusterBy(t, rueidis.ClientOption{InitAddress: c.Addrs(), DisableCache: true, AlwaysRESP2: true})
	within(t, "ready", listen(t, s, "{order}:1").ready)
	server := c.Owner("{order}")
	server.Pause()
	unanswered := listen(t, s, "{order}:2")
	time.Sleep(100 * time.Millisecond) // most often it has left by now
	server.Kill()
	require.ErrorIs(t, within(t, "the end", unanswered.ended), node.ErrNotConnected)
}

// SPUBLISH tells how many subscribers the key's server has: a waiter that does not listen there is
// passed over.
func TestADeadWaiterOfAClusterIsPassedOver(t *testing.T) {
	c := redistest.StartCluster(t)
	s := cluster(t, c)
	const key = "{order}"
	channel := node.KeyChannel(key, "nonce")
	e := listen(t, s, channel)
	within(t, "ready", e.ready)
	claim := func(token string) *node.Claim { return node.NewClaim([]string{key}, token, 1) }
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Acquire, Claim: claim("holder"), TTL: time.Minute, Script: true}).Outcome)
	require.Equal(t, node.Refused, joins(t, s, claim("dead"), node.KeyChannel(key, "another"), time.Minute, 1).Outcome)
	// The next is younger, or comes in the same ms: then the tokens are in order.
	require.Equal(t, node.Refused, joins(t, s, claim("waiter"), channel, time.Minute, 1).Outcome)
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Leave, Claim: claim("holder")}).Outcome)
	require.Equal(t, "waiter", within(t, "a push", e.heard))
	owner, _ := c.Owner(key).Get(t, key)
	require.Equal(t, "waiter", owner)
}

// A grant stands once its waiter has been told, whatever fails after that. While a slot is migrated,
// a script fails where it looks for a queue that has become empty.
func TestAGrantInAMigrationStands(t *testing.T) {
	c := redistest.StartCluster(t)
	s := cluster(t, c)
	const key = "{order}"
	from, to := c.Owner(key), c.Servers()[0]
	if from == to {
		to = c.Servers()[1]
	}
	channel := node.KeyChannel(key, "nonce")
	e := listen(t, s, channel)
	within(t, "ready", e.ready)
	fence := node.ClaimOptions{Floor: 1, Retention: time.Hour}
	holder, waiter := node.NewClaim([]string{key}, "holder", 1), node.NewClaim([]string{key}, "waiter", 1)
	for _, claim := range []*node.Claim{holder, waiter} {
		claim.Ask(fence)
	}
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Acquire, Claim: holder, TTL: time.Minute}).Outcome)
	require.Equal(t, node.Refused, joins(t, s, waiter, channel, time.Minute, 1).Outcome)
	c.BeginMove(key, to)
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Leave, Claim: holder}).Outcome)
	require.Equal(t, "waiter", within(t, "a push", e.heard))
	owner, _ := from.Get(t, key)
	require.Equal(t, "waiter", owner)
}

// A subscription ends at once, whatever its server does, and the next to its channel begins after it.
func TestTheEndOfASubscriptionOfAClusterWaitsForNoServer(t *testing.T) {
	c := redistest.StartCluster(t)
	s, owner := cluster(t, c), c.Owner("{order}")
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- s.Listen(ctx, "{order}:1", func() { ready <- struct{}{} }, func(node.Push) {})
	}()
	within(t, "ready", ready)
	other := listen(t, s, "{order}:2")
	within(t, "ready", other.ready)

	owner.Pause()
	cancel()
	within(t, "the end", ended)
	again := listen(t, s, "{order}:1")
	owner.Resume()
	within(t, "ready", again.ready)
	for channel, e := range map[string]*ear{"{order}:1": again, "{order}:2": other} { // the connection is the same
		answer, err := owner.Do("SPUBLISH", channel, "token nonce 1 0")
		require.NoError(t, err)
		require.EqualValues(t, 1, answer, channel)
		within(t, "a push", e.heard)
	}
}

// A slot that moves away from a server that is silent has its subscription, even one that the server
// has not answered, made on the server that has it now.
func TestASubscriptionOfAClusterLeavesASilentServer(t *testing.T) {
	c := redistest.StartClusterWithReplicas(t)
	redisnode.SetSubscribeTime(t, time.Hour)
	s := cluster(t, c)
	silent := c.Owner("{order}")
	replica := c.Replica(silent)
	elsewhere := "a"
	for c.Owner(elsewhere) == silent {
		elsewhere += "a"
	}
	old := listen(t, s, "{order}:1")
	within(t, "ready", old.ready)

	silent.Pause()
	unanswered := listen(t, s, "{order}:2")
	_, err := replica.Do("CLUSTER", "FAILOVER", "TAKEOVER")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // what asks the Cluster for its slots
		defer close(done)
		for len(old.ended) == 0 || len(unanswered.ended) == 0 {
			_ = s.Do(t.Context(), []node.Command{{Kind: node.Read, Claim: node.NewClaim([]string{elsewhere}, "token", 1)}})
			time.Sleep(10 * time.Millisecond)
		}
	}()
	within(t, "both have ended", done)
	require.ErrorIs(t, <-old.ended, node.ErrMoved)
	require.ErrorIs(t, <-unanswered.ended, node.ErrMoved)
	for _, channel := range []string{"{order}:1", "{order}:2"} {
		within(t, "ready", listen(t, s, channel).ready)
		answer, err := replica.Do("SPUBLISH", channel, "token nonce 1 0")
		require.NoError(t, err)
		require.EqualValues(t, 1, answer)
	}
	silent.Resume()
}
