package redlock_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// On a Cluster a release grants the lock to the next waiter, as on plain servers.
func TestWaitersOfACluster(t *testing.T) {
	settle(t)
	c, plain := redistest.StartCluster(t), plainURLs(t)
	t.Run("hand-over", func(t *testing.T) {
		for name, open := range map[string]func(t *testing.T, opts ...redlock.Option) *redlock.Locker{
			"alone": func(t *testing.T, opts ...redlock.Option) *redlock.Locker {
				return lockertest.Open(t, []string{c.URL()}, opts...)
			},
			"one of three": func(t *testing.T, opts ...redlock.Option) *redlock.Locker {
				return lockertest.Open(t, append(plain, c.URL()), opts...)
			},
			"by New": func(t *testing.T, opts ...redlock.Option) *redlock.Locker { return newOver(t, c, opts...) },
			"RESP2": func(t *testing.T, opts ...redlock.Option) *redlock.Locker {
				return lockertest.Open(t, []string{c.URL() + "&protocol=2"}, opts...)
			},
		} {
			t.Run(name, func(t *testing.T) { handOvers(t, c, open) })
		}
	})
	t.Run("one connection per server", func(t *testing.T) { connectionPerServer(t, c) })
	t.Run("least permissions", func(t *testing.T) { aclOfTheQueuesOfACluster(t, c) })
}

// waits returns a condition: so many wait for the key in its queue on the Cluster.
func queued(t *testing.T, c *redistest.Cluster, key string, n int) func() bool {
	return func() bool {
		return must(t, c.Owner(key), "ZCARD", node.Companion(key, node.Queue)) == int64(n)
	}
}

func handOvers(t *testing.T, c *redistest.Cluster, open func(t *testing.T, opts ...redlock.Option) *redlock.Locker) {
	var r recorder
	one, other := open(t), open(t, redlock.WithMiddleware(r.middleware))
	keys := []string{"a", "b", "c", "{order:1}:stock", "with spaces\nand lines"}
	for i, key := range keys {
		lock, err := one.Acquire(t.Context(), key, time.Minute, untilFree, redlock.WithFence(), redlock.WithMetadata(fmt.Sprint("job ", i)))
		require.NoError(t, err)
		eventually.True(t, "the Cluster has it too", func() bool {
			require.NoError(t, lock.Extend(t.Context(), 0))
			value, _ := c.Owner(key).Get(t, key)
			return value == lock.Token()
		})
		got := make(chan *redlock.Lock)
		go func() {
			lock, err := other.Acquire(t.Context(), key, time.Minute, lockertest.Queued, redlock.WithFence())
			assert.NoError(t, err)
			got <- lock
		}()
		eventually.True(t, "it waits", queued(t, c, key, 1))
		require.NoError(t, lock.Release(t.Context()))
		next := <-got
		require.NotNil(t, next)
		require.Greater(t, next.Fence(), lock.Fence())
		require.NoError(t, next.Extend(t.Context(), 0))
		require.NoError(t, next.Release(t.Context()))
	}
	require.Equal(t, map[redlock.WaitKind]int{redlock.WaitGranted: len(keys)}, r.waits())
}

// Waiters for many keys share one connection per server that listens.
func connectionPerServer(t *testing.T, c *redistest.Cluster) {
	const keys = 64
	holder, l := lockertest.Open(t, []string{c.URL()}), lockertest.Open(t, []string{c.URL()})
	var held []*redlock.Lock
	for i := range keys {
		lock, err := holder.Acquire(t.Context(), fmt.Sprint("many:", i), time.Minute, untilFree)
		require.NoError(t, err)
		held = append(held, lock)
	}
	var waiters sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 2*eventually.Soon)
	defer cancel()
	defer waiters.Wait()
	for _, lock := range held {
		waiters.Go(func() {
			assert.NoError(t, redlock.Do(ctx, l, lock.Key(), time.Minute, func(context.Context) error { return nil }, lockertest.Queued))
		})
	}
	for _, lock := range held {
		channel := node.Companion(lock.Key(), "")
		eventually.True(t, "it listens on the key's server", func() bool {
			return slices.ContainsFunc(must(t, c.Owner(lock.Key()), "PUBSUB", "SHARDCHANNELS").([]any), func(name any) bool {
				return strings.HasPrefix(name.(string), channel)
			})
		})
	}
	for _, s := range c.Servers() {
		list := must(t, s, "CLIENT", "LIST", "TYPE", "pubsub").(string)
		require.Equal(t, 1, strings.Count(list, "id="), list)
	}
	for _, lock := range held {
		require.NoError(t, lock.Release(t.Context()))
	}
}

// A Cluster of version 6 has no SSUBSCRIBE: waits poll, and one operation says why. As one node of
// three it is left out, and the others grant.
func TestAClusterWithoutShardedChannelsIsPolled(t *testing.T) {
	settle(t)
	c := redistest.StartCluster(t, "--rename-command", "SSUBSCRIBE", "", "--rename-command", "SPUBLISH", "")
	kind, failure := waitOnce(t, c.URL(), 50*ms)
	require.Equal(t, redlock.WaitPolled, kind)
	require.ErrorContains(t, failure, "node 127.0.0.1:")
	require.ErrorContains(t, failure, "SSUBSCRIBE: unknown command 'SSUBSCRIBE' (queues on a Cluster need it: Redis 7.0 or later, or Valkey; without it waits poll)")

	handOversOf(t, redistest.StartN(t, 2), c.URL())
}

// handOversOf requires that locks of the nodes, the servers and the one at url, are granted by the queues.
func handOversOf(t *testing.T, servers []*redistest.Server, url string) {
	t.Helper()
	urls := append(redistest.URLs(servers), url)
	var r recorder
	one, other := lockertest.Open(t, urls), lockertest.Open(t, urls, redlock.WithMiddleware(r.middleware))
	for range 5 {
		held, err := one.Acquire(t.Context(), "k", time.Minute, untilFree)
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() {
			got <- redlock.Do(t.Context(), other, "k", time.Minute, func(context.Context) error { return nil }, lockertest.Queued)
		}()
		eventually.True(t, "it waits", func() bool { return must(t, servers[0], "ZCARD", node.Companion("k", node.Queue)) == int64(1) })
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, <-got)
	}
	require.Positive(t, r.waits()[redlock.WaitGranted])
	require.Zero(t, r.waits()[redlock.WaitPolled])
}

// A key that has no companion in its slot has no queue on a Cluster: its waits poll, and one
// operation says why.
func TestAKeyWithoutAQueueOnAClusterIsPolled(t *testing.T) {
	settle(t)
	c := redistest.StartCluster(t)
	var failure error
	l := lockertest.Open(t, []string{c.URL()}, redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		err := next(ctx, op)
		failure = op.QueueErr
		return err
	})))
	other := lockertest.Open(t, []string{c.URL()})
	held, err := other.Acquire(t.Context(), "a}b", time.Minute, untilFree)
	require.NoError(t, err)
	time.AfterFunc(300*ms, func() { _ = held.Release(t.Context()) })
	lock, err := l.Acquire(t.Context(), "a}b", time.Minute, untilFree)
	require.NoError(t, err)
	require.ErrorContains(t, failure, `key "a}b" and its queue, "{a}b}:redlock:queue", are in different slots of a Cluster`)
	require.NoError(t, lock.Release(t.Context()))
	eventually.True(t, "nothing is left", func() bool { _, held := c.Owner("a}b").Get(t, "a}b"); return !held })
}
