package redisnode_test

import (
	"net"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// moving is a Cluster that migrates the slot of {k}, and a client that does not repeat commands.
type moving struct {
	t        *testing.T
	node     node.Backend
	cluster  *redistest.Cluster
	from, to *redistest.Server
}

func newMoving(t *testing.T) *moving {
	waitForRueidis(t)
	m := &moving{t: t, cluster: redistest.StartCluster(t)}
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: m.cluster.Addrs(), DisableCache: true, DisableRetry: true, Dialer: net.Dialer{Timeout: eventually.Soon},
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	m.node = redisnode.Wrap(client)
	t.Cleanup(m.node.Close)
	m.from, m.to = m.cluster.Owner("{k}"), m.cluster.Servers()[0]
	if m.from == m.to {
		m.to = m.cluster.Servers()[1]
	}
	return m
}

// moves moves one key, as a migration does one after the other.
func (m *moving) moves(key string) {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.to.Addr())
	require.NoError(m.t, err)
	_, err = m.from.Do("MIGRATE", host, port, key, "0", "5000")
	require.NoError(m.t, err)
}

// Some keys are on either side, or are on none, as a key's companions mostly are.
func TestHeldLocksLiveThroughTheMigrationOfTheirSlot(t *testing.T) {
	m := newMoving(t)
	one, both := node.NewClaim([]string{"{k}"}, "one", 1), node.NewClaim([]string{"{k}a", "{k}b"}, "both", 1)
	is := func(want node.Outcome, kind node.Kind, c *node.Claim) node.Command {
		t.Helper()
		c1 := do(t, m.node, kind, time.Minute, c)[0]
		require.Equal(t, want, c1.Outcome, "%v", c1.Err)
		return c1
	}
	holds := func(c *node.Claim) {
		t.Helper()
		is(node.Done, node.Extend, c)
	}
	is(node.Done, node.Acquire, one)
	is(node.Done, node.Acquire, both)
	m.cluster.BeginMove("{k}", m.to)
	holds(one)
	holds(both)
	m.moves("{k}a")
	holds(both)
	require.True(t, do(t, m.node, node.Extend, time.Minute, both)[0].Partial, "it was sent key by key")

	c := is(node.Unknown, node.Acquire, node.NewClaim([]string{"{k}a", "{k}c"}, "another", 1))
	require.ErrorContains(t, c.Err, "TRYAGAIN")
	require.ErrorIs(t, c.Err, node.ErrNotRun, "several keys are not acquired one by one")
	is(node.Refused, node.Extend, node.NewClaim([]string{"{k}a", "{k}b"}, "another", 1))
	third := node.NewClaim([]string{"{k}b", "{k}c"}, "both", 1)
	is(node.Refilled, node.Extend, third) // {k}c was missing
	holds(third)
	is(node.Refused, node.Release, node.NewClaim([]string{"{k}a", "{k}b"}, "another", 1))
	is(node.Done, node.Release, node.NewClaim([]string{"{k}a", "{k}c"}, "both", 1))
	is(node.Refilled, node.Extend, both)
	holds(both)

	is(node.Done, node.Leave, one) // on the side that has the key
	is(node.Done, node.Acquire, one)
	is(node.Done, node.Leave, one) // on the other side: the key was missing here
	require.True(t, is(node.Refused, node.Leave, one).Partial, "it may wait in the queue, which was not touched")
	is(node.Done, node.Acquire, one)
	m.cluster.EndMove("{k}", m.to)
	eventually.True(t, "they are held on the other side", func() bool {
		batch := do(t, m.node, node.Extend, time.Minute, one, both)
		return batch[0].Outcome == node.Done && batch[1].Outcome == node.Done
	})
	is(node.Done, node.Leave, one)
	is(node.Done, node.Release, both)
	require.Empty(t, append(m.from.Keys(t), m.to.Keys(t)...))
}
