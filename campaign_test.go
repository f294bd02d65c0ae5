package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func TestOneLeadsAtATimeAndTheNextFollowsAtOnce(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		var leaders atomic.Int64
		var all sync.WaitGroup
		began := time.Now()
		for range 5 {
			l := open()
			all.Go(func() {
				err := redlock.Campaign(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
					if leaders.Add(1) != 1 {
						t.Error("two leaders")
					}
					time.Sleep(10 * time.Second) // for longer than the ttl
					leaders.Add(-1)
					return ctx.Err()
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Less(t, time.Since(began), 51*time.Second)
	})
}

// Between the loss and the next time, no caller has had to call Campaign again.
func TestALeaderThatHasLostIsElectedAgain(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		terms := 0
		var resumed time.Time
		err := redlock.Campaign(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
			if terms++; terms == 3 {
				require.Less(t, time.Since(resumed), time.Second)
				return nil
			}
			for _, s := range stores[:2] {
				s.Pause()
			}
			time.AfterFunc(time.Hour, func() {
				resumed = time.Now()
				for _, s := range stores[:2] {
					s.Resume()
				}
			})
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), redlock.ErrLost)
			if terms == 1 {
				return errWork // its work is lost with the lock
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 3, terms)
	})
}

func TestACampaignOutlastsWhateverThePolicyAllows(t *testing.T) {
	for name, opts := range map[string][]redlock.LockOption{
		"by default":  nil,
		"no retry":    {redlock.WithRetry(redlock.NoRetry())},
		"one retry":   {redlock.WithRetry(redlock.FixedRetry(100*ms, 0, 1))},
		"exponential": {redlock.WithRetry(redlock.ExponentialRetry(10*ms, time.Second))},
	} {
		t.Run(name, func(t *testing.T) {
			lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
				l := open()
				for _, s := range stores[:2] {
					s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Refuse: true} })
				}
				var healed time.Time
				time.AfterFunc(time.Hour, func() {
					healed = time.Now()
					for _, s := range stores[:2] {
						s.Faults(nil)
					}
				})
				led := errors.New("led")
				err := redlock.Campaign(t.Context(), l, "k", time.Second, func(context.Context) error { return led }, opts...)
				require.Equal(t, led, err)
				require.False(t, healed.IsZero())
				require.Less(t, time.Since(healed), 2*time.Second)
			})
		})
	}
}

func TestACampaignKeepsItsPlaceInTheQueue(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		var r recorder
		first, second, other := open(redlock.WithMiddleware(r.middleware)), open(), open()
		held, err := other.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		order := make(chan string, 2)
		campaign := func(l *redlock.Locker, name string) {
			err := redlock.Campaign(t.Context(), l, "k", time.Second, func(context.Context) error {
				order <- name
				return nil
			}, redlock.WithRetry(redlock.FixedRetry(time.Second, 0, 1)))
			if err != nil {
				t.Error(err)
			}
		}
		go campaign(first, "first")
		time.Sleep(time.Minute)
		go campaign(second, "second")
		time.Sleep(time.Minute + 500*ms)
		require.NoError(t, held.Release(t.Context()))
		require.Equal(t, "first", <-order)
		require.Equal(t, "second", <-order)
		require.Equal(t, map[redlock.WaitKind]int{redlock.WaitGranted: 1}, r.waits(), "one acquire, however long")
	})
}

func TestCampaignReturnsWhatTheLeaderReturned(t *testing.T) {
	for name, want := range map[string]error{
		"nothing":                   nil,
		"an error":                  errWork,
		"the loss of another lock":  fmt.Errorf("another: %w", redlock.ErrLost),
		"another lock was not free": fmt.Errorf("another: %w", redlock.ErrNotAcquired),
	} {
		t.Run(name, func(t *testing.T) {
			lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
				terms := 0
				err := redlock.Campaign(t.Context(), open(), "k", time.Second, func(context.Context) error {
					if terms++; terms > 1 {
						return errors.New("it leads again")
					}
					return want
				})
				require.Equal(t, want, err)
			})
		})
	}
}

func TestALeaderWhoseCtxEndsLeadsUntilItReturns(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		l, rival := open(), open()
		ctx, cancel := context.WithCancel(t.Context())
		err := redlock.Campaign(ctx, l, "k", time.Second, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			time.Sleep(10 * time.Second)
			_, err := rival.TryAcquire(t.Context(), "k", time.Second)
			require.ErrorIs(t, err, redlock.ErrNotAcquired)
			return nil
		})
		require.NoError(t, err)
	})
}

func TestACampaignEndsWithItsCtx(t *testing.T) {
	stop := errors.New("shutting down")
	follower := func(context.Context) error { return errors.New("it leads") }
	for name, c := range map[string]struct {
		before func(stores []*memnode.Backend, other *redlock.Locker)
		lead   func(context.Context) error
		also   error
	}{
		"while others lead": {
			func(_ []*memnode.Backend, other *redlock.Locker) {
				_, _ = other.TryAcquire(context.Background(), "k", time.Hour)
			}, follower, redlock.ErrNotAcquired,
		},
		"without a quorum": {
			func(stores []*memnode.Backend, _ *redlock.Locker) {
				for _, s := range stores {
					s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Refuse: true} })
				}
			}, follower, redlock.ErrNoQuorum,
		},
		"between a loss and the next campaign": {
			func([]*memnode.Backend, *redlock.Locker) {},
			func(ctx context.Context) error { <-ctx.Done(); return nil },
			redlock.ErrLost,
		},
	} {
		t.Run(name, func(t *testing.T) {
			lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
				l, other := open(), open()
				c.before(stores, other)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(stop) })
				began := time.Now()
				err := redlock.Campaign(ctx, l, "k", 5*time.Second, c.lead,
					redlock.WithoutAutoExtend(), redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, stop)
				require.ErrorIs(t, err, c.also)
				require.Equal(t, 10*time.Second, time.Since(began))
			})
		})
	}
}

