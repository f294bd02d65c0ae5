package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// A TCP proxy changes nothing: locks, queues, fences and the guard work.
func TestLocksThroughHAProxy(t *testing.T) {
	settle(t)
	var proxies []*redistest.HAProxy
	for _, s := range redistest.StartN(t, 3) {
		proxies = append(proxies, redistest.StartHAProxy(t, s))
	}
	var noted waitLog
	guard := redlock.WithRestartGuard(time.Minute, 0)
	l := lockertest.Open(t, redistest.URLs(proxies), guard, noted.middleware(), redlock.WithFence())
	holder := lockertest.Open(t, redistest.URLs(proxies), guard)
	require.NoError(t, l.TrustNodes(t.Context()))
	lock, err := l.AcquireAll(t.Context(), []string{"a", "b"}, time.Minute)
	require.NoError(t, err)
	first := lock.Fence()
	require.NoError(t, lock.Extend(t.Context(), time.Minute))
	require.NoError(t, lock.Release(t.Context()))
	noted.take()
	within(t, l, holder, byQueue)
	kinds, errs := noted.take()
	require.Equal(t, []redlock.WaitKind{redlock.WaitGranted}, kinds)
	require.Empty(t, errs)
	lock, err = l.Acquire(t.Context(), "a", time.Minute, untilFree)
	require.NoError(t, err)
	second := lock.Fence()
	require.Greater(t, second, first)
	require.NoError(t, lock.Release(t.Context()))
}

// As the endpoint of a service does at a failover: new connections go to the new master, those
// that are open stay with the old one, which is a replica now.
func TestAnEndpointThatMovesIsFoundAgain(t *testing.T) {
	settle(t)
	servers := redistest.StartN(t, 2, "--repl-diskless-sync-delay", "0")
	follow := func(s, master *redistest.Server) {
		host, port, _ := strings.Cut(master.Addr(), ":")
		must(t, s, "REPLICAOF", host, port)
	}
	follow(servers[1], servers[0])
	eventually.True(t, "the replica has the data", func() bool {
		return strings.Contains(must(t, servers[1], "INFO", "replication").(string), "master_link_status:up")
	})
	proxy := redistest.StartHAProxy(t, servers[0])
	l, holder := lockertest.Open(t, []string{proxy.URL()}), lockertest.Open(t, []string{proxy.URL()})
	ctx := soon(t)
	require.NoError(t, redlock.Do(ctx, holder, "k", 10*time.Second, func(held context.Context) error {
		granted := make(chan error, 1)
		go func() {
			lock, err := l.Acquire(ctx, "k", time.Minute, byQueue)
			if err == nil {
				err = lock.Release(ctx)
			}
			granted <- err
		}()
		eventually.True(t, "another process waits", func() bool { return len(servers[1].Keys(t)) > 1 })
		must(t, servers[1], "REPLICAOF", "NO", "ONE")
		proxy.Point(servers[1])
		follow(servers[0], servers[1])
		eventually.True(t, "other locks go on", func() bool {
			lock, err := l.TryAcquire(ctx, "other", time.Minute)
			if err != nil {
				require.ErrorContains(t, err, "READONLY ")
				require.ErrorContains(t, err, "dialling its address again")
				return false
			}
			return lock.Release(ctx) == nil
		})
		lock, _ := redlock.FromContext(held)
		eventually.True(t, "so does the one that is held", func() bool { return lock.Extend(ctx, time.Minute) == nil })
		value, _ := servers[1].Get(t, "k")
		require.Equal(t, lock.Token(), value)
		time.AfterFunc(time.Second, func() { _ = lock.Release(ctx) })
		return <-granted
	}, redlock.WithExtendThreshold(9*time.Second)))
}

// A proxy cuts connections on which nothing passes: those that the next command wants, and those
// that wait for grants.
func TestAProxyThatCutsIdleConnections(t *testing.T) {
	settle(t)
	server := redistest.Start(t)
	proxy := redistest.StartHAProxy(t, server, "timeout client 150ms", "timeout server 150ms")
	var noted waitLog
	l := lockertest.Open(t, []string{proxy.URL()}, noted.middleware())
	ctx := soon(t)
	idle := func() bool { return strings.Count(must(t, server, "CLIENT", "LIST").(string), "\n") == 1 } // the one that asks
	for range 3 {
		lock, err := l.Acquire(ctx, "a", time.Minute, untilFree)
		require.NoError(t, err)
		require.NoError(t, lock.Release(ctx))
		eventually.True(t, "the connection is cut", idle)
	}
	noted.take()
	held, err := lockertest.Open(t, []string{server.URL()}).Acquire(ctx, "k", time.Minute)
	require.NoError(t, err)
	granted := make(chan error, 1)
	go func() {
		lock, err := l.Acquire(ctx, "k", time.Minute, byQueue)
		if err == nil {
			err = lock.Release(ctx)
		}
		granted <- err
	}()
	subscribed := func() int64 {
		reply := must(t, server, "INFO", "commandstats").(string)
		_, calls, _ := strings.Cut(reply, "cmdstat_subscribe:calls=")
		var n int64
		_, _ = fmt.Sscan(strings.Split(calls, ",")[0], &n)
		return n
	}
	eventually.True(t, "it has subscribed again and again", func() bool { return subscribed() >= 3 })
	require.NoError(t, held.Release(ctx))
	require.NoError(t, <-granted)
	kinds, errs := noted.take()
	require.Equal(t, []redlock.WaitKind{redlock.WaitGranted}, kinds)
	require.Empty(t, errs)

	// A lock that is held is extended, over one connection after another.
	require.NoError(t, redlock.Do(ctx, l, "a", 3*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		until := lock.Until()
		for range 3 {
			eventually.True(t, "it is extended", func() bool { return lock.Until().After(until) || ctx.Err() != nil })
			until = lock.Until()
		}
		return context.Cause(ctx)
	}, redlock.WithExtendThreshold(2500*ms)))
}

