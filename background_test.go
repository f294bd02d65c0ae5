package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func nothing(context.Context) error { return nil }

func TestWithABackgroundReleaseALockCostsOneRoundTrip(t *testing.T) {
	const trip = 20 * ms
	for name, opts := range map[string][]redlock.Option{
		"plain":      nil,
		"fence":      {redlock.WithFence()},
		"metadata":   {redlock.WithMetadata("x")},
		"guard":      {redlock.WithRestartGuard(10*time.Second, 0)},
		"no queues":  {redlock.WithoutWaitQueue()},
		"max hold":   {redlock.WithMaxHold(5 * time.Second)},
		"middleware": {redlock.WithMiddleware(new(recorder).middleware)},
	} {
		t.Run(name, func(t *testing.T) {
			lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
				l, _ := open(trip, append(opts, redlock.WithBackgroundRelease())...)
				_, _ = l.TrustNodes(t.Context()), redlock.Do(t.Context(), l, "first", time.Second, nothing)
				time.Sleep(time.Second)
				for range 10 {
					for _, keys := range [][]string{{"k"}, {"a", "b"}} {
						began := time.Now()
						_, err := redlock.WithAll(t.Context(), l, keys, 10*time.Second, func(context.Context) (int, error) { return 0, nil })
						require.NoError(t, err)
						require.Equal(t, trip, time.Since(began))
					}
				}
			})
		})
	}
}

func TestABackgroundReleaseWaitsForNoAnswer(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithNodeTimeout(time.Minute))
	require.NoError(t, redlock.Do(t.Context(), l, "first", time.Hour, nothing)) // the servers know the scripts
	var token string
	err := redlock.Do(t.Context(), l, "k", time.Hour, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		token = lock.Token()
		for _, p := range ns.proxies {
			p.HoldReplies(true)
		}
		return nil
	}, redlock.WithBackgroundRelease())
	require.NoError(t, err)
	// One node may not have answered the acquire yet. Its release waits for that.
	eventually.True(t, "released, though no node can answer", func() bool { return ns.holders("k", token) <= 1 })
	for _, p := range ns.proxies {
		p.HoldReplies(false)
	}
	eventually.True(t, "no key is left", ns.empty)
}

func TestABackgroundReleaseThatFailsIsTriedAgain(t *testing.T) {
	ns := start(t, 3)
	l := ns.open()
	lock, err := l.TryAcquire(t.Context(), "k", time.Hour, redlock.WithBackgroundRelease())
	require.NoError(t, err)
	for _, p := range ns.proxies {
		p.Refuse(true)
	}
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, lock.Release(t.Context()), "release is idempotent")
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrReleased)
	require.False(t, ns.empty())
	for _, p := range ns.proxies {
		p.Refuse(false)
	}
	eventually.True(t, "no key is left", ns.empty)
}

func TestCloseWaitsForBackgroundReleases(t *testing.T) {
	for _, observed := range []bool{false, true} {
		t.Run(fmt.Sprint("middleware=", observed), func(t *testing.T) {
			ns := start(t, 3)
			for _, p := range ns.proxies {
				p.Delay(20*ms, 20*ms)
			}
			opts := []redlock.Option{redlock.WithBackgroundRelease()}
			var seen recorder
			if observed {
				opts = append(opts, redlock.WithMiddleware(seen.middleware))
			}
			l := ns.open(opts...)
			const locks = 20
			for i := range locks {
				require.NoError(t, redlock.Do(t.Context(), l, fmt.Sprint("k", i), time.Hour, nothing))
			}
			require.NoError(t, l.Close())
			require.True(t, ns.released())
			if observed {
				_, n, err := seen.find(redlock.OpRelease)
				require.Equal(t, locks, n)
				require.NoError(t, err)
			}
		})
	}
}

func TestCloseGivesUpABackgroundReleaseAsAnyOther(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, _ lockertest.Opener) {
		l := lockertest.Over(t, stores, redlock.WithBackgroundRelease())
		lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		synctest.Wait() // all nodes hold it
		for _, s := range stores[:2] {
			s.Down()
		}
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, l.Close(), redlock.ErrNoQuorum)
		time.Sleep(10 * time.Second)
	})
}

// again acquires key right after it was released, in all ways that try once.
func again(t *testing.T, l *redlock.Locker, key string, i int) {
	t.Helper()
	const ttl = 30 * time.Second
	opts := []redlock.LockOption{redlock.WithRetry(redlock.NoRetry())}
	switch i % 3 {
	case 1:
		opts = append(opts, redlock.WithFence())
	case 2:
		opts = append(opts, redlock.WithMetadata("x"))
	}
	var lock *redlock.Lock
	var err error
	switch i % 4 {
	case 0:
		lock, err = l.TryAcquire(t.Context(), key, ttl, opts...)
	case 1:
		lock, err = l.Acquire(t.Context(), key, ttl, opts...)
	case 2:
		lock, err = l.TryAcquireAll(t.Context(), []string{key, key + "'"}, ttl, opts...)
	default:
		err = redlock.Do(t.Context(), l, key, ttl, nothing, opts...)
	}
	require.NoError(t, err, "time %d", i)
	if lock != nil {
		require.NoError(t, lock.Release(t.Context()))
	}
}

