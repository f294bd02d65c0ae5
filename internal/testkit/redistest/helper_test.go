//go:build unix

package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const quiet = 50 * time.Millisecond // long enough for what must not happen

func startProxied(t *testing.T) (*Server, *Proxy) {
	t.Helper()
	s := Start(t)
	return s, NewProxy(t, s.Addr())
}

func mustDo(t *testing.T, s *Server, args ...string) any {
	t.Helper()
	reply, err := s.Do(args...)
	require.NoError(t, err, "%q", args)
	return reply
}

func (s *Server) waitFor(t *testing.T, key string) {
	t.Helper()
	eventually.True(t, "the server holds "+key, func() bool {
		_, ok := s.Get(t, key)
		return ok
	})
}

// waitForClients waits until the server has n clients besides the oracle.
func (s *Server) waitForClients(t *testing.T, n int) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the server has %d clients", n), func() bool {
		list := mustDo(t, s, "CLIENT", "LIST").(string)
		return strings.Count(list, "\n") == n+1
	})
}

func (p *Proxy) waitForConnections(t *testing.T, n int) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("the proxy has %d connections", n), func() bool { return p.Connections() == n })
}

// conn is a client that sends and receives separately.
type conn struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, eventually.Soon)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	c := &conn{Conn: nc, t: t, r: bufio.NewReader(nc)}
	require.NoError(t, nc.SetDeadline(time.Now().Add(eventually.Soon)))
	return c
}

func (c *conn) send(args ...string) {
	c.t.Helper()
	_, err := io.WriteString(c, command(args...))
	require.NoError(c.t, err)
}

func (c *conn) reply() any {
	c.t.Helper()
	reply, err := readReply(c.r)
	require.NoError(c.t, err)
	return reply
}

func (c *conn) do(args ...string) any {
	c.t.Helper()
	c.send(args...)
	return c.reply()
}

// silent checks that neither a whole reply nor an end comes for a while.
func (c *conn) silent() {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(quiet)))
	_, err := c.r.ReadString('\n')
	require.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(eventually.Soon)))
}

// end returns how the connection ended, which it must, without another byte.
func (c *conn) end() error {
	c.t.Helper()
	_, err := c.r.ReadByte()
	require.Error(c.t, err)
	require.NotErrorIs(c.t, err, os.ErrDeadlineExceeded)
	return err
}

// isReset reports whether the connection was reset, whether a read or a write found that.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// fatal returns the message with which f fails the test that it is called with.
func fatal(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	tb := &fatalTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(tb)
	}()
	<-done
	require.NotEmpty(t, tb.message, "did not fail")
	return tb.message
}

type fatalTB struct {
	testing.TB
	message string
}

func (tb *fatalTB) Fatalf(format string, args ...any) {
	tb.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
