package redlock_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestContendersTakeTurns(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			ns := start(t, n)
			ctx, cancel := context.WithTimeout(t.Context(), 2*eventually.Soon)
			defer cancel()
			var inside, turns atomic.Int64
			var all sync.WaitGroup
			for range 4 { // processes: each has its own connections
				l := ns.open(redlock.WithRetry(redlock.ExponentialRetry(5*ms, 50*ms)))
				for range 3 {
					all.Go(func() {
						for range 5 {
							err := redlock.Do(ctx, l, "k", 10*time.Second, func(context.Context) error {
								assert.Equal(t, int64(1), inside.Add(1), "two are inside")
								runtime.Gosched()
								inside.Add(-1)
								turns.Add(1)
								return nil
							})
							assert.NoError(t, err)
						}
					})
				}
			}
			all.Wait()
			require.Equal(t, int64(60), turns.Load())
			eventually.True(t, "no key is left", ns.empty)
		})
	}
}

func TestEachAttemptHasAFreshToken(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	seen := make(map[string]bool)
	for range 50 {
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.False(t, seen[lock.Token()])
		require.GreaterOrEqual(t, len(lock.Token()), 26, "128 bits in base 32")
		seen[lock.Token()] = true
		require.NoError(t, lock.Release(t.Context()))
	}
}

func TestAnyKeyIsTakenAsItIs(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	for _, key := range []string{"{", "}", "{}", "{a}b", "redlock", "redlock:", " ", "\x00\r\n*1\r\n", "ключ", "a b c", `"`} {
		lock, err := l.TryAcquire(t.Context(), key, 10*time.Second)
		require.NoError(t, err, "%q", key)
		eventually.True(t, "held under its own name", func() bool { return ns.holders(key, lock.Token()) == 3 })
		require.NoError(t, lock.Release(t.Context()), "%q", key)
	}
}

func TestSeveralKeysAreAllOrNone(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	keys := []string{"c", "a", "b", "a"}
	lock, err := l.TryAcquireAll(t.Context(), keys, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, lock.Keys())
	require.Equal(t, "a", lock.Key())
	require.Equal(t, []string{"c", "a", "b", "a"}, keys, "the caller's slice is his")
	for _, key := range lock.Keys() {
		eventually.True(t, key, func() bool { return ns.holders(key, lock.Token()) == 3 })
	}
	_, err = l.TryAcquireAll(t.Context(), []string{"x", "b", "y"}, 10*time.Second)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	eventually.True(t, "nothing of the second is left", func() bool {
		return !slices.ContainsFunc(ns.servers, func(s *redistest.Server) bool { return len(s.Keys(t)) != 3 })
	})
	require.NoError(t, lock.Extend(t.Context(), time.Minute))

	// One key of several is gone: Release deletes the others, and reports it.
	for _, s := range ns.servers {
		_, err := s.Do("DEL", "b")
		require.NoError(t, err)
	}
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	eventually.True(t, "no key is left", ns.empty)
}

