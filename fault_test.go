package redlock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/redistest"
)

// A quorum of five hangs while fn runs: fn's ctx must end by the end of
// validity, and until then nobody else can have acquired.
func TestAHungQuorumEndsTheContextBeforeAnyoneElseCanOwnTheLock(t *testing.T) {
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

// The same seen from the hung nodes: what they hold after SIGCONT is ours or
// nobody's, never another's.
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

// The clients that Open makes, and those of a caller who did not tune his.
func TestAShortContextWithHungNodesLeavesNoKey(t *testing.T) {
	for _, tuned := range []bool{true, false} {
		t.Run(fmt.Sprint("tuned=", tuned), func(t *testing.T) {
			ns := start(t, 3)
			var l *redlock.Locker
			if tuned {
				l = ns.open()
			} else {
				var clients []rueidis.Client
				for _, p := range ns.proxies {
					c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{p.Addr()}, DisableCache: true})
					require.NoError(t, err)
					defer c.Close()
					clients = append(clients, c)
				}
				var err error
				l, err = redlock.New(clients)
				require.NoError(t, err)
				defer l.Close()
			}
			hung := ns.servers[1:]
			for _, s := range hung {
				s.Pause()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
			defer cancel()
			_, err := l.Acquire(ctx, "k", time.Hour)
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			// The ttl is an hour: what is gone within seconds was released.
			since := time.Now()
			eventually.True(t, "the healthy node's key", func() bool { return len(ns.servers[0].Keys(t)) == 0 })
			healthy := time.Since(since)
			for _, s := range hung {
				s.Resume()
			}
			since = time.Now()
			for _, s := range hung {
				eventually.True(t, "the stuck command has run", func() bool {
					stats, err := s.Do("INFO", "commandstats")
					require.NoError(t, err)
					return strings.Contains(stats.(string), "cmdstat_set:calls=")
				})
			}
			eventually.True(t, "the stuck commands' keys", ns.empty)
			t.Logf("gone from the healthy node after %v, from the hung ones %v after they resumed", healthy, time.Since(since))
		})
	}
}

// With a node timeout of an hour, whatever waited for the hung node would not
// return within the test.
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

// The request ran and its reply is lost: that is neither "held by others" nor
// may it leave a key.
func TestALostReplyIsNeitherContentionNorAnOrphan(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			ns := start(t, n)
			l := ns.open()
			for i := range 10 {
				for _, p := range ns.proxies {
					p.CutAfterRequest("SET")
				}
				_, err := l.TryAcquire(t.Context(), "k", time.Minute)
				require.ErrorIs(t, err, redlock.ErrNoQuorum, "round %d", i)
				require.NotErrorIs(t, err, redlock.ErrNotAcquired, "round %d", i)
				eventually.True(t, "no orphan", ns.empty)
				for _, p := range ns.proxies {
					p.Heal()
				}
				lock, err := l.Acquire(t.Context(), "k", time.Minute)
				require.NoError(t, err)
				require.NoError(t, lock.Release(t.Context()))
				eventually.True(t, "no key", ns.empty)
			}
		})
	}
}

func TestALostReplyOfAReleaseLeavesNoKey(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for range 5 {
		lock, err := l.Acquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		for _, p := range ns.proxies {
			p.Cut()
		}
		_ = lock.Release(t.Context()) // the first write on a dead connection fails
		eventually.True(t, "no key is left", ns.empty)
	}
}

func TestAFailedAttemptDoesNotBlockTheNext(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for _, s := range ns.servers[:2] {
		_, err := s.Do("SET", "k", "another")
		require.NoError(t, err)
	}
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	eventually.True(t, "our partial key is taken back", func() bool { return len(ns.servers[2].Keys(t)) == 0 })
	for _, s := range ns.servers[:2] {
		_, err := s.Do("DEL", "k")
		require.NoError(t, err)
	}
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	eventually.True(t, "no key of either attempt is left", ns.empty)
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

func TestNodesThatAreDownAtOpenTakePartAsSoonAsTheyAnswer(t *testing.T) {
	ns := start(t, 3)
	for _, s := range ns.servers {
		s.Kill()
	}
	l := ns.open()
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, "not connected")

	ns.servers[0].Restart()
	ns.servers[2].Restart()
	lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))

	ns.servers[1].Restart()
	eventually.True(t, "the third too", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		defer func() { require.NoError(t, lock.Release(t.Context())) }()
		_, ok := ns.servers[1].Get(t, "k")
		return ok
	})
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

// A node that hangs for as long as rueidis waits, while attempts go on: calls
// and goroutines are bounded, and nothing is left when it comes back.
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

func TestCloseReturnsWithNodesHung(t *testing.T) {
	ns := start(t, 3)
	l, err := redlock.Open(t.Context(), ns.urls(), redlock.WithNodeTimeout(200*ms))
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "k", 2*time.Second)
	require.NoError(t, err)
	for _, s := range ns.servers[1:] {
		s.Pause()
	}
	err = l.Close()
	require.ErrorIs(t, err, redlock.ErrNoQuorum, "two nodes did not say that the key is gone")
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	require.Empty(t, ns.servers[0].Keys(t))
	for _, s := range ns.servers[1:] {
		s.Resume()
	}
	eventually.True(t, "the deletions were sent", ns.empty)
}
