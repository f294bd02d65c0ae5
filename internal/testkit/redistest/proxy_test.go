//go:build unix

package redistest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

func TestProxyPassesEverythingUnchanged(t *testing.T) {
	s, p := startProxied(t)
	assert.Equal(t, "redis://"+p.Addr(), p.URL())
	c := dial(t, p.Addr())
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for i := range 4 {
		c.send("SET", fmt.Sprint(i), big)
	}
	for i := range 4 {
		c.send("GET", fmt.Sprint(i))
	}
	for range 4 {
		assert.Equal(t, "OK", c.reply())
	}
	for range 4 {
		assert.True(t, big == c.reply())
	}
	assert.Len(t, s.Keys(t), 4)
}

func TestDelayIsLatencyPerDirection(t *testing.T) {
	const latency = 150 * time.Millisecond
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")

	p.Delay(latency, 0)
	start := time.Now()
	c.send("SET", "requests", "")
	_, early := s.Get(t, "requests")
	assert.False(t, early && time.Since(start) < latency)
	c.reply()
	assert.GreaterOrEqual(t, time.Since(start), latency)

	p.Delay(0, latency)
	start = time.Now()
	c.send("SET", "replies", "")
	s.waitFor(t, "replies")
	assert.Less(t, time.Since(start), latency, "the request must not be delayed")
	c.reply()
	assert.GreaterOrEqual(t, time.Since(start), latency)

	p.Delay(0, 0)
	start = time.Now()
	c.do("PING")
	assert.Less(t, time.Since(start), latency)
}

func TestDelayDoesNotLimitThroughput(t *testing.T) {
	const latency = 200 * time.Millisecond
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.Delay(0, latency)
	start := time.Now()
	for i := range 20 {
		// One after the other has run, so every reply is a chunk of its own.
		key := fmt.Sprint(i)
		c.send("SET", key, "")
		s.waitFor(t, key)
	}
	for range 20 {
		c.reply()
	}
	assert.GreaterOrEqual(t, time.Since(start), latency)
	assert.Less(t, time.Since(start), 10*latency, "20 in a row would take 20 delays")
}

func TestShorterDelayFreesWhatAlreadyWaits(t *testing.T) {
	_, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.Delay(time.Hour, time.Hour)
	c.send("PING")
	c.silent()
	p.Delay(0, 0)
	assert.Equal(t, "PONG", c.reply())
}

func TestDribblePassesReplyBytesOneByOne(t *testing.T) {
	const step = 10 * time.Millisecond
	_, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.Dribble(step)
	start := time.Now()
	assert.Equal(t, "PONG", c.do("PING"))
	assert.Equal(t, "PONG", c.do("PING"))
	assert.GreaterOrEqual(t, time.Since(start), step*time.Duration(2*len("+PONG\r\n")-1))

	p.Dribble(time.Hour)
	c.send("ECHO", "all the rest comes at once")
	c.silent()
	p.Dribble(0)
	assert.Equal(t, "all the rest comes at once", c.reply())
}

func TestBlackHoleKeepsConnectionsOpenAndDeliversAfterwards(t *testing.T) {
	s, p := startProxied(t)
	before := dial(t, p.Addr())
	before.do("PING")
	p.BlackHole(true)
	during := dial(t, p.Addr())
	before.send("RPUSH", "list", "1")
	during.send("SET", "during", "")
	before.silent()
	before.send("RPUSH", "list", "2")
	during.silent()
	assert.Empty(t, s.Keys(t))
	assert.Equal(t, 2, p.Connections())

	p.BlackHole(false)
	assert.Equal(t, int64(1), before.reply())
	assert.Equal(t, int64(2), before.reply())
	assert.Equal(t, "OK", during.reply())
	assert.Equal(t, []any{"1", "2"}, mustDo(t, s, "LRANGE", "list", "0", "-1"))
}

func TestBlackHoleHoldsReplies(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.HoldReplies(true)
	c.send("SET", "k", "v")
	s.waitFor(t, "k")
	p.BlackHole(true)
	p.HoldReplies(false)
	c.silent()
	p.BlackHole(false)
	assert.Equal(t, "OK", c.reply())
}

func TestBlackHoleHidesTheServersDeath(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.BlackHole(true)
	s.Kill()
	c.send("PING")
	dial(t, p.Addr()).silent()
	c.silent()
	p.BlackHole(false)
	assert.Error(t, c.end())
}

func TestBlackHoleDropsWhatClosedConnectionsLeft(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.BlackHole(true)
	c.send("SET", "old", "")
	require.NoError(t, c.Close())
	p.waitForConnections(t, 0)
	c = dial(t, p.Addr())
	p.waitForConnections(t, 1)
	c.send("SET", "new", "")
	require.NoError(t, c.Close())
	p.waitForConnections(t, 0)
	p.BlackHole(false)
	dial(t, p.Addr()).do("PING")
	s.waitForClients(t, 1)
	time.Sleep(quiet)
	assert.Empty(t, s.Keys(t))
}

