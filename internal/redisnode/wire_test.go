package redisnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// Only an error that proves that SET did not run is marked so: any other may come from a proxy
// that has lost the answer.
func TestOnlyCertainRefusalsOfSETCountAsNotRun(t *testing.T) {
	for answer, notRun := range map[string]bool{
		"OOM command not allowed when used memory > 'maxmemory'.":             true,
		"READONLY You can't write against a read only replica.":               true,
		"NOPERM User redlock has no permissions to run the 'set' command":     true,
		"NOAUTH Authentication required.":                                     true,
		"WRONGPASS invalid username-password pair or user is disabled.":       true,
		"MOVED 3999 127.0.0.1:6381":                                           true,
		"ASK 3999 127.0.0.1:6381":                                             true,
		"LOADING Redis is loading the dataset in memory":                      true,
		"BUSY Redis is busy running a script.":                                true,
		"MISCONF Redis is configured to save RDB snapshots":                   true,
		"CLUSTERDOWN The cluster is down":                                     true,
		"CROSSSLOT Keys in request don't hash to the same slot":               true,
		"TRYAGAIN Multiple keys request during rehashing of slot":             true,
		"MASTERDOWN Link with MASTER is down":                                 true,
		"NOREPLICAS Not enough good replicas to write.":                       true,
		"DENIED Redis is running in protected mode because protected mode is": true,
		"ERR max number of clients reached":                                   true,
		"ERR unknown command 'SET', with args beginning with: 'k' 'a token'":  true,
		"ERR proxy: upstream timed out":                                       false,
		"ERR proxy":                                                           false,
		"ERR":                                                                 false,
		"ERR server closed connection":                                        false,
		"ERR syntax error":                                                    false,
		"ERR upstream failure":                                                false,
		"upstream failure":                                                    false,
		"NOTREADONLY x":                                                       false,
		"OOMBA x":                                                             false,
		"EXECABORT Transaction discarded":                                     false,
		"IOERR error or timeout reading to target instance":                   false,
		"WRONGTYPE Operation against a key holding the wrong kind of value":   false,
		"proxy says: READONLY You can't write against a read only replica.":   false,
		"ERR Error running script: LOADING":                                   false,
		"UNKILLABLE Sorry the script already executed write commands":         false,
		"NOSCRIPT No matching script.":                                        false,
		"":                                                                    false,
	} {
		server := startFake(t)
		server.answer([]byte("-"+answer+"\r\n"), goOn, false)
		client, err := rueidis.NewClient(server.option())
		require.NoError(t, err)
		batch := []node.Command{{Kind: node.Acquire, Claim: node.NewClaim([]string{"k"}, "a token", 1), TTL: time.Minute}}
		require.NoError(t, Wrap(client).Do(t.Context(), batch), "the server has answered")
		client.Close()
		require.Equal(t, node.Unknown, batch[0].Outcome)
		require.Equal(t, notRun, errors.Is(batch[0].Err, node.ErrNotRun), "%q", answer)
		require.NotContains(t, batch[0].Err.Error(), "a token")
	}
	for _, err := range []error{io.EOF, errors.New("READONLY by a client"), &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, context.Canceled} {
		require.False(t, surelyNotRun(err), "%v", err)
	}
}

func TestWhatAServerQuotesIsCut(t *testing.T) {
	for text, want := range map[string]string{
		"ACL failure in script: User redlock has no permissions to run the 'get' command script: 79cd0a, on @user_script:8.": "ACL failure in script: User redlock has no permissions to run the 'get' command",
		"ERR unknown command 'SET', with args beginning with: 'k' 'token' ":                                                  "ERR unknown command 'SET'",
		"ERR unknown command 'x', with args beginning with: 'a' script: 79cd0a, on @user_script:8.":                          "ERR unknown command 'x'",
		"ERR Error in a script: of mine":           "ERR Error in a script: of mine",
		"OOM script: 79cd0a, on another:1":         "OOM script: 79cd0a, on another:1",
		"WRONGPASS invalid username-password pair": "WRONGPASS invalid username-password pair",
	} {
		require.EqualError(t, discreet(errors.New(text)), want)
	}
}

