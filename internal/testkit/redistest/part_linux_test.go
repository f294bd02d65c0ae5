package redistest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

func TestHAProxySendsNewConnectionsElsewhereAndKeepsTheOpenOnes(t *testing.T) {
	servers := StartN(t, 2)
	h := StartHAProxy(t, servers[0])
	mustDo(t, servers[0], "SET", "is", "first")
	mustDo(t, servers[1], "SET", "is", "second")
	open := dial(t, h.Addr())
	require.Equal(t, "first", open.do("GET", "is"))
	h.Point(servers[1])
	require.Equal(t, "second", dial(t, h.Addr()).do("GET", "is"))
	require.Equal(t, "first", open.do("GET", "is"))
	h.Point(servers[0])
	h.Cut()
	open.end()
}

func TestHAProxyCutsConnectionsThatAreIdle(t *testing.T) {
	s := Start(t)
	c := dial(t, StartHAProxy(t, s, "timeout client 100ms", "timeout server 100ms").Addr())
	require.Equal(t, "PONG", c.do("PING"))
	c.end()
}

func TestTwemproxyServesLocksAndEndsConnectionsThatSayHELLO(t *testing.T) {
	servers := StartN(t, 2)
	addr := StartTwemproxy(t, servers...).Addr()
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		key := id + ":order" // keys that differ at the end are together
		c := dial(t, addr)
		require.Equal(t, "OK", c.do("SET", key, "v", "NX"))
		require.Equal(t, "v", c.do("EVAL", "return redis.call('GET', KEYS[1])", "2", key, "{"+key+"}:x"), "the tag is hashed")
	}
	require.NotEmpty(t, servers[0].Keys(t))
	require.NotEmpty(t, servers[1].Keys(t))
	for _, command := range [][]string{{"HELLO", "2"}, {"CLIENT", "ID"}, {"SUBSCRIBE", "c"}, {"EVAL", "return 1", "0"}} {
		c := dial(t, addr)
		c.send(command...)
		require.ErrorIs(t, c.end(), io.EOF, "%q", command)
	}
}

func TestStunnelWantsACertificateAndAName(t *testing.T) {
	s := Start(t)
	tunnel := StartStunnel(t, s)
	require.Equal(t, "rediss://localhost:"+portOf(tunnel.Addr()), tunnel.URL())
	ca, cert, key := tunnel.Files(t)
	pool := x509.NewCertPool()
	text, err := os.ReadFile(ca)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(text))
	own, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	ping := func(name string, certificates ...tls.Certificate) error {
		conn, err := tls.Dial("tcp", tunnel.Addr(), &tls.Config{RootCAs: pool, ServerName: name, Certificates: certificates})
		if err != nil {
			return err
		}
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(eventually.Soon)))
		if _, err := io.WriteString(conn, command("PING")); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, len("+PONG\r\n")))
		return err
	}
	require.NoError(t, ping("localhost", own))
	require.Error(t, ping("127.0.0.1", own), "an address is not sent as a name")
	require.Error(t, ping("localhost"))
}

func TestAMissingPartFailsWithTheWayToInstallIt(t *testing.T) {
	message := fatal(t, func(t testing.TB) {
		startPart(t, "some-package", "no-such-program", func(*part) (string, []string, error) { return "", nil, nil })
	})
	require.Contains(t, message, "no-such-program")
	require.Contains(t, message, "make deps")
	require.Contains(t, message, "some-package")
}

func TestAPartThatCannotStartShowsItsOutput(t *testing.T) {
	s := Start(t)
	message := fatal(t, func(t testing.TB) { StartHAProxy(t, s, "nonsense on") })
	require.Contains(t, message, errExited.Error())
	require.Contains(t, message, "nonsense")
}
