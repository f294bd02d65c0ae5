package redlock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func TestANodeInQuarantineIsNamedWithTheTimeWhenItVotesAgain(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithRestartGuard(time.Minute, time.Second))
		_, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum, "they are new")
		require.NoError(t, l.TrustNodes(t.Context()))
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
		synctest.Wait() // on all nodes

		stores[2].Wipe()
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err, "the others are a quorum")
		synctest.Wait() // it has been asked too
		require.NoError(t, lock.Release(t.Context()))
		synctest.Wait() // on all nodes
		stores[1].Wipe()
		time.Sleep(10 * time.Second)
		stores[1].Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Reply: ms} }) // the last to answer
		_, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		var failed *redlock.QuorumError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 1, failed.Got)
		require.Len(t, failed.Nodes, 2)
		for i, left := range []time.Duration{62 * time.Second, 52 * time.Second} {
			var q *redlock.QuarantineError
			require.ErrorAs(t, failed.Nodes[i].Err, &q)
			require.WithinDuration(t, time.Now().Add(left), q.Until, time.Second)
			require.ErrorContains(t, failed.Nodes[i], "quarantined after a restart or data loss until ")
		}
		time.Sleep(53 * time.Second)
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err, "the first has voted again")
		require.NoError(t, lock.Release(t.Context()))
	})
}

// A lock that is held on a node that loses its data is kept: the holder sets it again.
func TestAHolderKeepsItsLockThroughAQuarantine(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l, rival := open(redlock.WithRestartGuard(time.Second, 0)), open(redlock.WithRestartGuard(time.Second, 0))
		require.NoError(t, l.TrustNodes(t.Context()))
		err := redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
			for i := range 10 {
				stores[i%3].Wipe()
				for range 5 {
					time.Sleep(300 * ms)
					_, err := rival.TryAcquire(ctx, "k", time.Second)
					require.Error(t, err)
				}
			}
			return ctx.Err()
		})
		require.NoError(t, err)
	})
}

func TestTrustNodesNamesTheNodesThatDidNotAnswer(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open(redlock.WithRestartGuard(time.Minute, 0))
		stores[1].Pause()
		err := l.TrustNodes(t.Context())
		var failed *redlock.QuorumError
		require.ErrorAs(t, err, &failed)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Equal(t, 3, failed.Need)
		require.Equal(t, 2, failed.Got)
		require.Equal(t, "n1", failed.Nodes[0].Node)
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err, "the others vote at once")
		stores[1].Resume()
		require.NoError(t, lock.Release(t.Context()))
	})
}

// A node that has forgotten its vote gives it to no other owner, nor to a holder: keys
// that an extension sets there would count at the next extension.
func TestANodeInQuarantineGivesNoVoteThatItMayHaveGiven(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		guard := redlock.WithRestartGuard(10*time.Second, 0)
		l, rival := open(guard), open(guard, redlock.WithNodeTimeout(900*ms))
		require.NoError(t, l.TrustNodes(t.Context()))
		on := func(i int, op memnode.Op, f memnode.Fault) {
			stores[i].Faults(func(asked memnode.Op, _ int) memnode.Fault {
				if asked == op {
					return f
				}
				return memnode.Fault{}
			})
		}
		on(0, memnode.Acquire, memnode.Fault{NotRun: true})
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err, "by nodes 1 and 2")

		time.Sleep(500 * ms)
		stores[0].Faults(nil)
		on(2, memnode.Acquire, memnode.Fault{Request: 600 * ms}) // it comes when the key there has expired
		got := make(chan *redlock.Lock, 1)
		go func() {
			second, err := rival.TryAcquire(t.Context(), "k", 10*time.Second)
			assert.NoError(t, err, "by nodes 0 and 2")
			got <- second
		}()
		time.Sleep(100 * ms)
		stores[0].Wipe()
		on(2, memnode.Extend, memnode.Fault{LoseRequest: true})
		for range 2 {
			time.Sleep(100 * ms)
			require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNoQuorum)
		}
		require.True(t, lock.Valid(), "until its keys expire")
		second := <-got
		require.NotNil(t, second)
		require.False(t, lock.Valid() && second.Valid(), "both hold the lock")
		require.ErrorIs(t, second.Release(t.Context()), redlock.ErrNotHeld, "node 0 has forgotten it")
	})
}
