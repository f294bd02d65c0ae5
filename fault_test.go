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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// A quorum of five hangs while fn runs: fn's ctx must end by the end of
// validity, and until then no other process can have acquired.
func TestAHungQuorumEndsTheContextBeforeAnotherProcessCanOwnTheLock(t *testing.T) {
	ns := start(t, 5)
	l, rival := ns.open(), ns.open(redlock.WithNodeTimeout(20*ms))
	var ended, until time.Time
	var slack []time.Duration // what our key had left on the surviving nodes when ctx ended
	err := redlock.Do(t.Context(), l, "k", 500*ms, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 5 })
		for _, s := range ns.servers[:3] {
			s.Pause()
		}
		for ctx.Err() == nil {
			_, err := rival.TryAcquire(t.Context(), "k", 500*ms)
			require.Error(t, err, "a rival acquired while the ctx was alive")
		}
		ended, until = time.Now(), lock.Until()
		require.ErrorIs(t, context.Cause(ctx), redlock.ErrLost)
		require.False(t, lock.Valid())
		for _, s := range ns.servers[3:] {
			left, err := s.Do("PTTL", "k")
			require.NoError(t, err)
			slack = append(slack, time.Duration(left.(int64))*ms)
		}
		return nil
	})
	for _, s := range ns.servers[:3] {
		s.Resume()
	}
	require.ErrorIs(t, err, redlock.ErrLost)
	t.Logf("ctx ended %v after the end of validity; keys on the surviving nodes had %v left", ended.Sub(until), slack)
	eventually.True(t, "what was stuck in the hung nodes is taken back", ns.empty)
	lock, err := rival.Acquire(t.Context(), "k", 10*time.Second, redlock.WithRetry(redlock.FixedRetry(10*ms, 10*ms, -1)))
	require.NoError(t, err, "and the lock is free")
	require.NoError(t, lock.Release(t.Context()))
}

// All nodes hang. The lock's keys on them are released after SIGCONT.
func TestAllNodesHungEndsTheContextWithItsCause(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 300*ms, func(ctx context.Context) error {
		for _, s := range ns.servers {
			s.Pause()
		}
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), redlock.ErrLost)
		lock, _ := redlock.FromContext(ctx)
		require.False(t, lock.Valid())
		return ctx.Err()
	})
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorIs(t, err, context.Canceled)
	for _, s := range ns.servers {
		s.Resume()
	}
	eventually.True(t, "no key is left", ns.empty)
}

// The node timeout is an hour, so a call that waited for the hung node would not return within the
// test.
func TestOneHungNodeDelaysNothing(t *testing.T) {
	for _, how := range []string{"paused", "black hole"} {
		t.Run(how, func(t *testing.T) {
			ns := start(t, 3)
			l := ns.open(redlock.WithNodeTimeout(time.Hour))
			ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
			defer cancel()
			for hung := range 3 {
				if how == "paused" {
					ns.servers[hung].Pause()
				} else {
					ns.proxies[hung].BlackHole(true)
				}
				lock, err := l.TryAcquire(ctx, "k", time.Minute)
				require.NoError(t, err)
				require.NoError(t, lock.Extend(ctx, 0))
				require.NoError(t, lock.AutoExtend(40*time.Second))
				require.NoError(t, lock.Release(ctx))
				require.NoError(t, redlock.Do(ctx, l, "k", time.Minute, func(context.Context) error { return nil }))
				if how == "paused" {
					ns.servers[hung].Resume()
				} else {
					ns.proxies[hung].BlackHole(false)
				}
				eventually.True(t, "no key is left", ns.empty)
			}
		})
	}
}

func TestOneHungNodeLosesNoLock(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ns.servers[1].Pause()
	err := redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		first := lock.Until()
		eventually.True(t, "extended without the hung node", func() bool {
			require.NoError(t, context.Cause(ctx))
			return lock.Until().Sub(first) > 3*time.Second // longer than rueidis waits for an answer
		})
		ns.servers[1].Resume()
		eventually.True(t, "the node takes part again", func() bool { return ns.holders("k", lock.Token()) == 3 })
		return nil
	})
	require.NoError(t, err)
	eventually.True(t, "no key is left", ns.empty)
}

func TestANodeThatCameBackEmptyIsRefilled(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 2*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		ns.servers[1].Restart()
		eventually.True(t, "set again", func() bool { return ns.holders("k", lock.Token()) == 3 })
		return context.Cause(ctx)
	})
	require.NoError(t, err)
	eventually.True(t, "no key is left", ns.empty)
}

func TestAQuorumThatLostItsDataEndsTheContextAtTheNextExtension(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	err := redlock.Do(t.Context(), l, "k", 10*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
		for _, s := range ns.servers[:2] {
			_, err := s.Do("FLUSHALL")
			require.NoError(t, err)
		}
		<-ctx.Done()
		require.True(t, time.Now().Before(lock.Until()), "long before validity would have ended")
		return nil
	}, redlock.WithExtendThreshold(9*time.Second))
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorContains(t, err, "key was missing")
	eventually.True(t, "what was put back is not left", ns.empty)
}

func TestNodesThatGoAwayTakePartAgain(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	for range 3 {
		ns.servers[0].Kill()
		_, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		ns.servers[0].Restart()
		lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(10*ms, 0, -1)))
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
	}
}