func TestHoldRepliesLetsTheCommandRun(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.HoldReplies(true)
	c.send("SET", "k", "v")
	s.waitFor(t, "k")
	c.silent()
	p.HoldReplies(false)
	assert.Equal(t, "OK", c.reply())
}

func TestHoldRequestsKeepsTheCommandFromRunning(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.HoldRequests(true)
	c.send("SET", "k", "v")
	c.silent()
	assert.Empty(t, s.Keys(t))
	p.HoldRequests(false)
	assert.Equal(t, "OK", c.reply())
	s.waitFor(t, "k")
}

func TestHeldRequestOfAClosedConnectionIsAGhost(t *testing.T) {
	s, p := startProxied(t)
	p.HoldRequests(true)
	c := dial(t, p.Addr())
	c.send("SET", "ghost", "")
	c.silent()
	require.NoError(t, c.Close())
	assert.Empty(t, s.Keys(t))
	p.HoldRequests(false)
	s.waitFor(t, "ghost")
	p.waitForConnections(t, 0)
}

func TestRefuseResetsOldAndNewConnections(t *testing.T) {
	_, p := startProxied(t)
	addr := p.Addr()
	c := dial(t, addr)
	c.do("PING")
	p.Refuse(true)
	assert.ErrorIs(t, c.end(), syscall.ECONNRESET)
	assert.Zero(t, p.Connections())
	for range 3 {
		_, err := probe(addr, "PING")
		assert.True(t, isReset(err), "%v", err)
	}
	p.Refuse(false)
	assert.Equal(t, addr, p.Addr())
	assert.Equal(t, "PONG", dial(t, addr).do("PING"))
}

func TestCutResetsEveryConnectionOnce(t *testing.T) {
	s, p := startProxied(t)
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	a.do("PING")
	b.do("PING")
	p.Cut()
	assert.ErrorIs(t, a.end(), syscall.ECONNRESET)
	assert.ErrorIs(t, b.end(), syscall.ECONNRESET)
	s.waitForClients(t, 0)
	assert.Equal(t, "PONG", dial(t, p.Addr()).do("PING"))
}

func TestCutAfterRequestLosesTheReplyOfACommandThatRan(t *testing.T) {
	s, p := startProxied(t)
	c, other := dial(t, p.Addr()), dial(t, p.Addr())
	p.CutAfterRequest("wanted")
	c.do("SET", "before", "")
	other.do("SET", "other", "")
	c.send("SET", "wanted", "")
	assert.ErrorIs(t, c.end(), io.EOF)
	assert.Equal(t, []string{"before", "other", "wanted"}, s.Keys(t))
	other.do("SET", "wanted", "armed only once")
	p.waitForConnections(t, 1)
	s.waitForClients(t, 1)

	p.CutAfterRequest("")
	other.send("SET", "any", "")
	assert.ErrorIs(t, other.end(), io.EOF)
	s.waitFor(t, "any")
}

// A reply to an earlier command cuts the connection while the matching one is
// still on its way: it has to run all the same.
func TestCutAfterRequestLetsAPipelineRun(t *testing.T) {
	s, p := startProxied(t)
	for i := range 20 {
		c := dial(t, p.Addr())
		c.do("PING")
		key := fmt.Sprint("wanted", i)
		p.CutAfterRequest(key)
		for range 50 {
			c.send("PING")
		}
		c.send("SET", key, strings.Repeat("x", 1<<14))
		_, err := io.Copy(io.Discard, c.r)
		assert.False(t, errors.Is(err, os.ErrDeadlineExceeded), "still open")
		s.waitFor(t, key)
	}
	p.waitForConnections(t, 0)
	s.waitForClients(t, 0)
}

func TestCutAfterRequestLetsTheServerReadInPeace(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	p := NewProxy(t, ln.Addr().String())
	p.CutAfterRequest("wanted")
	c := dial(t, p.Addr())
	c.send("wanted")
	nc, err := ln.Accept()
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(eventually.Soon)))

	// More replies than one read of the proxy takes, before the request is
	// read: a close of both sides would reset the connection under it.
	head := make([]byte, 1)
	_, err = io.ReadFull(nc, head)
	require.NoError(t, err)
	_, err = io.WriteString(nc, strings.Repeat("+reply\r\n", 1<<17))
	require.NoError(t, err)
	assert.ErrorIs(t, c.end(), io.EOF)
	rest, err := io.ReadAll(nc)
	require.NoError(t, err)
	assert.Equal(t, command("wanted"), string(head)+string(rest))
	assert.Zero(t, p.Connections())
}

func TestCutAfterReplyBytesSplitsTheReplyAtEachByte(t *testing.T) {
	s, p := startProxied(t)
	const reply = "$5\r\nhello\r\n"
	for n := range len(reply) + 1 {
		c := dial(t, p.Addr())
		c.do("PING")
		p.CutAfterReplyBytes(n)
		c.send("ECHO", "hello")
		got, err := io.ReadAll(c.r)
		assert.ErrorIs(t, err, syscall.ECONNRESET)
		assert.Equal(t, reply[:n], string(got))
	}
	// The count goes on over replies and connections.
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	b.do("PING")
	p.CutAfterReplyBytes(len("+PONG\r\n") + 1)
	a.do("PING")
	b.send("PING")
	got, err := io.ReadAll(b.r)
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	assert.Equal(t, "+", string(got))
	a.do("PING")
	s.waitForClients(t, 1)
}