func TestTheSameKeyIsAcquiredAgainAtOnce(t *testing.T) {
	const times = 1000
	t.Run("Open", func(t *testing.T) {
		l := start(t, 3).open(redlock.WithBackgroundRelease())
		for i := range times {
			again(t, l, "k", i)
		}
	})
	t.Run("New", func(t *testing.T) {
		ns := start(t, 3)
		var clients []rueidis.Client
		for _, s := range ns.servers {
			client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true}))
			require.NoError(t, err)
			t.Cleanup(client.Close)
			clients = append(clients, client)
		}
		l, err := redlock.New(clients, redlock.WithBackgroundRelease())
		require.NoError(t, err)
		defer l.Close()
		for i := range times {
			again(t, l, "k", i)
		}
	})
	for _, mute := range []bool{false, true} {
		for _, observed := range []bool{false, true} {
			t.Run(fmt.Sprintf("pipelines that overtake, mute=%v, middleware=%v", mute, observed), func(t *testing.T) {
				lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
					opts := []redlock.Option{redlock.WithBackgroundRelease()}
					if observed {
						opts = append(opts, redlock.WithMiddleware(new(recorder).middleware))
					}
					l := open(opts...)
					for _, s := range stores {
						s.Mute = mute
						s.Faults(func(memnode.Op, int) memnode.Fault {
							return memnode.Fault{Request: rand.N(10 * ms), Reply: rand.N(10 * ms)}
						})
					}
					stores[2].Down()
					var all sync.WaitGroup
					for caller := range 8 {
						all.Go(func() {
							for i := range times / 4 {
								again(t, l, fmt.Sprint("k", caller), i)
							}
						})
					}
					all.Wait()
					stores[2].Up()
				})
			})
		}
	}
}

func TestTheSameKeyOfAClusterIsAcquiredAgainAtOnce(t *testing.T) {
	settle(t)
	l := lockertest.Open(t, []string{redistest.StartCluster(t).URL()}, redlock.WithBackgroundRelease())
	for i := range 1000 {
		again(t, l, "{k}", i)
	}
}

// The Locker's own claim is no holder. But if no node tells that it is gone, none can be acquired.
func TestAReleaseThatStaysUnansweredIsNotARefusal(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithNodeTimeout(500*ms), redlock.WithBackgroundRelease())
		for _, s := range stores {
			s.Faults(func(op memnode.Op, _ int) memnode.Fault {
				if op == memnode.Release {
					return memnode.Fault{Request: 10 * time.Second}
				}
				return memnode.Fault{Request: ms, Reply: ms}
			})
		}
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
		synctest.Wait() // the release leaves
		asked := time.Now()
		_, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired)
		require.Equal(t, 502*ms, time.Since(asked), "a round trip and the node timeout")
		time.Sleep(10 * time.Second)
		again(t, l, "k", 0)
	})
}

func TestAWaiterComesBeforeTheProcessThatReleasesInTheBackground(t *testing.T) {
	for _, mute := range []bool{false, true} {
		for name, late := range map[string]time.Duration{"in order": 0, "overtaken": 50 * ms} {
			t.Run(fmt.Sprintf("%s, mute=%v", name, mute), func(t *testing.T) {
				lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
					l, other := open(redlock.WithBackgroundRelease()), open()
					for _, s := range stores {
						s.Mute = mute
						s.Faults(func(op memnode.Op, _ int) memnode.Fault {
							f := memnode.Fault{Request: ms, Reply: ms}
							if op == memnode.Release {
								f.Request += late
							}
							return f
						})
					}
					lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
					require.NoError(t, err)
					waiter := lockertest.WaitFor(other, 10*time.Second)
					time.Sleep(10 * ms)
					require.NoError(t, lock.Release(t.Context()))
					synctest.Wait() // the release leaves
					_, err = l.TryAcquire(t.Context(), "k", 10*time.Second)
					require.ErrorIs(t, err, redlock.ErrNotAcquired)
					g := lockertest.Soon(t, waiter)
					require.NoError(t, g.Err)
					require.NoError(t, g.Lock.Release(t.Context()))
				})
			})
		}
	}
}