func TestACampaignEndsWithItsLocker(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		leader, follower := open(), open()
		lead := func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		ended := make(chan error, 2)
		go func() { ended <- redlock.Campaign(t.Context(), leader, "k", time.Second, lead) }()
		time.Sleep(time.Second)
		go func() { ended <- redlock.Campaign(t.Context(), follower, "k", time.Second, lead) }()
		time.Sleep(time.Minute)
		require.NoError(t, follower.Close())
		require.ErrorIs(t, <-ended, redlock.ErrClosed)
		require.NoError(t, leader.Close())
		require.ErrorIs(t, <-ended, redlock.ErrClosed)
		require.ErrorIs(t, redlock.Campaign(t.Context(), leader, "k", time.Second, lead), redlock.ErrClosed)
	})
}

func TestACampaignThatCannotBeWonIsRefusedAtOnce(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lead := func(context.Context) error { return errors.New("it leads") }
		refuse := redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(context.Context, *redlock.Op, redlock.Handler) error { return errWork }))
		held, err := l.TryAcquire(t.Context(), "held", time.Minute)
		require.NoError(t, err)
		for _, c := range []struct {
			err  error
			want string
		}{
			{redlock.Campaign(t.Context(), l, "k", time.Second, nil), `redlock: campaign "k": lead is nil: must be a function`},
			{redlock.Campaign(t.Context(), l, "", time.Second, lead), `redlock: acquire "": key is empty: any other string is accepted`},
			{redlock.Campaign(t.Context(), l, "k", 0, lead), `redlock: acquire "k": ttl 0s: must be from 10ms to 87600h0m0s`},
			{redlock.Campaign(t.Context(), l, "k", time.Second, lead, nil), `redlock: acquire "k": option 0 is nil`},
			{redlock.Campaign(t.Context(), l, "k", time.Second, lead, redlock.WithRetry(nil)), `redlock: acquire "k": WithRetry(nil): must be a policy`},
			{redlock.Campaign(t.Context(), open(refuse), "k", time.Second, lead), "work failed"},
			{redlock.Campaign(held.Context(), l, "held", time.Second, lead), `redlock: acquire "held": key already held by this context`},
			{redlock.Campaign(t.Context(), open(), "held", time.Second, lead, redlock.WithRetry(func() backoff.BackOff { return nil })),
				`redlock: acquire "held": WithRetry: the policy returned nil`},
		} {
			require.ErrorContains(t, c.err, c.want)
		}
		require.NoError(t, held.Release(t.Context()))
	})
}

// A middleware may limit each acquire. The campaign then makes many of them.
func TestACampaignOutlastsAMiddlewareThatLimitsAcquires(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		acquires := 0
		l, other := open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			acquires++
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return next(ctx, op)
		}))), open()
		held, err := other.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		time.AfterFunc(10*time.Second, func() { _ = held.Release(context.Background()) })
		require.NoError(t, redlock.Campaign(t.Context(), l, "k", time.Second, func(context.Context) error { return nil }))
		require.Greater(t, acquires, 5)
		require.Less(t, acquires, 12, "with a pause between them")
	})
}

// Two of three nodes die and come back empty. The leader's ctx ends. There is a leader again, and
// never two.
func TestThereIsALeaderAgainAfterTheQuorumDied(t *testing.T) {
	const ttl = 500 * ms
	ns := start(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var leaders, terms, lost atomic.Int64
	var token atomic.Value // of the latest leader
	var all sync.WaitGroup
	for range 3 {
		l := ns.open()
		all.Go(func() {
			err := redlock.Campaign(ctx, l, "k", ttl, func(leading context.Context) error {
				if leaders.Add(1) != 1 {
					t.Error("two leaders")
				}
				lock, _ := redlock.FromContext(leading)
				token.Store(lock.Token())
				terms.Add(1)
				<-leading.Done()
				leaders.Add(-1)
				if errors.Is(context.Cause(leading), redlock.ErrLost) {
					lost.Add(1)
				}
				return leading.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for term := int64(1); term <= 3; term++ {
		eventually.True(t, "one leads", func() bool { return leaders.Load() == 1 && terms.Load() == term })
		eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", token.Load().(string)) == 3 })
		for _, s := range ns.servers[:2] {
			s.Kill()
		}
		eventually.True(t, "it has lost", func() bool { return lost.Load() == term })
		// A node that lost its data stays away for longer than the ttl.
		eventually.True(t, "the node that is left has dropped the key", func() bool {
			value, _ := ns.servers[2].Get(t, "k")
			return value != token.Load()
		})
		for _, s := range ns.servers[:2] {
			s.Restart()
		}
	}
	eventually.True(t, "one leads", func() bool { return leaders.Load() == 1 })
	cancel()
	all.Wait()
	eventually.True(t, "nothing is left", ns.empty)
}