func TestHealEndsEveryFault(t *testing.T) {
	_, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	p.Delay(time.Hour, time.Hour)
	p.Dribble(time.Hour)
	p.HoldRequests(true)
	p.HoldReplies(true)
	p.BlackHole(true)
	p.CutAfterRequest("")
	p.CutAfterReplyBytes(0)
	c.send("PING")
	during := dial(t, p.Addr())
	during.send("PING")
	c.silent()
	p.Heal()
	assert.Equal(t, "PONG", c.reply())
	assert.Equal(t, "PONG", during.reply())

	p.Refuse(true)
	p.Heal()
	assert.Equal(t, "PONG", dial(t, p.Addr()).do("PING"))
}

func TestHealDisarmsATrapThatHasItsRequest(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	s.Pause()
	p.CutAfterRequest("")
	c.send("PING")
	eventually.True(t, "the trap has its request", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.faults.match == nil
	})
	p.Heal()
	s.Resume()
	assert.Equal(t, "PONG", c.reply())
}

func TestEachSideClosesTheOther(t *testing.T) {
	s, p := startProxied(t)
	c := dial(t, p.Addr())
	c.do("PING")
	assert.Equal(t, 1, p.Connections())
	s.waitForClients(t, 1)
	require.NoError(t, c.Close())
	p.waitForConnections(t, 0)
	s.waitForClients(t, 0)

	c = dial(t, p.Addr())
	c.send("QUIT")
	assert.Equal(t, "OK", c.reply())
	assert.ErrorIs(t, c.end(), io.EOF)
	p.waitForConnections(t, 0)

	c = dial(t, p.Addr())
	c.do("PING")
	s.Kill()
	assert.Error(t, c.end())
	_, err := probe(p.Addr(), "PING")
	assert.True(t, isReset(err), "%v", err)
	p.waitForConnections(t, 0)
}

func TestLastRequestBeforeACloseStillRuns(t *testing.T) {
	s, p := startProxied(t)
	p.Delay(quiet, 0)
	for i := range 10 {
		c := dial(t, p.Addr())
		c.send("PING")
		c.send("SET", fmt.Sprint(i), "")
		require.NoError(t, c.Close())
	}
	for i := range 10 {
		s.waitFor(t, fmt.Sprint(i))
	}
	p.waitForConnections(t, 0)
}

func TestCloseEndsEverythingInAnyWeather(t *testing.T) {
	s := Start(t)
	ignore := goleak.IgnoreCurrent()
	var conns []*conn
	var addr string
	t.Run("inner", func(inner *testing.T) {
		// Runs right after the proxy's, where goleak would wait a while.
		inner.Cleanup(func() {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			assert.False(t, strings.Contains(string(stacks), "redistest.(*link)"), "%s", stacks)
		})
		p := NewProxy(inner, s.Addr())
		addr = p.Addr()
		for i, fault := range []func(){
			func() {},
			func() { p.HoldReplies(true) },
			func() { p.Dribble(time.Hour) },
			func() { p.Delay(time.Hour, time.Hour) },
			s.Pause,
			func() { p.CutAfterRequest("") },
			func() { p.BlackHole(true) },
		} {
			c := dial(t, addr)
			conns = append(conns, c)
			fault()
			c.send("ECHO", strings.Repeat("x", i<<16))
		}
	})
	goleak.VerifyNone(t, ignore)
	s.Resume()
	for _, c := range conns {
		_, err := io.Copy(io.Discard, c.r)
		assert.False(t, errors.Is(err, os.ErrDeadlineExceeded), "still open")
	}
	_, err := net.DialTimeout("tcp", addr, eventually.Soon)
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
	s.waitForClients(t, 0)
}

func TestFaultsSwitchUnderLoad(t *testing.T) {
	s, p := startProxied(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					// Whatever comes must be the right reply, or an error.
					want := fmt.Sprint(i, "-", n)
					if got, err := probe(p.Addr(), "ECHO", want); err == nil {
						assert.Equal(t, want, got)
					}
				}
			}
		})
	}
	for i := range 20 {
		on := i%2 == 0
		for _, fault := range []func(){
			func() { p.BlackHole(on) },
			func() { p.HoldReplies(on) },
			func() { p.HoldRequests(on) },
			func() { p.Delay(time.Millisecond, time.Duration(i%3)*time.Millisecond) },
			func() { p.Dribble(time.Duration(i%4) * 100 * time.Microsecond) },
			func() { p.CutAfterRequest("ECHO") },
			func() { p.CutAfterReplyBytes(i) },
			func() { p.Refuse(on) },
			p.Cut,
			p.Heal,
		} {
			fault()
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	p.waitForConnections(t, 0)
	s.waitForClients(t, 0)
	assert.Equal(t, "PONG", dial(t, p.Addr()).do("PING"))
}