// Where no more connections are to be had than one, a waiter hears of no grant, and goes on
// asking for its place in the queue.
func TestAProxyThatAllowsOneConnection(t *testing.T) {
	settle(t)
	server := redistest.Start(t)
	proxy := redistest.StartHAProxy(t, server, "maxconn 1")
	within(t, lockertest.Open(t, []string{proxy.URL()}), lockertest.Open(t, []string{server.URL()}), byQueue)
}

func TestLocksThroughStunnel(t *testing.T) {
	settle(t)
	server := redistest.Start(t)
	tunnel := redistest.StartStunnel(t, server)
	ca, cert, key := tunnel.Files(t)
	files := url.Values{"tls_ca": {ca}, "tls_cert": {cert}, "tls_key": {key}, "dial_timeout": {"20s"}}
	through := tunnel.URL() + "?" + files.Encode()
	l := lockertest.Open(t, []string{through}, redlock.WithFence())
	within(t, l, lockertest.Open(t, []string{server.URL()}), byQueue)
	require.Contains(t, must(t, server, "INFO", "commandstats"), "cmdstat_subscribe:calls=")

	for what, url := range map[string]string{
		"an address is not sent as a name": strings.Replace(through, "localhost", "127.0.0.1", 1),
		"no certificate":                   tunnel.URL() + "?" + url.Values{"tls_ca": {ca}, "dial_timeout": {"20s"}}.Encode(),
		"no authority":                     tunnel.URL() + "?" + url.Values{"tls_cert": {cert}, "tls_key": {key}, "dial_timeout": {"20s"}}.Encode(),
	} {
		_, err := lockertest.Open(t, []string{url}).TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum, what)
		require.ErrorContains(t, err, "not connected: ", what)
	}
}

// twemproxy knows no HELLO, no CLIENT, no SUBSCRIBE, and no script without a key: it ends the
// connection.
func TestLocksThroughTwemproxy(t *testing.T) {
	settle(t)
	servers := redistest.StartN(t, 2)
	proxy := redistest.StartTwemproxy(t, servers...)
	_, err := lockertest.Open(t, []string{proxy.URL()}).TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, proxy.Addr()+": not connected: the server closed the connection without replying: ")
	require.ErrorContains(t, err, "a proxy without HELLO: add ?protocol=2 to the URL")

	ctx := soon(t)
	var noted waitLog
	through := []string{proxy.URL() + "?protocol=2"}
	l, holder := lockertest.Open(t, through, noted.middleware()), lockertest.Open(t, through)
	_, err = l.Ping(ctx)
	require.NoError(t, err)
	owners := make(map[*redistest.Server]int)
	for i := range 16 {
		key := fmt.Sprint(i, ":order") // keys that differ at the end are together
		lock, err := l.AcquireAll(ctx, []string{key, "{" + key + "}:too"}, time.Minute, redlock.WithFence())
		require.NoError(t, err)
		require.NoError(t, lock.Extend(ctx, time.Minute))
		for _, s := range servers {
			if value, _ := s.Get(t, key); value == lock.Token() {
				owners[s]++
			}
		}
		_, err = holder.TryAcquire(ctx, key, time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		require.NoError(t, lock.Release(ctx))
		for range 3 { // over a connection that has proved what SET answers
			lock, err = l.TryAcquire(ctx, key, time.Minute)
			require.NoError(t, err)
			_, err = holder.TryAcquire(ctx, key, time.Minute)
			require.ErrorIs(t, err, redlock.ErrNotAcquired)
			require.NoError(t, lock.Release(ctx))
		}
	}
	require.Len(t, owners, 2, "both servers hold locks")

	noted.take()
	var failures []error
	eventually.True(t, "a wait says that it polls, and why", func() bool {
		within(t, l, holder, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
		_, failures = noted.take()
		return len(failures) > 0
	})
	require.Len(t, failures, 1)
	require.ErrorContains(t, failures[0], "SUBSCRIBE: ")
	require.ErrorContains(t, failures[0], "(grants are not pushed: waits poll the queues)")
	within(t, l, holder, byQueue)
	_, failures = noted.take()
	require.Empty(t, failures, "it says so once")
	eventually.True(t, "no lock is left", func() bool {
		_, first := servers[0].Get(t, "k")
		_, second := servers[1].Get(t, "k")
		return !first && !second
	})
}

// A pool of one server has a marker of the guard. Its server may die and come back.
func TestAServerBehindTwemproxyComesBack(t *testing.T) {
	settle(t)
	server := redistest.Start(t)
	proxy := redistest.StartTwemproxy(t, server)
	l := lockertest.Open(t, []string{proxy.URL() + "?protocol=2"}, redlock.WithRestartGuard(time.Minute, 0))
	ctx := soon(t)
	require.NoError(t, l.TrustNodes(ctx))
	lock, err := l.TryAcquire(ctx, "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(ctx))
	server.Kill()
	_, err = l.TryAcquire(ctx, "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	server.Restart()
	var quarantine *redlock.QuarantineError
	eventually.True(t, "it is quarantined", func() bool {
		_, err = l.TryAcquire(ctx, "k", time.Minute)
		require.Error(t, err)
		var failed *redlock.QuorumError
		require.ErrorAs(t, err, &failed)
		return errors.As(failed.Nodes[0].Err, &quarantine)
	})
	require.NoError(t, l.TrustNodes(ctx))
	lock, err = l.Acquire(ctx, "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(ctx))
}
