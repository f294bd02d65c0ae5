package redlock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
)

// The ctx ends a grace before validity does. Until then nobody else has the lock, unless
// it is released: then at once.
func TestNobodyElseHasTheLockDuringItsGrace(t *testing.T) {
	const ttl, grace = time.Second, 300 * ms
	ends := map[string]redlock.LockOption{"ttl": redlock.WithoutAutoExtend(), "max hold": redlock.WithMaxHold(2 * time.Second)}
	for name, end := range ends {
		for stops, within := range map[string]time.Duration{"at once": 0, "within the grace": grace / 2, "too late": 2 * grace} {
			t.Run(name+", stops "+stops, func(t *testing.T) {
				lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
					l, rival := open(), open()
					var waiter <-chan lockertest.Acquired
					var stopped, until time.Time
					err := redlock.Do(t.Context(), l, "k", ttl, func(ctx context.Context) error {
						lock, _ := redlock.FromContext(ctx)
						waiter = lockertest.WaitFor(rival, ttl)
						<-ctx.Done()
						until = lock.Until()
						require.Equal(t, grace, time.Until(until))
						time.Sleep(within)
						stopped = time.Now()
						return nil
					}, redlock.WithGrace(grace), end)
					require.ErrorIs(t, err, redlock.ErrLost)
					g := <-waiter
					require.NoError(t, g.Err)
					free := stopped
					if within > grace {
						free = until
					}
					require.WithinRange(t, g.At, free, free.Add(20*ms), "lost %v ago", time.Since(until))
					require.NoError(t, g.Lock.Release(t.Context()))
				})
			})
		}
	}
}

func TestCloseWaitsForNoGrace(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute, redlock.WithGrace(30*time.Second))
		require.NoError(t, err)
		<-lock.Context().Done()
		require.Equal(t, 1, stores[0].Len(), "kept for its grace")
		began := time.Now()
		require.NoError(t, l.Close())
		require.Zero(t, time.Since(began))
		for _, s := range stores {
			require.Zero(t, s.Len())
		}
	})
}

// A lock that nodes have definitely refused has nothing to be graceful about.
func TestALockThatIsAnothersHasNoGrace(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Second, redlock.WithGrace(100*ms))
		require.NoError(t, err)
		for _, s := range stores[:2] {
			s.Set("k", "another", time.Minute)
		}
		require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
		time.Sleep(ms)
		require.Zero(t, stores[2].Len(), "released")
		for _, s := range stores[:2] {
			s.Wipe()
		}
	})
}
