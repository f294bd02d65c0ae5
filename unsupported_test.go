package redlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

const (
	noScripts     = "(every lock needs EVALSHA and EVAL: nothing works without them)"
	guardWantINFO = "(WithRestartGuard needs INFO in scripts; without that option locks, queues and fences work)"
)

// withoutCommand starts servers that do not know a command.
func withoutCommand(t *testing.T, n int, command string) []*redistest.Server {
	return redistest.StartN(t, n, "--rename-command", command, "")
}

// isUnsupported checks an error that has come long before the end of the wait.
func isUnsupported(ctx context.Context, t *testing.T, err error, want string, lacking ...*redistest.Server) {
	t.Helper()
	require.NoError(t, ctx.Err())
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.NotErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorContains(t, err, ": trying again would change nothing")
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	said := make(map[string]string)
	for _, n := range failed.Nodes {
		said[n.Node] = n.Err.Error()
	}
	for _, s := range lacking {
		require.Contains(t, said[s.Addr()], want)
	}
}

// A wait for nodes that can never grant the lock would never end.
func TestAWaitEndsWhereAQuorumLacksACommand(t *testing.T) {
	settle(t)
	lacking, whole := withoutCommand(t, 2, "EVAL"), redistest.Start(t)
	nodes := redistest.URLs(append(lacking, whole))
	l := lockertest.Open(t, nodes, redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	_, err := l.TryAcquire(ctx, "k", time.Minute)
	isUnsupported(ctx, t, err, noScripts, lacking...)
	_, err = l.Acquire(ctx, "k", time.Minute)
	isUnsupported(ctx, t, err, noScripts, lacking...)
	_, err = l.AcquireAll(ctx, []string{"a", "b"}, time.Minute, redlock.WithFence())
	isUnsupported(ctx, t, err, noScripts, lacking...)
	isUnsupported(ctx, t, redlock.Do(ctx, l, "k", time.Minute, noWork), noScripts, lacking...)
	isUnsupported(ctx, t, redlock.Campaign(ctx, l, "k", time.Minute, noWork), noScripts, lacking...)

	whole.Kill() // so that one of the nodes that lack EVAL decides, now this and now that
	_, err = l.Acquire(ctx, "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(ms, 0, -1)))
	isUnsupported(ctx, t, err, noScripts, lacking...)
	for _, s := range lacking {
		require.Empty(t, s.Keys(t))
	}
}

func noWork(context.Context) error { return nil }

// Whatever else fails may be well again.
func TestAWaitGoesOnWhileAQuorumMayComeBack(t *testing.T) {
	settle(t)
	lacking, whole := withoutCommand(t, 1, "EVAL"), redistest.StartN(t, 2)
	l := lockertest.Open(t, redistest.URLs(append(lacking, whole...)), redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
	for _, s := range whole {
		s.Kill()
	}
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
	time.AfterFunc(300*ms, func() {
		for _, s := range whole {
			s.Restart()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	lock, err := l.Acquire(ctx, "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(ctx))
}

// Without INFO and TIME there is no guard, and no queue. All else works.
func TestServersWithRenamedCommands(t *testing.T) {
	settle(t)
	servers := redistest.StartN(t, 3, "--rename-command", "INFO", "I", "--rename-command", "TIME", "T")
	ctx := soon(t)
	_, err := lockertest.Open(t, redistest.URLs(servers), redlock.WithRestartGuard(time.Minute, 0)).Acquire(ctx, "k", time.Minute)
	isUnsupported(ctx, t, err, "")
	require.ErrorContains(t, err, "(WithRestartGuard needs TIME in scripts; without that option locks and fences work, and waits poll)")

	var noted waitLog
	l, holder := lockertest.Open(t, redistest.URLs(servers), redlock.WithFence(), noted.middleware()), lockertest.Open(t, redistest.URLs(servers))
	_, err = l.Ping(ctx)
	require.NoError(t, err)
	within(t, l, holder, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
	kinds, errs := noted.take()
	require.Equal(t, []redlock.WaitKind{redlock.WaitPolled}, kinds)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "(queues need TIME in scripts; without them waits poll)")
}

// A service takes a permission away, or a failover leads to a server that is set up otherwise.
func TestAWaitEndsWhenAQuorumLosesACommand(t *testing.T) {
	settle(t)
	servers := redistest.StartN(t, 3)
	var urls []string
	for _, s := range servers {
		must(t, s, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
		urls = append(urls, "redis://app:secret@"+s.Addr())
	}
	held, err := lockertest.Open(t, redistest.URLs(servers)).Acquire(t.Context(), "k", time.Hour)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	for _, opts := range [][]redlock.Option{nil, {redlock.WithoutWaitQueue()}} {
		for _, s := range servers {
			must(t, s, "ACL", "SETUSER", "app", "+@all")
		}
		l := lockertest.Open(t, urls, append(opts, redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))...)
		_, err = l.TryAcquire(ctx, "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		ended := make(chan error, 1)
		go func() {
			_, err := l.Acquire(ctx, "k", time.Minute)
			ended <- err
		}()
		wait(ctx, 100*ms)
		require.Empty(t, ended)
		for _, s := range servers {
			must(t, s, "ACL", "SETUSER", "app", "-eval", "-evalsha")
		}
		isUnsupported(ctx, t, <-ended, noScripts)
	}
	require.NoError(t, held.Release(ctx))
}

func TestAWaitEndsWhereTheGuardCannotWork(t *testing.T) {
	settle(t)
	servers := redistest.StartN(t, 3)
	var urls []string
	for _, s := range servers {
		must(t, s, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
		urls = append(urls, "redis://app:secret@"+s.Addr())
	}
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	l := lockertest.Open(t, urls, redlock.WithRestartGuard(time.Minute, 0), redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
	_, err := l.Acquire(ctx, "k", time.Minute)
	isUnsupported(ctx, t, err, guardWantINFO)
	require.ErrorContains(t, err, guardWantINFO)

	l = lockertest.Open(t, urls)
	lock, err := l.Acquire(ctx, "k", time.Minute, redlock.WithFence())
	require.NoError(t, err, "without the guard no lock needs INFO")
	require.NoError(t, lock.Release(ctx))
}

// One answer ends no wait: it may be that of a server which is just being set up.
func TestAWaitGoesOnWhereACommandIsLackingForAMoment(t *testing.T) {
	settle(t)
	s := redistest.Start(t)
	must(t, s, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-eval", "-evalsha")
	l := lockertest.Open(t, []string{"redis://app:secret@" + s.Addr()})
	paused := func() backoff.BackOff {
		return onPause(func() { must(t, s, "ACL", "SETUSER", "app", "+@all") })
	}
	lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(paused))
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
}

// onPause is called before each pause.
type onPause func()

func (f onPause) NextBackOff() time.Duration { f(); return ms }
func (f onPause) Reset()                     {}
