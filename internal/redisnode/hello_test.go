package redisnode_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

const (
	auth  = "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"
	hello = "*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n"
	ping  = "*1\r\n$4\r\nPING\r\n"
)

// Only a client with AlwaysRESP2 is kept from HELLO, and only in its handshake: a key or a value
// of a later command may hold any text.
func TestOnlyTheHandshakeOfRESP2IsWithoutHELLO(t *testing.T) {
	const answer, refusal, hello3 = "+OK\r\n", "-NO\r\n", "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
	for _, c := range []struct {
		resp2     bool
		first     string
		sent      string
		answer    string
		unchanged []string // the writes after the first answer
	}{
		{true, hello, ping, answer, []string{hello}},
		{true, hello, ping, refusal, []string{hello, hello}},
		{true, auth + hello, auth + ping, answer, []string{auth + hello, hello}},
		{true, auth, auth, answer, []string{hello}},
		{true, hello3, hello3, answer, nil},
		{false, hello, hello, answer, []string{hello}},
	} {
		ours, theirs := net.Pipe()
		conn, err := redisnode.Attentive(func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return ours, nil }, c.resp2)(t.Context(), "", nil, nil)
		require.NoError(t, err)
		exchange := func(text, want string) {
			t.Helper()
			got := make(chan string, 1)
			go func() {
				b := make([]byte, 1024)
				n, _ := theirs.Read(b) // all of a write
				_, _ = theirs.Write([]byte(c.answer))
				got <- string(b[:n])
			}()
			n, err := conn.Write([]byte(text))
			require.NoError(t, err)
			require.Equal(t, len(text), n)
			_, err = io.ReadFull(conn, make([]byte, len(c.answer)))
			require.NoError(t, err)
			require.Equal(t, want, <-got)
		}
		exchange(c.first, c.sent)
		for _, text := range c.unchanged {
			exchange(text, text)
		}
		conn.Close()
		theirs.Close()
	}
}

func TestAUserWithoutPINGIsToldThatRESP2NeedsIt(t *testing.T) {
	server := redistest.Start(t)
	_, err := server.Do("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-ping")
	require.NoError(t, err)
	_, err = redisnode.Connect(overRESP2(server))
	require.ErrorContains(t, err, "PING was refused: NOPERM ")
	require.ErrorContains(t, err, "(over RESP2 a connection begins with PING instead of HELLO: give the user +ping)")
}

// overRESP2 is for a client of the user app.
func overRESP2(s *redistest.Server) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		AlwaysRESP2: true, ClientSetInfo: rueidis.DisableClientSetInfo, DialCtxFn: redisnode.Attentive(nil, true),
		Username: "app", Password: "secret",
	}
}

// A user may have no access to the key that a Ping passes a proxy with.
func TestAPingOverRESP2NeedsNoKey(t *testing.T) {
	for _, options := range [][]string{nil, {"--rename-command", "HELLO", ""}} {
		server := redistest.Start(t, options...)
		_, err := server.Do("ACL", "SETUSER", "app", "on", ">secret", "~app:*", "+@all")
		require.NoError(t, err)
		s := redisnode.Dial(overRESP2(server), nil)
		<-s.Tried()
		for range 2 {
			c := one(t, s, node.Command{Kind: node.Ping, Claim: node.NewClaim(s.Samples(), "token", 1), TTL: time.Minute})
			require.NoError(t, c.Err)
			require.Equal(t, node.Done, c.Outcome)
		}
		s.Close()
	}
}
