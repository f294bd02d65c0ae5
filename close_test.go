package redlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/sim"
)

// inMemory is healthy nodes, and a Locker over them.
func inMemory(t *testing.T, n int, opts ...redlock.Option) ([]*sim.Store, *redlock.Locker) {
	var stores []*sim.Store
	var nodes []node.Store
	for range n {
		s := new(sim.Store)
		stores, nodes = append(stores, s), append(nodes, s)
	}
	l, err := redlock.NewOver(nodes, opts...)
	require.NoError(t, err)
	return stores, l
}

func left(stores []*sim.Store) (keys int) {
	for _, s := range stores {
		keys += s.Len()
	}
	return keys
}

// A quorum confirms a release; the other nodes may not have begun theirs.
func TestCloseWaitsForTheReleaseOnEveryNode(t *testing.T) {
	for range 2000 {
		stores, l := inMemory(t, 5)
		lock, err := l.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
		require.NoError(t, l.Close())
		require.Zero(t, left(stores))
	}
}

func TestCloseWaitsForWhatAMiddlewareHadDropped(t *testing.T) {
	for range 2000 {
		taken, tried := make(chan struct{}), make(chan error, 1)
		stores, l := inMemory(t, 3, redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			defer close(taken)
			return errors.Join(next(ctx, op), errors.New("not wanted"))
		})))
		go func() {
			_, err := l.TryAcquire(t.Context(), "k", time.Hour)
			tried <- err
		}()
		<-taken
		require.NoError(t, l.Close())
		require.Error(t, <-tried)
		require.Zero(t, left(stores))
	}
}

// An older extension may fail when a later one has already been carried as far
// as WithMaxHold lets it.
func TestALockThatWasHeldForLongEnoughSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores, l := inMemory(t, 3)
		defer l.Close()
		lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second, redlock.WithMaxHold(15*time.Second))
		require.NoError(t, err)
		time.Sleep(time.Second)
		for i, delay := range []time.Duration{0, 7 * time.Second} {
			var extensions atomic.Int64
			stores[1+i].Faults(func(op sim.Op, _ int) sim.Fault {
				if op != sim.Extend || extensions.Add(1) > 1 {
					return sim.Fault{}
				}
				return sim.Fault{Request: delay, LoseReply: true}
			})
		}
		require.NoError(t, lock.AutoExtend(8*time.Second))
		<-lock.Context().Done()
		require.ErrorContains(t, context.Cause(lock.Context()), "WithMaxHold reached")
	})
}
