package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// holderOf returns the metadata of the holder from the error of a refused acquire.
func holderOf(t *testing.T, err error) string {
	t.Helper()
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	var refused *redlock.QuorumError
	require.ErrorAs(t, err, &refused)
	return refused.Holder()
}

func TestARefusedCallerLearnsWhoHoldsTheLock(t *testing.T) {
	ns := start(t, 3)
	a, b, silent := ns.open(redlock.WithMetadata("host=a pid=1")), ns.open(redlock.WithMetadata("host=b pid=2")), ns.open()
	lock, err := a.Acquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "it is held everywhere", func() bool { return ns.holders("k", lock.Token()) == 3 })

	_, err = b.TryAcquire(t.Context(), "k", time.Minute)
	require.Equal(t, "host=a pid=1", holderOf(t, err))
	require.ErrorContains(t, err, ": held by another owner: host=a pid=1")
	require.False(t, token.MatchString(err.Error()), "nothing that could release it: %v", err)
	_, err = silent.TryAcquireAll(t.Context(), []string{"k", "other"}, time.Minute)
	require.Equal(t, "host=a pid=1", holderOf(t, err), "several keys are acquired by the script anyway")
	_, err = silent.TryAcquire(t.Context(), "k", time.Minute, redlock.WithFence())
	require.Equal(t, "host=a pid=1", holderOf(t, err), "so is a lock with a fence")

	_, err = silent.TryAcquire(t.Context(), "k", time.Minute)
	require.Equal(t, "host=a pid=1", holderOf(t, err), "and one by SET")
	_, err = silent.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(500*ms, 0, 1)))
	require.Equal(t, "host=a pid=1", holderOf(t, err), "the queue tells its waiters")

	require.NoError(t, lock.Extend(t.Context(), 0))
	require.NoError(t, lock.Release(t.Context()))
	eventually.True(t, "it is held nowhere", func() bool { return ns.holders("k", lock.Token()) == 0 })
	anonymous, err := silent.Acquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	_, err = b.TryAcquire(t.Context(), "k", time.Minute)
	require.Empty(t, holderOf(t, err), "the holder has said nothing")
	require.NoError(t, anonymous.Release(t.Context()))
}

func TestAWaiterBehindItsOwnProcessLearnsWhoHoldsTheLock(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithMetadata("request=1"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		_, err = l.Acquire(ctx, "k", time.Minute, redlock.WithMetadata("request=2"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, "request=1", holderOf(t, err))
		require.NoError(t, lock.Release(t.Context()))
	})
}

func TestTheHolderIsTheOwnerOfAMajorityOfTheNodes(t *testing.T) {
	says := func(err error) redlock.NodeError { return redlock.NodeError{Node: "node", Err: err} }
	stray, holder, unknown := says(&redlock.HeldError{Metadata: "stray"}), says(&redlock.HeldError{Metadata: "holder"}), says(&redlock.HeldError{})
	for want, nodes := range map[string][]redlock.NodeError{
		"holder": {stray, holder, unknown, says(context.Canceled), unknown, holder, unknown},
		"stray":  {stray, unknown, unknown, holder},
		"":       {unknown, says(context.Canceled)},
	} {
		require.Equal(t, want, (&redlock.QuorumError{Nodes: nodes}).Holder())
	}
}

// The fields of an error are the caller's to change: no later error shows it.
func TestAnErrorOfOneCallIsNotThatOfAnother(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.Opener) {
		var votes []redlock.Vote
		l := open(redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
			return func(ctx context.Context, op *redlock.Op) error {
				err := next(ctx, op)
				for _, try := range op.Tries {
					votes = append(votes, try.Votes...)
				}
				return err
			}
		}))
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		for range 2 {
			votes = nil
			_, err = l.TryAcquire(t.Context(), "k", time.Minute)
			require.Empty(t, holderOf(t, err))
			var refused *redlock.QuorumError
			require.ErrorAs(t, err, &refused)
			for _, n := range refused.Nodes {
				var held *redlock.HeldError
				if errors.As(n, &held) {
					held.Metadata = "changed"
				}
			}
			require.Equal(t, "changed", refused.Holder())
			for _, v := range votes {
				require.NotContains(t, fmt.Sprint(v.Err), "changed", "what a middleware sees")
			}
		}
		require.NoError(t, lock.Release(t.Context()))
	})
}

// Goroutines of two processes, all with metadata of their own, get the lock in turn: by
// attempts, by the queues on the nodes, and handed over. The keys always name the holder.
func TestTheMetadataOnTheNodesIsThatOfTheHolder(t *testing.T) {
	ns := start(t, 3)
	var all sync.WaitGroup
	for p := range 2 {
		l := ns.open()
		for g := range 4 {
			all.Go(func() {
				// Two goroutines have the same.
				metadata := fmt.Sprintf("process=%d goroutine=%d", p, g/2)
				for range 5 {
					lock, err := l.Acquire(t.Context(), "k", time.Minute, untilFree, redlock.WithMetadata(metadata))
					if !assert.NoError(t, err) {
						return
					}
					assert.Equal(t, metadata, node.Metadata(lock.Token()))
					assert.GreaterOrEqual(t, ns.holders("k", lock.Token()), 2)
					assert.NoError(t, lock.Release(t.Context()))
				}
			})
		}
	}
	all.Wait()
	eventually.True(t, "released", ns.empty)
}