// Without eviction a node that is full refuses new locks only.
func TestAFullNodeKeepsTheLocksItHas(t *testing.T) {
	s := redistest.Start(t, "--maxmemory-policy", "noeviction")
	l := lockertest.Open(t, []string{s.URL()}, redlock.WithNodeTimeout(eventually.Soon))
	one, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	several, err := l.TryAcquireAll(t.Context(), []string{"k1", "k2"}, time.Minute)
	require.NoError(t, err)
	must(t, s, "CONFIG", "SET", "maxmemory", "1")
	_, err = l.TryAcquire(t.Context(), "new", time.Minute)
	require.ErrorContains(t, err, "OOM")
	for _, lock := range []*redlock.Lock{one, several} {
		require.NoError(t, lock.Extend(t.Context(), time.Hour))
		require.NoError(t, lock.Release(t.Context()))
	}
	require.Empty(t, s.Keys(t))
}

func TestScriptsThatAServerForgotAreSentAgain(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for range 3 {
		lock, err := l.TryAcquireAll(t.Context(), []string{"a", "b"}, time.Minute)
		require.NoError(t, err)
		for _, s := range ns.servers {
			_, err := s.Do("SCRIPT", "FLUSH")
			require.NoError(t, err)
		}
		require.NoError(t, lock.Extend(t.Context(), 0))
		require.NoError(t, lock.Release(t.Context()))
		eventually.True(t, "no key is left", ns.empty)
	}
}

// A node hangs while attempts go on: calls and goroutines are bounded, and no key is left when it is
// back.
func TestCallsToAHungNodeAreBounded(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ns.servers[2].Pause()
	for range 2000 {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
	}
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	ns.servers[2].Resume()
	eventually.True(t, "nothing is left on it", ns.empty)
	eventually.True(t, "and it takes part again", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		defer func() { require.NoError(t, lock.Release(t.Context())) }()
		_, ok := ns.servers[2].Get(t, "k")
		return ok
	})
}

// The masters of a Cluster are separate servers: a master that hangs, and the commands
// for it, touch no lock on the others.
func TestOneSickServerOfAClusterTouchesNoLockOnTheOthers(t *testing.T) {
	cluster := redistest.StartCluster(t)
	l, err := redlock.Open(t.Context(), []string{cluster.URL()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	sick, healthy := cluster.Servers()[0], cluster.Servers()[1:]
	key := make(map[*redistest.Server]func(name string) string)
	for _, s := range cluster.Servers() {
		tag := cluster.KeyOf(s, "tag")
		key[s] = func(name string) string { return "{" + tag + "}" + name }
	}
	held := make([]*redlock.Lock, 10)
	for i := range held {
		held[i], err = l.TryAcquire(t.Context(), key[healthy[i%2]](fmt.Sprint("held", i)), 2*time.Second)
		require.NoError(t, err)
		require.NoError(t, held[i].AutoExtend(0))
	}
	sick.Pause()
	defer sick.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var traffic sync.WaitGroup
	for i := range 1000 { // as many as would fill any bound that the servers shared
		traffic.Go(func() {
			_, _ = l.Acquire(ctx, key[sick](fmt.Sprint("sick", i)), time.Minute, redlock.WithRetry(redlock.FixedRetry(500*ms, 0, -1)))
		})
	}
	var granted, failed atomic.Int64
	for i := range 8 {
		traffic.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				lock, err := l.TryAcquire(ctx, key[healthy[i%2]](fmt.Sprint(i, ".", n)), time.Minute)
				switch {
				case err == nil:
					granted.Add(1)
					_ = lock.Release(ctx)
				case ctx.Err() == nil:
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	traffic.Wait()
	lost := 0
	for _, lock := range held {
		if !lock.Valid() {
			lost++
			t.Log(context.Cause(lock.Context()))
		}
	}
	t.Logf("on the healthy masters %d acquired, %d failed, %d of %d held locks lost", granted.Load(), failed.Load(), lost, len(held))
	assert.Zero(t, failed.Load())
	assert.Zero(t, lost)
	assert.NotZero(t, granted.Load())
}

func TestAnOutageShorterThanValidityLosesNothing(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	ctx, cancel := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer cancel()
	var held []*redlock.Lock
	for i := range 12 {
		lock, err := l.TryAcquire(t.Context(), fmt.Sprint("held", i), time.Second)
		require.NoError(t, err)
		require.NoError(t, lock.AutoExtend(0))
		held = append(held, lock)
	}
	for i := range 4 {
		traffic.Go(func() {
			for ctx.Err() == nil {
				lock, err := l.TryAcquire(ctx, fmt.Sprint("other", i), time.Second)
				if err == nil {
					_ = lock.Release(ctx)
				}
				wait(ctx, ms)
			}
		})
	}
	for _, p := range ns.proxies {
		p.Refuse(true)
		p.Cut()
	}
	wait(ctx, 420*ms)
	for _, p := range ns.proxies {
		p.Refuse(false)
	}
	wait(ctx, 2*time.Second)
	for _, lock := range held {
		assert.True(t, lock.Valid(), "%v", context.Cause(lock.Context()))
	}
}

// greets is a server that completes the handshake, and answers nothing after that.
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

// readArgs reads a command in the form that clients send.
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

// Clean-up on a node that accepts commands and answers none waits until it answers, and does not
// grow until then.
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

// A proxy loses the answer to a SET that has run, and answers with an error of its own: the key is
// released.
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
