package redlock_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/redistest"
)

// A key that somebody uses for a list is held by him: nothing else is wrong with
// the nodes.
func TestAKeyOfAForeignTypeIsHeldBySomebodyElse(t *testing.T) {
	for _, foreign := range []int{2, 3} { // of three nodes
		t.Run(fmt.Sprint("on=", foreign), func(t *testing.T) {
			ns := start(t, 3)
			l, err := redlock.Open(t.Context(), ns.urls())
			require.NoError(t, err)
			for _, s := range ns.servers[:foreign] {
				_, err := s.Do("RPUSH", "b", "x")
				require.NoError(t, err)
			}
			_, err = l.AcquireAll(t.Context(), []string{"a", "b", "c"}, time.Hour, redlock.WithRetry(redlock.NoRetry()))
			require.ErrorIs(t, err, redlock.ErrNotAcquired)
			require.NotErrorIs(t, err, redlock.ErrNoQuorum)
			eventually.True(t, "the keys on the node that granted are released", func() bool { return len(ns.servers[2].Keys(t)) == foreign-2 })
			lock, err := l.TryAcquireAll(t.Context(), []string{"a", "c"}, time.Hour)
			require.NoError(t, err, "the others are free")
			require.NoError(t, lock.Release(t.Context()))

			// It becomes a list while it is held.
			held, err := l.TryAcquireAll(t.Context(), []string{"d", "e"}, time.Hour)
			require.NoError(t, err)
			eventually.True(t, "all nodes hold it", func() bool { return ns.holders("e", held.Token()) == 3 })
			for _, s := range ns.servers[:foreign] {
				_, err := s.Do("DEL", "e")
				require.NoError(t, err)
				_, err = s.Do("RPUSH", "e", "x")
				require.NoError(t, err)
			}
			require.ErrorIs(t, held.Release(t.Context()), redlock.ErrNotHeld)
			began := time.Now()
			require.NoError(t, l.Close())
			require.Less(t, time.Since(began), 900*ms, "below the node timeout: it waits for nothing")
			for i, s := range ns.servers {
				if i < foreign {
					require.ElementsMatch(t, []string{"b", "e"}, s.Keys(t))
				} else {
					require.Empty(t, s.Keys(t))
				}
			}
		})
	}
}

// Success may become impossible long before the node timeout.
func TestAnAcquisitionDoesNotOutliveItsValidity(t *testing.T) {
	for name, c := range map[string]struct {
		ttl     time.Duration
		options []redlock.LockOption
		fails   time.Duration
	}{
		"ttl":      {time.Second, nil, 988 * ms},
		"max hold": {time.Hour, []redlock.LockOption{redlock.WithMaxHold(500 * ms)}, 500 * ms},
		"grace":    {time.Minute, []redlock.LockOption{redlock.WithGrace(30 * time.Second)}, time.Minute*99/100 - 2*ms - 30*time.Second},
		"both":     {time.Hour, []redlock.LockOption{redlock.WithMaxHold(time.Minute), redlock.WithGrace(59 * time.Second)}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stores := []*memnode.Backend{{}, {}, {}}
				l := lockertest.Over(t, stores, redlock.WithNodeTimeout(24*time.Hour))
				stores[1].Pause()
				stores[2].Pause()
				began := time.Now()
				_, err := l.TryAcquire(t.Context(), "k", c.ttl, c.options...)
				require.ErrorIs(t, err, redlock.ErrNoQuorum)
				require.Equal(t, c.fails, time.Since(began))
				stores[1].Resume()
				stores[2].Resume()
				require.NoError(t, l.Close())
				for _, s := range stores {
					require.Zero(t, s.Len())
				}
			})
		})
	}
}

// A lock that can be held for a second needs no keys that live for an hour.
func TestKeysLiveNoLongerThanMaxHoldNeeds(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	const most = 10 * time.Second
	lock, err := l.TryAcquire(t.Context(), "k", time.Hour, redlock.WithMaxHold(most))
	require.NoError(t, err)
	check := func() {
		t.Helper()
		require.LessOrEqual(t, time.Until(lock.Until()), most)
		for _, s := range ns.servers {
			left, err := s.Do("PTTL", "k")
			require.NoError(t, err)
			pttl := time.Duration(left.(int64)) * ms
			require.Greater(t, pttl, time.Until(lock.Until()), "validity never outlives the keys")
			require.Less(t, pttl, most+most/50)
		}
	}
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
	check()
	require.NoError(t, lock.Extend(t.Context(), 0))
	check()
	require.NoError(t, lock.Release(t.Context()))
}

// greets is a server that shakes hands, and answers nothing from then on.
type greets struct {
	ln       net.Listener
	wg       sync.WaitGroup
	commands atomic.Int64 // that it was sent after that
	mu       sync.Mutex
	conns    []net.Conn
}

func startGreeting(t *testing.T) *greets {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &greets{ln: ln}
	g.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			g.mu.Lock()
			g.conns = append(g.conns, conn)
			g.mu.Unlock()
			g.wg.Go(func() { g.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		g.mu.Lock()
		for _, conn := range g.conns {
			_ = conn.Close()
		}
		g.mu.Unlock()
		g.wg.Wait()
	})
	return g
}

