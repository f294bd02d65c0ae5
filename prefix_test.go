package redlock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
)

func TestAPrefixedLockIsTheLockOfTheWholeKey(t *testing.T) {
	ns := start(t, 3)
	l, plain := ns.open(redlock.WithKeyPrefix("app:"), redlock.WithKeyPrefix("shop:")), ns.open(redlock.WithKeyPrefix(""))
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.Equal(t, "shop:k", lock.Key(), "the last one counts")
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("shop:k", lock.Token()) == 3 })

	_, err = plain.TryAcquire(t.Context(), "shop:k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "the same lock")
	other, err := plain.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err, "another lock")
	require.Equal(t, "k", other.Key())

	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorContains(t, err, `redlock: acquire "shop:k": `)
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []string{"shop:k"}, failed.Keys)

	_, err = l.TryAcquire(t.Context(), "", time.Minute)
	require.EqualError(t, err, `redlock: acquire "": key is empty: any other string is accepted`, "a prefix alone is no key")
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, other.Release(t.Context()))
}

func TestANestedAcquireOfAPrefixedKeyIsFound(t *testing.T) {
	ns := start(t, 1)
	l := ns.open(redlock.WithKeyPrefix("shop:"))
	keys := []string{"b", "a", "b"}
	_, err := redlock.WithAll(t.Context(), l, keys, time.Minute, func(ctx context.Context) (int, error) {
		lock, _ := redlock.FromContext(ctx)
		require.Equal(t, []string{"shop:a", "shop:b"}, lock.Keys())
		_, err := l.TryAcquire(ctx, "a", time.Minute)
		require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
		_, err = l.TryAcquire(ctx, "shop:a", time.Minute) // shop:shop:a
		require.NoError(t, err)
		return 0, nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a", "b"}, keys, "the caller's keys are not changed")
}

func TestAnErrorNamesTheWholeKeyWhateverIsWrong(t *testing.T) {
	l := start(t, 1).open(redlock.WithKeyPrefix("shop:"))
	keys := []string{"a", "b"}
	nothing := func(context.Context) (int, error) { return 0, nil }
	for _, c := range []struct {
		ttl  time.Duration
		fn   func(context.Context) (int, error)
		opts []redlock.LockOption
		want string
	}{
		{0, nothing, nil, `redlock: acquire ["shop:a" "shop:b"]: ttl 0s: `},
		{time.Minute, nothing, []redlock.LockOption{redlock.WithGrace(-1)}, `redlock: acquire ["shop:a" "shop:b"]: WithGrace(-1ns): `},
		{time.Minute, nil, nil, `redlock: hold ["shop:a" "shop:b"]: fn is nil: `},
	} {
		_, err := redlock.WithAll(t.Context(), l, keys, c.ttl, c.fn, c.opts...)
		require.ErrorContains(t, err, c.want)
	}
	require.Equal(t, []string{"a", "b"}, keys, "the caller's keys are not changed")
}

func TestWaitersOfAPrefixedKeyStandInItsQueue(t *testing.T) {
	ns := start(t, 3)
	one, other := ns.open(redlock.WithKeyPrefix("shop:")), ns.open(redlock.WithKeyPrefix("shop:"))
	lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	got := make(chan error)
	go func() {
		_, err := other.Acquire(t.Context(), "k", time.Minute, lockertest.Queued)
		got <- err
	}()
	eventually.True(t, "it waits", ns.queue)
	require.Contains(t, ns.servers[0].Keys(t), "shop:k:waiters")
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, <-got)
}