// Waiters of the same process get the lock from hand to hand. At the end of a row of hand-overs no
// node is asked whether other processes wait: that would block.
func TestABackgroundReleaseAsksNoQuestion(t *testing.T) {
	for _, background := range []bool{false, true} {
		lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
			opts := []redlock.Option{redlock.WithLocalHandoff(2), lockertest.Queued}
			if background {
				opts = append(opts, redlock.WithBackgroundRelease())
			}
			l := open(opts...)
			var looks, handed atomic.Int64
			for _, s := range stores {
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					if op == memnode.Look {
						looks.Add(1)
					}
					return memnode.Fault{Request: ms, Reply: ms}
				})
			}
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					lock, err := l.Acquire(t.Context(), "k", 10*time.Second)
					require.NoError(t, err)
					time.Sleep(ms)
					released := time.Now()
					require.NoError(t, lock.Release(t.Context()))
					if time.Since(released) == 0 {
						handed.Add(1)
					}
				})
			}
			all.Wait()
			require.Equal(t, background, looks.Load() == 0)
			require.Equal(t, background, handed.Load() == 20, "%d released at once", handed.Load())
		})
	}
}

func TestMiddlewareIsToldThatABackgroundReleaseFailed(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		var seen recorder
		l := open(redlock.WithMiddleware(seen.middleware), redlock.WithBackgroundRelease())
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		lock, err := l.TryAcquire(ctx, "k", 10*time.Second)
		require.NoError(t, err)
		synctest.Wait() // all nodes hold it
		for _, s := range stores[:2] {
			s.Down()
		}
		require.NoError(t, lock.Release(ctx))
		cancel()
		synctest.Wait()
		op, n, err := seen.find(redlock.OpRelease)
		require.Equal(t, 1, n)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Len(t, op.Tries, 1)
		require.Len(t, op.Tries[0].Votes, 3)
		require.Equal(t, redlock.VoteFailed, op.Tries[0].Votes[0].Kind)
		for _, s := range stores {
			s.Up()
		}
	})
}

// When Release has returned, the nodes have it in their queues, whatever a middleware does.
func TestNoMiddlewareDelaysABackgroundRelease(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		do      func(ctx context.Context, op *redlock.Op, next redlock.Handler) error
		panicks bool
	}{
		"refuses": {func(context.Context, *redlock.Op, redlock.Handler) error { return refused }, false},
		"calls late": {func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			time.Sleep(time.Minute)
			return next(ctx, op)
		}, false},
		"calls twice": {func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), next(ctx, op))
		}, false},
		"panics": {func(context.Context, *redlock.Op, redlock.Handler) error { panic("boom") }, true},
		"exits":  {func(context.Context, *redlock.Op, redlock.Handler) error { runtime.Goexit(); return nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stores, l := inMemory(t, 3, redlock.WithBackgroundRelease(), redlock.WithMiddleware(lockertest.On(redlock.OpRelease, c.do)))
				for _, s := range stores {
					s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: ms, Reply: ms} })
				}
				for range 5 { // so the release is there before the next acquire
					lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
					require.NoError(t, err)
					require.NoError(t, lock.Release(t.Context()))
				}
				time.Sleep(10 * ms)
				require.Zero(t, left(stores))
				err := l.Close()
				var panicked *redlock.PanicError
				require.Equal(t, c.panicks, errors.As(err, &panicked), "%v", err)
			})
		})
	}
}

func TestABackgroundReleaseOfALostLockSaysSo(t *testing.T) {
	for _, observed := range []bool{false, true} {
		lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
			var seen recorder
			opts := []redlock.Option{redlock.WithBackgroundRelease()}
			if observed {
				opts = append(opts, redlock.WithMiddleware(seen.middleware))
			}
			l := open(opts...)
			lock, err := l.TryAcquire(t.Context(), "k", time.Second)
			require.NoError(t, err)
			time.Sleep(time.Second)
			err = lock.Release(t.Context())
			require.ErrorIs(t, err, redlock.ErrNotHeld)
			require.ErrorIs(t, err, redlock.ErrLost)
			require.Equal(t, err, lock.Release(t.Context()), "and says so again")

			err = redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			}, redlock.WithoutAutoExtend())
			require.ErrorIs(t, err, redlock.ErrLost)

			held, err := l.TryAcquire(t.Context(), "k", time.Second)
			require.NoError(t, err)
			require.NoError(t, l.Close())
			err = held.Release(t.Context())
			require.ErrorIs(t, err, redlock.ErrNotHeld)
			require.ErrorIs(t, err, redlock.ErrClosed)
			if observed {
				_, n, err := seen.find(redlock.OpRelease)
				require.Equal(t, 3, n)
				require.ErrorIs(t, err, redlock.ErrNotHeld)
			}
		})
	}
}

func TestAPanicReleasesInTheBackgroundAndGoesOn(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithBackgroundRelease())
	require.PanicsWithValue(t, "boom", func() {
		_ = redlock.Do(t.Context(), l, "k", time.Hour, func(context.Context) error { panic("boom") })
	})
	eventually.True(t, "released", ns.empty)
}