func (g *greets) serve(conn net.Conn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		args, err := readArgs(r)
		switch {
		case err != nil:
			return
		case args[0] == "HELLO":
			_, _ = io.WriteString(conn, "%2\r\n+proto\r\n:3\r\n+version\r\n+7.0.0\r\n")
		case args[0] == "CLIENT":
			_, _ = io.WriteString(conn, "+OK\r\n")
		default:
			g.commands.Add(1)
		}
	}
}

// readArgs reads a command as clients send it.
func readArgs(r *bufio.Reader) ([]string, error) {
	number := func(kind string) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, kind)))
	}
	n, err := number("*")
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := number("$")
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

// What may have been left on a node that takes commands and answers none is
// cleaned up when it answers, and does not pile up until then.
func TestCleaningUpOnANodeThatOnlyShakesHandsDoesNotGrow(t *testing.T) {
	ns := start(t, 2)
	silent := startGreeting(t)
	l, err := redlock.Open(t.Context(), append(ns.urls(), "redis://"+silent.ln.Addr().String()+"?write_timeout=300ms"))
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	var cycles atomic.Int64
	for i := range 4 {
		traffic.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				lock, err := l.TryAcquire(ctx, fmt.Sprint(i, ".", n), time.Hour)
				if err == nil {
					_ = lock.Release(ctx)
					cycles.Add(1)
				}
			}
		})
	}
	wait(ctx, 2*time.Second)
	first, before := silent.commands.Load(), cycles.Load()
	wait(ctx, 3*time.Second)
	second, after := silent.commands.Load()-first, cycles.Load()-before
	cancel()
	traffic.Wait()
	t.Logf("%d cycles sent it %d commands, the next %d sent %d", before, first, after, second)
	assert.Greater(t, after, int64(500))
	assert.Less(t, second, int64(100), "only what finds out whether it answers")
}

// A proxy may lose the answer to a SET that has run, and say so in an error of
// its own: the key is released.
func TestAnErrorOfAProxyLeavesNoKey(t *testing.T) {
	server := redistest.Start(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var lose atomic.Bool
	var all sync.WaitGroup
	defer all.Wait()
	defer ln.Close()
	all.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server.Addr())
			if err != nil {
				client.Close()
				continue
			}
			all.Go(func() {
				_, _ = io.Copy(upstream, client)
				upstream.Close()
			})
			all.Go(func() {
				defer client.Close()
				for b := make([]byte, 1<<16); ; {
					n, err := upstream.Read(b)
					if err != nil {
						return
					}
					reply := b[:n]
					if lose.Load() {
						for _, granted := range []string{"_\r\n", "+OK\r\n"} { // of SET with GET, and without it
							reply = bytes.ReplaceAll(reply, []byte(granted), []byte("-ERR proxy: upstream timed out\r\n"))
						}
					}
					_, _ = client.Write(reply)
				}
			})
		}
	})
	l, err := redlock.Open(t.Context(), []string{"redis://" + ln.Addr().String()})
	require.NoError(t, err)
	defer l.Close()
	for range 3 { // until it is done by SET
		lock, err := l.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
	}
	_, err = server.Do("CONFIG", "RESETSTAT")
	require.NoError(t, err)
	lose.Store(true)
	_, err = l.TryAcquire(t.Context(), "k", time.Hour)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, "proxy: upstream timed out")
	eventually.True(t, "the key is released", func() bool { return len(server.Keys(t)) == 0 })
	stats, err := server.Do("INFO", "commandstats")
	require.NoError(t, err)
	require.Contains(t, stats, "cmdstat_set:calls=1", "it had run")
}

// The server says it once, and closes the connection.
func TestAServerWithTooManyClientsIsQuoted(t *testing.T) {
	server := redistest.Start(t, "--maxclients", "1")
	occupied, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer occupied.Close()
	_, err = io.WriteString(occupied, "PING\r\n")
	require.NoError(t, err)
	_, err = bufio.NewReader(occupied).ReadString('\n')
	require.NoError(t, err)
	l := lockertest.Open(t, []string{server.URL()})
	for range 20 {
		_, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "not connected: ERR max number of clients reached")
		wait(t.Context(), 20*ms)
	}
	occupied.Close()
	eventually.True(t, "it takes part as soon as it has room", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		return err == nil && lock.Release(t.Context()) == nil
	})
}

// No ctx of the caller's has ended when a dial takes too long.
func TestTheErrorOfADialNeverReadsLikeAContexts(t *testing.T) {
	ns := start(t, 1)
	ns.proxies[0].BlackHole(true)
	defer ns.proxies[0].BlackHole(false)
	for url, want := range map[string]string{
		ns.proxies[0].URL() + "?dial_timeout=200ms": "not connected: the server did not accept a connection, or did not answer on it, in time",
		"redis://127.0.0.1:1":                       "not connected: dial tcp 127.0.0.1:1: connect: connection refused",
	} {
		l := lockertest.Open(t, []string{url})
		for range 5 {
			_, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			require.NotContains(t, err.Error(), "context")
			require.ErrorContains(t, err, want)
			wait(t.Context(), 100*ms)
		}
	}
}

// A node may be reached by a socket.
func TestASocketOfThisMachineIsANode(t *testing.T) {
	server := redistest.Start(t, "--unixsocket", "redis.sock", "--maxclients", "1")
	l := lockertest.Open(t, []string{"unix://" + server.Dir() + "/redis.sock"})
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	defer lock.Release(t.Context())
	other := lockertest.Open(t, []string{"unix://" + server.Dir() + "/redis.sock"})
	_, err = other.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorContains(t, err, "not connected: ERR max number of clients reached")
}
