package redlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
)

// Whichever way a lock comes, it is valid for what its ttl promises.
func TestALockStartsWithItsFullValidity(t *testing.T) {
	const lasts, validity = 10 * time.Second, 9*time.Second + 898*ms
	for _, trip := range []time.Duration{0, 20 * ms} {
		lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
			one, _ := open(trip)
			other, _ := open(trip)
			full := func(how string, lock *redlock.Lock) {
				t.Helper()
				require.GreaterOrEqual(t, time.Until(lock.Until()), validity*9/10, "%s, %v", how, trip)
			}
			first, err := one.Acquire(t.Context(), "k", lasts)
			require.NoError(t, err)
			full("free", first)
			here := lockertest.WaitFor(one, lasts)
			time.Sleep(3 * time.Second)
			require.NoError(t, first.Release(t.Context()))
			second := <-here
			require.NoError(t, second.Err)
			require.Equal(t, first.Token(), second.Lock.Token(), "it was handed over")
			full("handed over", second.Lock)
			elsewhere := lockertest.WaitFor(other, lasts)
			time.Sleep(time.Second)
			require.NoError(t, second.Lock.Release(t.Context()))
			third := <-elsewhere
			require.NoError(t, third.Err)
			full("granted", third.Lock)
			require.NoError(t, third.Lock.Release(t.Context()))
		})
	}
}

// An attempt that had to settle split votes, or to agree on a fence, has used up some of
// its validity.
func TestALockThatTookLongToSettleIsExtendedFirst(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(20 * ms)
		stores[1].Set("k", "GHOST", time.Minute) // of a process that died: it is waited for first
		stores[0].Set("k", "GHOST2", 60*ms)
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Until(lock.Until()), 900*ms)
		require.NoError(t, lock.Release(t.Context()))
		stores[1].Delete("k")
	})
}

// What is extended automatically starts with enough for that, or not at all.
func TestNoLockStartsThatIsLostBeforeItIsExtended(t *testing.T) {
	for _, handoffs := range []int{32, 0} {
		lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
			l, _ := open(20*ms, redlock.WithLocalHandoff(handoffs))
			for _, left := range []time.Duration{5 * ms, 15 * ms, 40 * ms, 70 * ms, 300 * ms} {
				lock, err := l.Acquire(t.Context(), "k", time.Second)
				require.NoError(t, err)
				done := make(chan error, 1)
				go func() {
					done <- redlock.Do(context.Background(), l, "k", time.Second, func(ctx context.Context) error {
						lock, _ := redlock.FromContext(ctx)
						if left := time.Until(lock.Until()); left < 60*ms {
							t.Errorf("handed over with %v left: valid for %v", left, left)
						}
						wait(ctx, 3*time.Second)
						return context.Cause(ctx)
					}, lockertest.Queued)
				}()
				time.Sleep(time.Until(lock.Until()) - left)
				require.NoError(t, lock.Release(t.Context()))
				require.NoError(t, <-done, "%d hand-overs, %v left", handoffs, left)
			}
		})
	}
}

// A ttl that is over before the lock could be extended is refused with the reason.
func TestATTLThatIsTooShortForTheNodesIsAnErrorThatSaysSo(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(30 * ms)
		err := redlock.Do(t.Context(), l, "k", 60*ms, func(context.Context) error { return nil }, redlock.WithRetry(redlock.NoRetry()))
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "use a longer ttl")
	})
}

// A lock without automatic extension that cannot be extended to its ttl is given back.
func TestALockThatCannotBeExtendedToItsTTLIsNotReturned(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		one, _ := open(ms)
		other, _ := open(ms)
		lock, err := one.Acquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		next := lockertest.WaitFor(other, 10*time.Second)
		for _, s := range stores {
			s.Faults(lockertest.NoExtensions)
		}
		require.NoError(t, lock.Release(t.Context()))
		g := <-next
		require.NoError(t, g.Err)
		require.Greater(t, g.Lock.Until().Sub(g.At), 9*time.Second, "by a later attempt")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A waiter whose ttl is too short for the nodes has no place in the queue, says so, and
// is in no other's way.
func TestEachWaiterHasAWindowOfItsOwn(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(30 * ms)
		other, _ := open(ms)
		holder, err := other.TryAcquire(t.Context(), "k", 30*time.Second)
		require.NoError(t, err)
		short := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := l.Acquire(ctx, "k", 50*ms, lockertest.Queued)
			short <- err
		}()
		time.Sleep(300 * ms)
		long := lockertest.WaitFor(l, 30*time.Second)
		time.Sleep(100 * ms)
		require.NoError(t, holder.Release(t.Context()))
		released := time.Now()
		g := <-long
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 200*ms)
		err = <-short
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "not queued")
		require.ErrorContains(t, err, "use a longer ttl")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A waiter that gives up when the lock is granted leaves it to the next of its process.
func TestAGrantThatComesTooLateForOneWaiterGoesToTheNextHere(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(20 * ms)
		other, _ := open(20 * ms)
		holder, err := other.TryAcquire(t.Context(), "k", 30*time.Second)
		require.NoError(t, err)
		leaves, cancel := context.WithCancelCause(t.Context())
		gone := make(chan error, 1)
		go func() {
			lock, err := l.Acquire(leaves, "k", 30*time.Second, lockertest.Queued)
			if err == nil {
				err = errors.Join(errors.New("acquired"), lock.Release(t.Context()))
			}
			gone <- err
		}()
		time.Sleep(100 * ms)
		next := lockertest.WaitFor(l, 30*time.Second)
		time.Sleep(100 * ms)
		go func() { _ = holder.Release(t.Context()) }()
		time.Sleep(20*ms - 1) // the pushes are about to arrive
		cancel(errors.New("enough"))
		released := time.Now()
		g := <-next
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 100*ms)
		require.ErrorContains(t, <-gone, "enough")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}