func TestANestedAcquireOfTheSameKeyIsAnError(t *testing.T) {
	ns := start(t, 3)
	l, other := ns.open(), start(t, 1).open()
	err := redlock.Do(t.Context(), l, "outer", 10*time.Second, func(ctx context.Context) error {
		return redlock.Do(ctx, l, "inner", 10*time.Second, func(ctx context.Context) error {
			for _, key := range []string{"outer", "inner"} {
				_, err := l.Acquire(ctx, key, 10*time.Second)
				require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
				_, err = l.TryAcquireAll(ctx, []string{"x", key}, 10*time.Second)
				require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
				require.ErrorContains(t, err, fmt.Sprintf("%q", key))
			}
			lock, err := other.TryAcquire(ctx, "outer", 10*time.Second)
			require.NoError(t, err, "other nodes, another lock")
			return lock.Release(ctx)
		})
	})
	require.NoError(t, err)

	lock, err := l.TryAcquire(t.Context(), "outer", 10*time.Second)
	require.NoError(t, err)
	_, err = l.TryAcquire(lock.Context(), "outer", 10*time.Second)
	require.ErrorIs(t, err, redlock.ErrAlreadyHeld, "a manual lock's context knows too")
	require.NoError(t, lock.Release(t.Context()))
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
			// The ttl is an hour: a key that is gone within seconds was released.
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

// The request ran and its reply is lost: the error does not say that the lock is held, and no key
// is left.
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

// A key that another program uses for a list counts as held: nothing else is wrong with
// the nodes.
func TestAKeyOfAForeignTypeIsHeldByAnotherOwner(t *testing.T) {
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

// An acquire ends once its validity would have passed, even if the node timeout is far longer.
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

func TestNamesThatTheLibraryUsesAreNoKeys(t *testing.T) {
	ns := start(t, 1)
	for prefix, keys := range map[string][]string{
		"":         {"{k}:redlock:queue", "{k}:redlock:waiters", "{k}:redlock:fence", "{k}a:redlock.fence", ":redlock:", "k:redlock.", "redlock:guard"},
		"shop:":    {"k:redlock:queue", "{k}:redlock.waiters", ":redlock:fence"},
		"redlock:": {"guard"},
		":redlock": {":k", ".k", ":"},
	} {
		l := ns.open(redlock.WithKeyPrefix(prefix), redlock.WithMiddleware(func(redlock.Handler) redlock.Handler {
			return func(context.Context, *redlock.Op) error { t.Error("it is asked for"); return nil }
		}))
		for _, key := range keys {
			want := fmt.Sprintf("redlock: acquire %q: the library uses this name: a key must not contain \":redlock:\" or \":redlock.\", nor be \"redlock:guard\"", prefix+key)
			never := func(context.Context) error { t.Error("it is held"); return nil }
			_, err := l.Acquire(t.Context(), key, time.Second)
			require.EqualError(t, err, want)
			_, err = l.TryAcquire(t.Context(), key, time.Second, redlock.WithFence())
			require.EqualError(t, err, want)
			_, err = l.AcquireAll(t.Context(), []string{"a", key, "z"}, time.Second)
			require.EqualError(t, err, want)
			_, err = l.TryAcquireAll(t.Context(), []string{key, "a"}, time.Second)
			require.EqualError(t, err, want)
			require.EqualError(t, redlock.Do(t.Context(), l, key, time.Second, never), want)
			require.EqualError(t, redlock.Campaign(t.Context(), l, key, time.Second, never), want)
		}
	}
	require.Empty(t, ns.servers[0].Keys(t))
	for _, prefix := range []string{":redlock:", "shop:redlock:", "{shop}:redlock.queue"} {
		_, err := redlock.Open(t.Context(), []string{"redis://localhost"}, redlock.WithKeyPrefix(prefix))
		require.EqualError(t, err, fmt.Sprintf("redlock: WithKeyPrefix(%q): the library uses such names: must not contain \":redlock:\" or \":redlock.\"", prefix))
	}
	l := ns.open()
	for _, key := range []string{"k:waiters", "k:waiting", "{k}:fence", "k:redlock", "redlock:guard:1"} {
		lock, err := l.TryAcquire(t.Context(), key, time.Minute)
		require.NoError(t, err, key)
		require.NoError(t, lock.Release(t.Context()))
	}
}

func TestBadArgumentsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	const ttl = time.Second
	for _, c := range []struct {
		keys []string
		ttl  time.Duration
		opts []redlock.LockOption
		want string
	}{
		{[]string{""}, ttl, nil, `redlock: acquire "": key is empty: any other string is accepted`},
		{nil, ttl, nil, `redlock: acquire: no keys: at least one is needed`},
		{[]string{"a", ""}, ttl, nil, `redlock: acquire ["a" ""]: keys[1] is empty: any other string is accepted`},
		{[]string{"k"}, 0, nil, `redlock: acquire "k": ttl 0s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, -ttl, nil, `redlock: acquire "k": ttl -1s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, 9 * ms, nil, `redlock: acquire "k": ttl 9ms: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, ttl, []redlock.LockOption{nil}, `redlock: acquire "k": option 0 is nil`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithRetry(nil)}, `redlock: acquire "k": WithRetry(nil): must be a policy, such as NoRetry()`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithExtendThreshold(ttl)}, `redlock: acquire "k": WithExtendThreshold(1s): must be below the ttl, 1s`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(2 * ttl)}, `redlock: acquire "k": WithGrace(2s): must be below the validity, 988ms: the ttl, 1s, less the drift`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(990 * ms), redlock.WithoutAutoExtend()}, `redlock: acquire "k": WithGrace(990ms): must be below the validity, 988ms: the ttl, 1s, less the drift`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(200 * ms), redlock.WithMaxHold(200 * ms)}, `redlock: acquire "k": WithGrace(200ms): must be below WithMaxHold, 200ms`},
		{[]string{"k"}, redlock.MaxTTL + 1, nil, `redlock: acquire "k": ttl 87600h0m0.000000001s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(900 * ms)}, `redlock: acquire "k": WithGrace(900ms): must be below the threshold of extension, 666.666666ms, or the lock ends before it is extended`},
	} {
		lock, err := l.TryAcquireAll(t.Context(), c.keys, c.ttl, c.opts...)
		require.Nil(t, lock, c.want)
		require.EqualError(t, err, c.want)
		if len(c.keys) == 1 {
			_, err = redlock.With(t.Context(), l, c.keys[0], c.ttl, func(context.Context) (int, error) { return 0, nil }, c.opts...)
			require.EqualError(t, err, c.want)
		}
	}
	_, err := redlock.With[int](t.Context(), l, "k", ttl, nil)
	require.EqualError(t, err, `redlock: hold "k": fn is nil: must be a function`)
	require.EqualError(t, redlock.Do(t.Context(), l, "k", ttl, nil), `redlock: hold "k": fn is nil: must be a function`)
	reply, err := ns.servers[0].Do("INFO", "commandstats")
	require.NoError(t, err)
	require.NotContains(t, reply, "cmdstat_set:", "nothing was sent")

	held, err := l.TryAcquire(t.Context(), "k", ttl, redlock.WithGrace(100*ms))
	require.NoError(t, err)
	require.EqualError(t, held.Extend(t.Context(), ms), `redlock: extend "k": ttl 1ms: must be 0 (as acquired) or from 10ms to 87600h0m0s`)
	require.EqualError(t, held.Extend(t.Context(), math.MaxInt64), `redlock: extend "k": ttl 2562047h47m16.854775807s: must be 0 (as acquired) or from 10ms to 87600h0m0s`)
	require.EqualError(t, held.Extend(t.Context(), 103*ms), `redlock: extend "k": ttl 103ms: its validity, 99.97ms, must be above the grace, 100ms`)
	require.EqualError(t, held.AutoExtend(ttl), `redlock: extend "k": threshold 1s: must be 0 (the default) or above the grace, 100ms, and below the ttl, 1s`)
	require.EqualError(t, held.AutoExtend(50*ms), `redlock: extend "k": threshold 50ms: must be 0 (the default) or above the grace, 100ms, and below the ttl, 1s`)
	none := redlock.RetryPolicy(func() backoff.BackOff { return nil })
	_, err = l.Acquire(t.Context(), "k", ttl, redlock.WithRetry(none))
	require.ErrorContains(t, err, "redlock: acquire \"k\": WithRetry: the policy returned nil: must return a backoff.BackOff: ")
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.NoError(t, held.Release(t.Context()))
}

