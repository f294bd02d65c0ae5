package redlock_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// prefixed are servers with a user who may access the keys of one prefix.
func prefixed(t *testing.T, rules ...string) (servers []*redistest.Server, urls []string) {
	t.Helper()
	servers = redistest.StartN(t, 3)
	for _, s := range servers {
		must(t, s, append([]string{"ACL", "SETUSER", "app", "reset", "on", ">secret", "&redlock:*", "+@all"}, rules...)...)
		urls = append(urls, "redis://app:secret@"+s.Addr())
	}
	return servers, urls
}

// The keys of a prefix, and their companions, are all that an application needs.
func TestAUserWithAPrefixDoesEverything(t *testing.T) {
	settle(t)
	servers, urls := prefixed(t, "~app:*", "~{app:*")
	ctx := soon(t)
	var noted waitLog
	l := lockertest.Open(t, urls, redlock.WithKeyPrefix("app:"), noted.middleware(), redlock.WithFence())
	holder := lockertest.Open(t, urls, redlock.WithKeyPrefix("app:"))
	_, err := l.Ping(ctx)
	require.NoError(t, err)
	for _, keys := range [][]string{{"k"}, {"a", "b"}, {"{order:1}:a", "{order:1}:b"}} {
		first, err := l.AcquireAll(ctx, keys, time.Minute)
		require.NoError(t, err)
		require.NoError(t, first.Extend(ctx, time.Minute))
		require.NoError(t, first.Release(ctx))
		second, err := l.AcquireAll(ctx, keys, time.Minute)
		require.NoError(t, err)
		require.Greater(t, second.Fence(), first.Fence())
		require.NoError(t, second.Release(ctx))
	}
	noted.take()
	within(t, l, holder, byQueue)
	kinds, errs := noted.take()
	require.Equal(t, []redlock.WaitKind{redlock.WaitGranted}, kinds)
	require.Empty(t, errs)
	for _, s := range servers {
		for _, denied := range refused(t, s) {
			require.Contains(t, []string{"ping", "client|setinfo"}, denied)
		}
	}

	_, err = lockertest.Open(t, urls, redlock.WithKeyPrefix("other:")).TryAcquire(ctx, "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, `with "other:k": NOPERM `)
}

// What needs the missing part fails, or says that it polls, and the rest works.
func TestAUserWithoutAPartIsToldWhichItIs(t *testing.T) {
	settle(t)
	ctx := soon(t)
	free := func(servers []*redistest.Server) func() bool {
		return func() bool {
			for _, s := range servers {
				if _, held := s.Get(t, "app:k"); held {
					return false
				}
			}
			return true
		}
	}
	for _, c := range []struct {
		rules  []string
		failed string // of a wait's queue
		fence  string // the error of a fence; "" if there is none
	}{
		{[]string{"~app:*"}, `EVALSHA with "app:k", "{app:k}:redlock:queue", "{app:k}:redlock:waiters", "{app:k}:redlock:fence": NOPERM `, `EVALSHA with "app:k", "{app:k}:redlock:fence": NOPERM `},
		{[]string{"~app:*", "~{app:*", "resetchannels"}, "SUBSCRIBE: NOPERM ", ""},
		{[]string{"~app:*", "~{app:*", "-subscribe"}, "SUBSCRIBE: NOPERM ", ""},
		{[]string{"~app:*", "~{app:*", "-zadd"}, "the script of ", ""},
	} {
		name := fmt.Sprint(c.rules)
		servers, urls := prefixed(t, c.rules...)
		var noted waitLog
		l := lockertest.Open(t, urls, redlock.WithKeyPrefix("app:"), noted.middleware())
		holder := lockertest.Open(t, urls, redlock.WithKeyPrefix("app:"))
		lock, err := l.TryAcquire(ctx, "k", time.Minute)
		require.NoError(t, err, name)
		require.NoError(t, lock.Release(ctx), name)
		lock, err = l.TryAcquire(ctx, "k", time.Minute, redlock.WithFence())
		if c.fence == "" {
			require.NoError(t, err, name)
			require.NoError(t, lock.Release(ctx), name)
		} else {
			require.ErrorIs(t, err, redlock.ErrNoQuorum, name)
			require.ErrorContains(t, err, c.fence, name)
		}
		noted.take()
		var failures []error
		eventually.True(t, name+": a wait says that it polls, and why", func() bool {
			within(t, l, holder, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
			_, errs := noted.take()
			failures = append(failures, errs...)
			return len(failures) > 0
		})
		require.Len(t, failures, 1, name)
		require.ErrorContains(t, failures[0], c.failed, name)
		eventually.True(t, "nothing is left", free(servers))
	}
}