func TestAKeyThatIsSetAgainHasItsMetadata(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMetadata("host=a"))
	lock, err := l.Acquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "held by all", func() bool { return ns.holders("k", lock.Token()) == 3 })
	must(t, ns.servers[0], "DEL", "k")
	require.NoError(t, lock.Extend(t.Context(), 0))
	eventually.True(t, "set again", func() bool {
		value, _ := ns.servers[0].Get(t, "k")
		return node.Metadata(value) == "host=a"
	})
	require.NoError(t, lock.Release(t.Context()))
}

func TestMetadataIsShortAndPrintable(t *testing.T) {
	locker, stop := openNodes()
	defer stop()
	for metadata, what := range map[string]string{
		strings.Repeat("x", 257): `WithMetadata: 257 bytes: must be at most 256`,
		"a\nb":                   `WithMetadata: "a\nb": must be printable characters, in UTF-8`,
		"\xff":                   `WithMetadata: "\xff": must be printable characters, in UTF-8`,
	} {
		_, err := locker.TryAcquire(t.Context(), "k", time.Minute, redlock.WithMetadata(metadata))
		require.EqualError(t, err, `redlock: acquire "k": `+what)
		_, err = redlock.Open(t.Context(), []string{"redis://localhost"}, redlock.WithMetadata(metadata))
		require.EqualError(t, err, "redlock: "+what)
	}
}

func TestAPrefixedLockIsTheLockOfTheWholeKey(t *testing.T) {
	ns := start(t, 3)
	l, plain := ns.open(redlock.WithKeyPrefix("app:"), redlock.WithKeyPrefix("shop:")), ns.open(redlock.WithKeyPrefix(""))
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.Equal(t, "shop:k", lock.Key(), "the last one counts")
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("shop:k", lock.Token()) == 3 })

	_, err = plain.TryAcquire(t.Context(), "shop:k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "the same lock")
	other, err := plain.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err, "another lock")
	require.Equal(t, "k", other.Key())

	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.ErrorContains(t, err, `redlock: acquire "shop:k": `)
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []string{"shop:k"}, failed.Keys)

	_, err = l.TryAcquire(t.Context(), "", time.Minute)
	require.EqualError(t, err, `redlock: acquire "": key is empty: any other string is accepted`, "a prefix alone is no key")
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, other.Release(t.Context()))
}

func TestANestedAcquireOfAPrefixedKeyIsFound(t *testing.T) {
	ns := start(t, 1)
	l := ns.open(redlock.WithKeyPrefix("shop:"))
	keys := []string{"b", "a", "b"}
	_, err := redlock.WithAll(t.Context(), l, keys, time.Minute, func(ctx context.Context) (int, error) {
		lock, _ := redlock.FromContext(ctx)
		require.Equal(t, []string{"shop:a", "shop:b"}, lock.Keys())
		_, err := l.TryAcquire(ctx, "a", time.Minute)
		require.ErrorIs(t, err, redlock.ErrAlreadyHeld)
		_, err = l.TryAcquire(ctx, "shop:a", time.Minute) // shop:shop:a
		require.NoError(t, err)
		return 0, nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a", "b"}, keys, "the caller's keys are not changed")
}

func TestAnErrorNamesTheWholeKeyWhateverIsWrong(t *testing.T) {
	l := start(t, 1).open(redlock.WithKeyPrefix("shop:"))
	keys := []string{"a", "b"}
	nothing := func(context.Context) (int, error) { return 0, nil }
	for _, c := range []struct {
		ttl  time.Duration
		fn   func(context.Context) (int, error)
		opts []redlock.LockOption
		want string
	}{
		{0, nothing, nil, `redlock: acquire ["shop:a" "shop:b"]: ttl 0s: `},
		{time.Minute, nothing, []redlock.LockOption{redlock.WithGrace(-1)}, `redlock: acquire ["shop:a" "shop:b"]: WithGrace(-1ns): `},
		{time.Minute, nil, nil, `redlock: hold ["shop:a" "shop:b"]: fn is nil: `},
	} {
		_, err := redlock.WithAll(t.Context(), l, keys, c.ttl, c.fn, c.opts...)
		require.ErrorContains(t, err, c.want)
	}
	require.Equal(t, []string{"a", "b"}, keys, "the caller's keys are not changed")
}

func TestWaitersOfAPrefixedKeyStandInItsQueue(t *testing.T) {
	ns := start(t, 3)
	one, other := ns.open(redlock.WithKeyPrefix("shop:")), ns.open(redlock.WithKeyPrefix("shop:"))
	lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	got := make(chan error)
	go func() {
		_, err := other.Acquire(t.Context(), "k", time.Minute, lockertest.Queued)
		got <- err
	}()
	eventually.True(t, "it waits", ns.queue)
	require.Contains(t, ns.servers[0].Keys(t), "{shop:k}:redlock:queue")
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, <-got)
}

func TestTheLongestTimesOverflowNothing(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMaxHold(math.MaxInt64), redlock.WithDriftFactor(0))
	err := redlock.Do(t.Context(), l, "k", time.Minute, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		require.WithinDuration(t, time.Now(), lock.Until(), time.Hour)
		require.NoError(t, lock.Extend(ctx, redlock.MaxTTL))
		require.Greater(t, time.Until(lock.Until()), redlock.MaxTTL-time.Hour)
		eventually.True(t, "the key lives as long", func() bool {
			pttl, err := ns.servers[0].Do("PTTL", "k")
			return err == nil && pttl.(int64) > (redlock.MaxTTL-time.Hour).Milliseconds()
		})
		return ctx.Err()
	})
	require.NoError(t, err)
	eventually.True(t, "released", ns.empty)
}
