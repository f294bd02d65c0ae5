//go:build unix

package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestStatusSaysWhereAKeyIsHeldAndForHowLong(t *testing.T) {
	servers := redistest.StartN(t, 3)
	code, stdout, _ := use(t, list(servers), "status", "k")
	require.Zero(t, code)
	require.Contains(t, stdout, `"k" is free: on 0 of 3 nodes, 2 needed`)

	holder := begin(t, list(servers), "run", "-ttl", "1h", "-metadata", "job 7 on web-1", "-fence", "k", "--", "sh", "-c", idle)
	holder.says("runs")
	for _, s := range servers {
		eventually.True(t, "it is set everywhere", func() bool { return len(s.Keys(t)) == 2 }) // and its counter
	}
	token, _ := servers[0].Get(t, "k")
	code, stdout, _ = use(t, list(servers), "status", "k")
	require.Zero(t, code)
	require.Contains(t, stdout, `"k" is held: on 3 of 3 nodes, 2 needed`)
	require.Regexp(t, servers[0].Addr()+` +held +59m\S+ +\d{16} +job 7 on web-1\n`, stdout)
	require.NotContains(t, stdout, token[:26])

	code, stdout, _ = use(t, list(servers), "status", "-json", "k")
	require.Zero(t, code)
	require.NotContains(t, stdout, token[:26])
	var s status
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.Equal(t, "held", s.State)
	require.Equal(t, 2, s.Quorum)
	require.Len(t, s.Nodes, 3)
	for i, n := range s.Nodes {
		require.Equal(t, servers[i].Addr(), n.Node)
		require.True(t, n.Held)
		require.InDelta(t, 3_600_000, *n.TTLms, 60_000)
		require.Equal(t, "job 7 on web-1", n.Holder)
		require.Positive(t, n.Fence)
	}
}

func TestStatusWithoutAQuorumExitsWith69(t *testing.T) {
	servers := redistest.StartN(t, 3)
	servers[0].Kill()
	servers[1].Kill()
	code, stdout, stderr := use(t, list(servers), "status", "k")
	require.Equal(t, 69, code)
	require.Contains(t, stdout, "connection refused")
	require.Contains(t, stdout, `"k" is unknown`)
	require.Contains(t, stderr, "redlock: status \"k\": ")
}

func TestStatusTellsAKeyThatIsNoLock(t *testing.T) {
	s := redistest.Start(t)
	_, err := s.Do("SET", "k", "v")
	require.NoError(t, err)
	code, stdout, _ := use(t, s.Addr(), "status", "k")
	require.Zero(t, code)
	require.Contains(t, stdout, "never: this is no lock")
}
