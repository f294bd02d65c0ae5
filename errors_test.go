package redlock_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// token matches a token anywhere in a text.
var token = regexp.MustCompile(`[A-Z2-7]{26}[+-][0-9a-z]+`)

// Errors of each kind, with our token and another owner's in the keys.
func TestNoErrorRepeatsAToken(t *testing.T) {
	ns := start(t, 3)
	l, hurried := ns.open(), ns.open(redlock.WithNodeTimeout(200*ms))
	var last int
	tell := func(what string, err error, is ...error) {
		t.Helper()
		last++
		require.Error(t, err, what)
		for _, target := range is {
			require.ErrorIs(t, err, target, what)
		}
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%q", err)} {
			require.False(t, token.MatchString(text), "%s: %s", what, text)
		}
	}
	acquire := func(l *redlock.Locker, keys ...string) *redlock.Lock {
		t.Helper()
		lock, err := l.AcquireAll(t.Context(), keys, time.Minute, untilFree)
		require.NoError(t, err)
		for _, key := range keys {
			eventually.True(t, "held by all", func() bool { return ns.holders(key, lock.Token()) == 3 })
		}
		return lock
	}
	each := func(args ...string) {
		for _, s := range ns.servers {
			must(t, s, args...)
		}
	}

	held := acquire(l, "held")
	_, err := ns.open().TryAcquire(t.Context(), "held", time.Minute)
	tell("another's", err, redlock.ErrNotAcquired)
	_, err = l.TryAcquireAll(t.Context(), []string{"held", "free"}, time.Minute)
	tell("one of several", err, redlock.ErrNotAcquired)
	_, err = l.TryAcquire(held.Context(), "held", time.Minute)
	tell("ours", err, redlock.ErrAlreadyHeld)
	require.NoError(t, held.Release(t.Context()))
	tell("extending what is released", held.Extend(t.Context(), 0), redlock.ErrNotHeld)
	tell("the cause of a release", context.Cause(held.Context()))

	for what, arrange := range map[string][]string{
		"taken":           {"SET", "k", strings.Repeat("A", 26)},
		"of another type": {"EVAL", "redis.call('DEL', 'k') redis.call('LPUSH', 'k', 'x')", "0"},
		"gone":            {"DEL", "k"},
	} {
		for _, keys := range [][]string{{"k"}, {"k", "k2"}} {
			lock := acquire(l, keys...)
			each(arrange...)
			tell("extending what is "+what, lock.Extend(t.Context(), 0))
			if err := context.Cause(lock.Context()); err != nil {
				tell("the cause when "+what, err, redlock.ErrLost)
			}
			tell("releasing what is "+what, lock.Release(t.Context()))
			each("DEL", "k", "k2")
			eventually.True(t, "nothing is left", ns.empty)
			lock = acquire(l, keys...)
			each(arrange...)
			tell("only releasing what is "+what, lock.Release(t.Context()))
			each("DEL", "k", "k2")
			eventually.True(t, "nothing is left", ns.empty)
		}
	}

	each("CONFIG", "SET", "maxmemory", "1")
	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	tell("OOM", err, redlock.ErrNoQuorum)
	_, err = l.TryAcquireAll(t.Context(), []string{"k", "k2"}, time.Minute)
	tell("OOM, in a script", err, redlock.ErrNoQuorum)
	each("CONFIG", "SET", "maxmemory", "0")

	expires, err := l.Acquire(t.Context(), "expires", 100*ms, untilFree)
	require.NoError(t, err)
	<-expires.Context().Done()
	tell("expired", context.Cause(expires.Context()), redlock.ErrLost)
	capped, err := l.Acquire(t.Context(), "capped", time.Minute, untilFree, redlock.WithMaxHold(50*ms))
	require.NoError(t, err)
	<-capped.Context().Done()
	tell("at its longest", context.Cause(capped.Context()), redlock.ErrLost)

	unanswered := acquire(hurried, "unanswered")
	dying := acquire(hurried, "dying")
	for _, s := range ns.servers {
		s.Pause()
	}
	tell("extending without an answer", unanswered.Extend(t.Context(), 0), redlock.ErrNoQuorum)
	tell("releasing without an answer", unanswered.Release(t.Context()), redlock.ErrNoQuorum)
	_, err = hurried.TryAcquire(t.Context(), "k", time.Minute)
	tell("acquiring without an answer", err, redlock.ErrNoQuorum)
	for _, s := range ns.servers {
		s.Kill()
	}
	tell("extending with all dead", dying.Extend(t.Context(), 0), redlock.ErrNoQuorum)
	_, err = hurried.TryAcquire(t.Context(), "k", time.Minute)
	tell("acquiring with all dead", err, redlock.ErrNoQuorum)
	tell("closing with all dead", hurried.Close(), redlock.ErrNoQuorum)
	tell("the cause of a close", context.Cause(dying.Context()), redlock.ErrClosed)
	tell("after it", dying.Extend(t.Context(), 0), redlock.ErrNotHeld)
	t.Logf("%d errors", last)
}

