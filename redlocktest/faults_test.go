package redlocktest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/redlocktest"
)

// hold runs a function under a lock on "k" until the lock is lost, and returns how long
// that took and the error of Do.
func hold(t *testing.T, l *redlock.Locker, ttl time.Duration, begun func()) (time.Duration, error) {
	began := time.Now()
	err := redlock.Do(t.Context(), l, "k", ttl, func(ctx context.Context) error {
		begun()
		<-ctx.Done()
		return nil
	})
	return time.Since(began), err
}

func TestAQuorumThatIsDownAcquiresNothing(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3, redlock.WithNodeTimeout(time.Hour)) // an operation that waits for a node does not return
		nodes.Down(0)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err, "two of three")
		require.NoError(t, lock.Release(t.Context()))

		nodes.Down(2)
		_, err = nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "node 2: not connected: connection refused")

		nodes.Up(2)
		require.Eventually(t, func() bool {
			lock, err = nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
			return err == nil
		}, 10*time.Second, 10*ms)
		require.NoError(t, lock.Release(t.Context()))
	})
}

func TestALockIsLostWithItsValidityIfAQuorumIsDownOrFrozen(t *testing.T) {
	for name, breakNodes := range map[string]func(*redlocktest.Nodes){
		"down":   func(nodes *redlocktest.Nodes) { nodes.Down(1, 2) },
		"frozen": func(nodes *redlocktest.Nodes) { nodes.Freeze(1, 2) },
		"both":   func(nodes *redlocktest.Nodes) { nodes.Freeze(1); nodes.Down(2) },
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T) {
				nodes := redlocktest.Start(t, 3)
				lasted, err := hold(t, nodes.Locker(), 300*ms, func() { breakNodes(nodes) })
				require.ErrorIs(t, err, redlock.ErrLost)
				require.Greater(t, lasted, 200*ms, "longer than up to the next extension")
			})
		})
	}
}

func TestAMinorityThatIsDownOrFrozenLosesNoLock(t *testing.T) {
	for name, breakNodes := range map[string]func(*redlocktest.Nodes){
		"down":   func(nodes *redlocktest.Nodes) { nodes.Down(2) },
		"frozen": func(nodes *redlocktest.Nodes) { nodes.Freeze(2) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := redlocktest.Start(t, 3)
				require.NoError(t, redlock.Do(t.Context(), nodes.Locker(), "k", time.Second, func(ctx context.Context) error {
					breakNodes(nodes)
					time.Sleep(time.Minute)
					return ctx.Err()
				}))
			})
		})
	}
}

func TestANodeThatWasDownHasKeptItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		synctest.Wait()
		nodes.Down()
		require.Equal(t, lock.Token(), nodes.Owner("k"))
		nodes.Up()
		time.Sleep(time.Second)
		_, err = nodes.NewLocker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		nodes.Down()
		time.Sleep(time.Minute)
		require.False(t, nodes.Held("k"), "they expire all the same")
	})
}

func TestAFrozenQuorumAnswersNoCall(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3, redlock.WithNodeTimeout(200*ms))
		nodes.Freeze(0, 1)
		began := time.Now()
		_, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "no reply within 200ms")
		require.GreaterOrEqual(t, time.Since(began), 200*ms)
	})
}

func TestAFrozenNodeRunsItsRequestsWhenItIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 1)
		nodes.Freeze(0)
		waits := acquired(t, nodes.Locker())
		time.Sleep(100 * ms)
		require.False(t, nodes.Held("k"))
		nodes.Up(0)
		lock := <-waits
		require.Equal(t, lock.Token(), nodes.Owner("k"))
	})
}

func TestRequestsToAFrozenNodeFailWhenItGoesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 1)
		nodes.Freeze(0)
		failed := make(chan error)
		go func() {
			_, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
			failed <- err
		}()
		synctest.Wait()
		nodes.Down(0)
		nodes.Up(0) // at once: earlier requests are lost even so
		err := <-failed
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "node 0: connection lost")
		require.False(t, nodes.Held("k"))
	})
}

func TestANodeThatWasDownAndFreezesIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 1)
		nodes.Down(0)
		nodes.Freeze(0)
		_, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorContains(t, err, "node 0: no reply within 1s")
	})
}

func TestWithoutNumbersAllNodesAreMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		for said, breakNodes := range map[string]func(...int){"not connected": nodes.Down, "no reply": nodes.Freeze} {
			breakNodes()
			var quorum *redlock.QuorumError
			_, err := nodes.NewLocker().TryAcquire(t.Context(), "k", time.Minute)
			require.ErrorAs(t, err, &quorum)
			require.ErrorContains(t, err, said)
			require.Zero(t, quorum.Got)
			nodes.Up()
			synctest.Wait() // the requests to the frozen nodes have run, and their releases too
			lock, err := nodes.NewLocker().TryAcquire(t.Context(), "k", time.Minute)
			require.NoError(t, err)
			require.NoError(t, lock.Release(t.Context()))
		}
	})
}

func TestANodeThatDoesNotExistIsRefused(t *testing.T) {
	nodes := redlocktest.Start(t, 3)
	require.PanicsWithValue(t, "redlocktest: Down(3): there is no such node: must be from 0 to 2", func() { nodes.Down(0, 3) })
	require.PanicsWithValue(t, "redlocktest: Freeze(-1): there is no such node: must be from 0 to 2", func() { nodes.Freeze(-1) })
	require.PanicsWithValue(t, "redlocktest: Up(7): there is no such node: must be from 0 to 2", func() { nodes.Up(7) })
	lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return nodes.Owner("k") == lock.Token() }, time.Second, ms)
}

func TestALockThatIsGoneIsLostAtItsNextExtension(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(*redlocktest.Nodes)
		said string
	}{
		"expired": {func(nodes *redlocktest.Nodes) { nodes.Expire("k") }, "key was missing"},
		"stolen":  {func(nodes *redlocktest.Nodes) { nodes.Steal("k") }, "held by another owner"},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T) {
				nodes := redlocktest.Start(t, 3)
				_, err := hold(t, nodes.Locker(), 900*ms, func() { c.lose(nodes) })
				require.ErrorIs(t, err, redlock.ErrLost)
				require.ErrorContains(t, err, c.said)
			})
			synctest.Test(t, func(t *testing.T) {
				nodes := redlocktest.Start(t, 3)
				lasted, err := hold(t, nodes.Locker(), 30*time.Second, func() { c.lose(nodes) })
				require.ErrorIs(t, err, redlock.ErrLost)
				require.LessOrEqual(t, lasted, 10*time.Second+ms, "about a third of the ttl")
			})
		})
	}
}

func TestAKeyThatHasExpiredIsFree(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		_, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		nodes.Expire("k")
		require.False(t, nodes.Held("k"))
		other, err := nodes.NewLocker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.Equal(t, other.Token(), nodes.Owner("k"))
	})
}

func TestAStolenKeyIsHeldUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		lock, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		nodes.Steal("k")
		require.True(t, nodes.Held("k"))
		require.NotEqual(t, lock.Token(), nodes.Owner("k"))
		require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld, "nor does a release take it back")
		waits := acquired(t, nodes.Locker())
		time.Sleep(time.Hour)
		require.Empty(t, waits)
		nodes.Expire("k")
		next := <-waits
		require.Equal(t, next.Token(), nodes.Owner("k"))
	})
}

// A free key can be stolen: the lock on it is refused too.
func TestAFreeKeyCanBeStolen(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		nodes.Steal("k")
		_, err := nodes.Locker().TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		_, err = nodes.Locker().TryAcquire(t.Context(), "another", time.Minute)
		require.NoError(t, err)
	})
}