// Any strings are keys, but the empty one and the library's own names: they stand on the server as they
// are, and the lock has them sorted and once each.
func FuzzKeys(f *testing.F) {
	for _, keys := range [][3]string{
		{"a", "b", "c"}, {"c", "b", "a"}, {"a", "a", "a"}, {"a", "b", "a"}, {"", "a", "b"}, {"a", "", ""}, {"", "", ""},
		{"{a}1", "{a}2", "{b}"}, {"\x00", "\xff", "\xff\xfe"}, {"*3\r\n$3\r\nSET\r\n", "\r\n", "$-1\r\n"}, {" ", "  ", "\t"},
		{"ключ", "キー", "🔑"}, {"%s", "%!d", `"`}, {"*", "?", "[a]"}, {"a", "{a}:redlock:queue", "b"}, {"a", "{a}", "a}"}, {"redlock:guard", "a", "b"}, {strings.Repeat("k", 5000), "k", "K"},
	} {
		f.Add(keys[0], keys[1], keys[2])
	}
	server := redistest.Start(f)
	l := lockertest.Open(f, []string{server.URL()}, redlock.WithNodeTimeout(eventually.Soon))
	f.Fuzz(func(t *testing.T, a, b, c string) {
		keys := []string{a, b, c, a}
		lock, err := l.TryAcquireAll(t.Context(), keys, time.Minute)
		require.Equal(t, []string{a, b, c, a}, keys, "the caller's slice is his")
		if slices.Contains(keys, "") {
			require.ErrorContains(t, err, "is empty: any other string is accepted")
			require.Empty(t, server.Keys(t))
			return
		}
		if slices.ContainsFunc(keys, func(key string) bool { return node.Reserved(key) != nil }) {
			require.ErrorContains(t, err, "the library uses this name")
			require.Empty(t, server.Keys(t))
			return
		}
		require.NoError(t, err)
		want := slices.Compact(slices.Sorted(slices.Values(keys)))
		require.Equal(t, want, lock.Keys())
		require.Equal(t, want, server.Keys(t))
		for _, key := range want {
			value, _ := server.Get(t, key)
			require.Equal(t, lock.Token(), value)
		}
		_, err = l.TryAcquire(t.Context(), c, time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		require.NoError(t, lock.Extend(t.Context(), 0))
		require.NoError(t, lock.Release(t.Context()))
		require.Empty(t, server.Keys(t))
	})
}