// A server that does not know a command, or may not run it, quotes its
// arguments: tokens, and the password of a connection.
func TestNoErrorRepeatsWhatAServerQuotes(t *testing.T) {
	without := func(commands ...string) *redistest.Server {
		var args []string
		for _, command := range commands {
			args = append(args, "--rename-command", command, "")
		}
		return redistest.Start(t, args...)
	}
	discreet := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Regexp(t, "unknown command|Unknown Redis command", err.Error())
		require.NotRegexp(t, token, err.Error())
		require.NotContains(t, err.Error(), password)
	}
	l := lockertest.Open(t, []string{without("EVALSHA").URL()})
	_, err := l.TryAcquireAll(t.Context(), []string{"a", "b"}, time.Minute)
	discreet(err)
	_, err = l.TryAcquire(t.Context(), "k", time.Second)
	discreet(err)
	_, err = lockertest.Open(t, []string{without("SET").URL()}).TryAcquire(t.Context(), "k", time.Minute)
	discreet(err)
	s := without("HELLO", "AUTH")
	_, err = lockertest.Open(t, []string{"redis://user:" + password + "@" + s.Addr()}).TryAcquire(t.Context(), "k", time.Minute)
	discreet(err)
}

func TestErrorsNameTheNodesAndWhatTheySaid(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithNodeTimeout(2 * time.Second))
	_, err := ns.servers[1].Do("SET", "user:123", "another")
	require.NoError(t, err)
	ns.servers[2].Pause()
	_, err = l.TryAcquire(t.Context(), "user:123", time.Minute)
	ns.servers[2].Resume()
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "two of three answer: it was the refusal that decided")
	require.EqualError(t, err, fmt.Sprintf(
		`redlock: acquire "user:123": 1 of 3 nodes granted, 2 needed: %s: held by another owner; %s: no reply within 2s`,
		ns.proxies[1].Addr(), ns.proxies[2].Addr()))
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "acquire", failed.Op)
	require.Equal(t, []string{"user:123"}, failed.Keys)
	require.Equal(t, []int{3, 2, 1}, []int{failed.Total, failed.Need, failed.Got})
	require.Len(t, failed.Nodes, 2)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "no ctx of the caller's ended")
}

func TestErrorsOfAServerAreNotContention(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for name, arrange := range map[string][]string{
		"OOM":    {"CONFIG", "SET", "maxmemory", "1"},
		"NOPERM": {"ACL", "SETUSER", "default", "-set", "-evalsha", "-eval"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range ns.servers[:2] {
				_, err := s.Do(arrange...)
				require.NoError(t, err)
			}
			for _, keys := range [][]string{{"k"}, {"k1", "k2"}} {
				_, err := l.TryAcquireAll(t.Context(), keys, time.Minute)
				require.ErrorIs(t, err, redlock.ErrNoQuorum)
				require.NotErrorIs(t, err, redlock.ErrNotAcquired)
				require.ErrorContains(t, err, name)
			}
			for _, s := range ns.servers[:2] {
				_, err := s.Do("CONFIG", "SET", "maxmemory", "0")
				require.NoError(t, err)
				_, err = s.Do("ACL", "SETUSER", "default", "+@all")
				require.NoError(t, err)
			}
			eventually.True(t, "no key is left", ns.empty)
		})
	}
}