// refusingServer answers each connection with text, and closes it.
func refusingServer(t *testing.T, text string, listen func(*greeter)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &greeter{text: text}
	if listen != nil {
		listen(g)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			g.serve(conn)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

type greeter struct {
	text  string
	after bool // the server waits for the first command
	reset bool // the server resets the connection
	seen  atomic.Int64
}

func (g *greeter) serve(conn net.Conn) {
	defer conn.Close()
	g.seen.Add(1)
	if g.after {
		_, _ = conn.Read(make([]byte, 4096))
	}
	_, _ = conn.Write([]byte(g.text))
	if g.reset {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
}

const protected = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user. " +
	"In this mode connections are only accepted from the loopback interface. If you want to connect from external computers to Redis you may adopt one of the following solutions: " +
	"1) Just disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server is running.\r\n"

func TestAServerThatRefusesAConnectionIsQuoted(t *testing.T) {
	for said, want := range map[string]string{
		"-ERR max number of clients reached\r\n": "not connected: ERR max number of clients reached",
		protected:                                "not connected: DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user",
		"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'secret'\r\n": "not connected: ERR unknown command 'HELLO'",
		"-" + strings.Repeat("ä", 1000) + "\r\n":                                                    "not connected: " + strings.Repeat("ä", 100),
	} {
		for _, after := range []bool{false, true} {
			for range 20 { // the server's end of the connection and ours race
				addr := refusingServer(t, said, func(g *greeter) { g.after = after })
				option := rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, DialCtxFn: Attentive(nil, false)}
				s := Dial(option, nil)
				<-s.Tried()
				batch := []node.Command{{Kind: node.Acquire, Claim: node.NewClaim([]string{"k"}, "token", 1), TTL: time.Minute}}
				err := s.Do(t.Context(), batch)
				s.Close()
				require.EqualError(t, err, want)
				require.ErrorIs(t, err, node.ErrNotConnected)
				require.ErrorIs(t, batch[0].Err, node.ErrNotRun)
			}
		}
	}
}

// A client goes on without HELLO only if a proxy refuses it in Redis' words.
func TestAProxyThatRefusesHELLOIsNamedAsThat(t *testing.T) {
	for _, said := range []string{"ERR unsupported command 'HELLO'", "unsupported command 'HELLO'", "NOPROTO unsupported protocol version"} {
		server := startFake(t)
		server.refuseHello("-" + said + "\r\n")
		for _, resp2 := range []bool{false, true} {
			option := server.option()
			option.AlwaysRESP2 = resp2
			s := Dial(option, nil)
			<-s.Tried()
			err := s.Do(t.Context(), []node.Command{{Kind: node.Acquire, Claim: node.NewClaim([]string{"k"}, "token", 1), TTL: time.Minute}})
			s.Close()
			require.ErrorIs(t, err, node.ErrNotConnected)
			require.ErrorContains(t, err, "not connected: HELLO was refused: "+strings.TrimPrefix(said, "ERR "))
			require.ErrorContains(t, err, "for RESP2, over which locks, queues and fences work too, add ?protocol=2 to the URL, or set AlwaysRESP2")
		}
	}
}

func TestAServerThatClosesWithoutAWordIsToldSo(t *testing.T) {
	addr := refusingServer(t, "", func(g *greeter) { g.after = true })
	s := Dial(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DialCtxFn: Attentive(nil, false)}, nil)
	<-s.Tried()
	err := s.Do(t.Context(), []node.Command{{Kind: node.Acquire, Claim: node.NewClaim([]string{"k"}, "token", 1), TTL: time.Minute}})
	s.Close()
	require.ErrorContains(t, err, "not connected: the server closed the connection without replying: ")
	require.ErrorContains(t, err, "it may expect TLS, or be a proxy without HELLO: add ?protocol=2 to the URL")
	require.ErrorIs(t, err, node.ErrNotConnected)
}

func TestAServerThatRefusesOurCertificateIsToldSo(t *testing.T) {
	err := &handshakeError{err: fmt.Errorf("write: %w", &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")})}
	require.EqualError(t, err, "the server refused the TLS handshake: tls: certificate required (for a client certificate: tls_cert and tls_key in the URL, or TLSConfig)")
}

// An error of the handshake that did not end the connection does not explain a later end: a
// command may have run by then.
func TestAConnectionInUseSpeaksForItself(t *testing.T) {
	for name, first := range map[string]string{"refused": "-ERR unknown command 'HELLO'\r\n", "greeted": "%0\r\n"} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				b := make([]byte, 100)
				_, _ = theirs.Read(b)
				_, _ = theirs.Write([]byte(first))
				_, _ = theirs.Read(b)
				theirs.Close()
			}()
			conn, err := Attentive(func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return ours, nil }, false)(t.Context(), "", nil, nil)
			require.NoError(t, err)
			defer conn.Close()
			b := make([]byte, 100)
			_, err = conn.Write([]byte("HELLO"))
			require.NoError(t, err)
			n, err := conn.Read(b)
			require.NoError(t, err)
			require.Equal(t, first, string(b[:n]))
			_, err = conn.Write([]byte("SET"))
			require.NoError(t, err)
			_, err = conn.Read(b)
			require.Equal(t, io.EOF, err)
			require.False(t, dialFailed(err))
			_, err = conn.Write([]byte("SET"))
			require.Equal(t, io.ErrClosedPipe, err)
		})
	}
}

// The error of a dial is rueidis' own, and proves that nothing was sent.
func TestTheErrorOfADialPasses(t *testing.T) {
	_, err := Attentive(nil, false)(t.Context(), "127.0.0.1:1", &net.Dialer{}, nil)
	require.True(t, dialFailed(err))
	require.ErrorContains(t, err, "connection refused")
	failed := errors.New("mine")
	_, err = Attentive(func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return nil, failed }, false)(t.Context(), "", nil, nil)
	require.Equal(t, failed, err)
	require.False(t, dialFailed(fmt.Errorf("x: %w", io.EOF)))
	require.True(t, dialFailed(fmt.Errorf("x: %w", &handshakeError{err: io.EOF})))
}
