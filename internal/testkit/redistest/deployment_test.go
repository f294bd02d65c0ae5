//go:build unix

package redistest

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

func TestSentinelsPromoteAReplicaAndTakeTheOldMasterBack(t *testing.T) {
	s := StartSentinel(t)
	assert.Len(t, s.Addrs(), 3)
	assert.Equal(t, "redis://"+s.Addrs()[0]+"?addr="+s.Addrs()[1]+"&addr="+s.Addrs()[2]+"&master_set=mymaster", s.URL())
	require.Same(t, s.Servers()[0], s.Master())
	mustDo(t, s.Master(), "SET", "k", "before")
	for _, server := range s.Servers() {
		server.waitFor(t, "k")
	}
	killed := s.KillMaster()
	require.Same(t, s.Servers()[0], killed)
	require.NotSame(t, killed, s.Master())
	mustDo(t, s.Master(), "SET", "after", "v")
	killed.Restart()
	eventually.True(t, "the old one follows", func() bool {
		value, err := killed.Do("GET", "after") // a Sentinel closes its connections when it demotes it
		return err == nil && value == "v"
	})
}

func TestAClusterServesEachKeyByItsOwnerAndMovesSlots(t *testing.T) {
	c := StartCluster(t)
	require.Len(t, c.Addrs(), 3)
	require.Equal(t, 12182, c.Slot("foo"))
	owner := c.Owner("foo")
	require.Same(t, c.Servers()[2], owner)
	mustDo(t, owner, "SET", "foo", "v")
	_, err := c.Servers()[0].Do("GET", "foo")
	require.ErrorContains(t, err, "MOVED 12182 "+owner.Addr())

	to := c.Servers()[0]
	c.BeginMove("foo", to)
	_, err = owner.Do("GET", "{foo}2")
	require.ErrorContains(t, err, "ASK 12182 "+to.Addr())
	c.EndMove("foo", to)
	require.Equal(t, "v", mustDo(t, to, "GET", "foo"))
	eventually.True(t, "the others know", func() bool {
		_, err := c.Servers()[1].Do("GET", "foo")
		return err != nil && strings.Contains(err.Error(), to.Addr())
	})

	key := c.KeyOf(c.Servers()[1], "k")
	c.Servers()[0].Kill()
	mustDo(t, c.Servers()[1], "SET", key, "v")
}

func TestAReplicaOfAClusterTakesOverWhenItIsToldAndWhenItsMasterDies(t *testing.T) {
	c := StartClusterWithReplicas(t)
	require.Len(t, c.Servers(), 6)
	key := c.KeyOf(c.Servers()[0], "k")
	master := c.Owner(key)
	mustDo(t, master, "SET", key, "v")

	promoted := c.Failover(master)
	require.Same(t, c.Servers()[3], promoted)
	require.Same(t, promoted, c.Owner(key))
	require.Same(t, master, c.Replica(promoted), "the old one follows")
	require.Equal(t, "v", mustDo(t, promoted, "GET", key), "no write is lost")

	require.Same(t, master, c.KillMaster(promoted))
	require.Same(t, master, c.Owner(key))
	promoted.Restart()
	require.Same(t, master, c.Owner(key), "the one that was dead does not count until it knows")
	require.Same(t, promoted, c.Replica(master))
}

func TestATLSServerWantsACertificate(t *testing.T) {
	s := StartTLS(t)
	require.NotEqual(t, s.Addr(), s.TLSAddr())
	ping := func(config *tls.Config) error {
		conn, err := tls.Dial("tcp", s.TLSAddr(), config)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("PING\r\n")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 16))
		return err
	}
	config := s.TLSConfig(t)
	require.NoError(t, ping(config))
	config.Certificates = nil
	require.Error(t, ping(config), "the server refuses a client that it does not know")
	require.ErrorContains(t, ping(&tls.Config{}), "certificate", "and a client one that it does not")
}
