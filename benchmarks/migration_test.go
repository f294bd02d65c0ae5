package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// docs/migration.md says that these libraries and redlock exclude each other on the
// same key and the same nodes.
func TestRedlockAndItsPeersExcludeEachOther(t *testing.T) {
	for _, peer := range []struct {
		name  string
		nodes int
		open  func(context.Context, deployment) (locker, error)
	}{
		{"redsync on rueidis", 3, openRedsyncRueidis},
		{"redsync on go-redis", 3, openRedsyncGoRedis},
		{"bsm/redislock", 1, openRedislock},
	} {
		t.Run(peer.name, func(t *testing.T) {
			servers := redistest.StartN(t, peer.nodes)
			var d deployment
			for _, server := range servers {
				d.Nodes = append(d.Nodes, server.Addr())
			}
			opened, err := peer.open(t.Context(), d)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, opened.Close()) })
			theirs := opened.(acquirer)
			ours := openOurs(t, servers, redlock.WithoutWaitQueue())

			lock, err := ours.TryAcquire(t.Context(), "stock:42", ttl)
			require.NoError(t, err)
			requireOnAll(t, servers, "stock:42", lock.Token())
			_, err = theirs.Acquire(t.Context(), "stock:42")
			require.Error(t, err, "redlock holds it")
			require.NoError(t, lock.Extend(t.Context(), 0))
			require.NoError(t, lock.Release(t.Context()))
			requireOnAll(t, servers, "stock:42", "")

			held, err := theirs.Acquire(t.Context(), "stock:42")
			require.NoError(t, err)
			_, err = ours.TryAcquire(t.Context(), "stock:42", ttl)
			require.ErrorIs(t, err, redlock.ErrNotAcquired)
			require.NoError(t, held.Release(t.Context()))

			_, err = ours.Acquire(t.Context(), "stock:42", ttl, redlock.WithRetry(redlock.FixedRetry(10*time.Millisecond, 0, -1)))
			require.NoError(t, err)
		})
	}
}

// While a process queues for a lock, a release gives it to the next in the queue, and a
// peer that polls finds it held.
func TestAQueueKeepsPeersThatPollOut(t *testing.T) {
	servers := redistest.StartN(t, 1)
	theirs, err := openRedislock(t.Context(), deployment{Nodes: []string{servers[0].Addr()}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, theirs.Close()) })
	holder, waiting := openOurs(t, servers), openOurs(t, servers)

	lock, err := holder.TryAcquire(t.Context(), "stock:42", ttl)
	require.NoError(t, err)
	granted := make(chan error, 1)
	go func() {
		_, err := waiting.Acquire(t.Context(), "stock:42", ttl, redlock.WithRetry(onlyTheQueue))
		granted <- err
	}()
	eventually.True(t, "it queues", func() bool {
		return len(servers[0].Keys(t)) == 3 // the lock, and the two of its queue
	})
	require.NoError(t, lock.Release(t.Context()))
	require.Error(t, theirs.Cycle(t.Context(), "stock:42"), "it went to the queue")
	require.NoError(t, <-granted)
}

// bsm/redislock compares the token of its Options with a prefix of the stored value.
func TestATokenOfTheCallersTakesALockOfRedlockOver(t *testing.T) {
	servers := redistest.StartN(t, 1)
	ours := openOurs(t, servers)
	lock, err := ours.TryAcquire(t.Context(), "stock:42", ttl)
	require.NoError(t, err)

	client := redis.NewClient(&redis.Options{Addr: servers[0].Addr()})
	defer client.Close()
	_, err = redislock.Obtain(t.Context(), client, "stock:42", ttl, &redislock.Options{Token: lock.Token()[:1]})
	require.NoError(t, err, "one letter is enough")
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
}

func openOurs(t *testing.T, servers []*redistest.Server, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	l, err := redlock.Open(t.Context(), redistest.URLs(servers), opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// requireOnAll waits until the key has the value on all servers, or is on none for "".
func requireOnAll(t *testing.T, servers []*redistest.Server, key, value string) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("%q is %q on all nodes", key, value), func() bool {
		for _, server := range servers {
			if stored, _ := server.Get(t, key); stored != value {
				return false
			}
		}
		return true
	})
}
