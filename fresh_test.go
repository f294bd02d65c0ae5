package redlock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

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

// A ttl that would end before the lock could be extended is refused with the reason.
func TestATTLThatIsTooShortForTheNodesIsAnErrorThatSaysSo(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, _ []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(30 * ms)
		err := redlock.Do(t.Context(), l, "k", 60*ms, func(context.Context) error { return nil }, redlock.WithRetry(redlock.NoRetry()))
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "use a longer ttl")
	})
}

// A lock that is handed over keeps its remaining validity until it is extended.
func TestALockThatIsHandedOverIsNoFresher(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		next := lockertest.WaitFor(l, 10*time.Second)
		for _, s := range stores {
			s.Faults(lockertest.NoExtensions)
		}
		time.Sleep(500 * ms)
		until := lock.Until()
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrReleased)
		g := <-next
		require.NoError(t, g.Err)
		require.Equal(t, lock.Token(), g.Lock.Token())
		require.Equal(t, until, g.Lock.Until())
		<-g.Lock.Context().Done()
		require.ErrorIs(t, context.Cause(g.Lock.Context()), redlock.ErrLost)
		require.WithinDuration(t, until, time.Now(), ms)
	})
}

// However often a lock is handed over, no goroutine gets it shortly before its validity
// ends, and another process that waits gets its turn.
func TestALockThatIsHandedOverForLongStaysValid(t *testing.T) {
	for _, extended := range []bool{true, false} {
		lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
			for _, s := range stores {
				s.Faults(func(op memnode.Op, _ int) memnode.Fault {
					return memnode.Fault{Request: ms, Reply: ms, LoseRequest: op == memnode.Extend && !extended}
				})
			}
			l, other := open(), open()
			ctx, cancel := context.WithTimeout(t.Context(), 3500*ms)
			defer cancel()
			var all sync.WaitGroup
			var mu sync.Mutex // guards tokens
			tokens := make(map[string]bool)
			turns := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(tokens)
			}
			for range 4 {
				all.Go(func() {
					for {
						err := redlock.Do(ctx, l, "k", 2*time.Second, func(ctx context.Context) error {
							lock, _ := redlock.FromContext(ctx)
							mu.Lock()
							tokens[lock.Token()] = true
							mu.Unlock()
							if left := time.Until(lock.Until()); left < 100*ms {
								t.Errorf("valid for %v only", left)
							}
							time.Sleep(ms)
							return nil
						}, lockertest.Queued)
						if err != nil {
							if !errors.Is(err, context.DeadlineExceeded) {
								t.Error(err)
							}
							return
						}
					}
				})
			}
			for range 3 {
				time.Sleep(500 * ms)
				began := time.Now()
				err := redlock.Do(t.Context(), other, "k", 2*time.Second, func(context.Context) error {
					require.Less(t, time.Since(began), 100*ms)
					return nil
				}, lockertest.Queued)
				require.NoError(t, err)
			}
			waited := turns()
			all.Wait()
			t.Logf("extended: %v: %d turns in 2 s without another process", extended, turns()-waited)
			if extended {
				require.Less(t, turns()-waited, 10, "a turn after each row would make 20")
			} else {
				require.InDelta(t, 2*time.Second/(250*ms), turns()-waited, 4, "it gets fresh grants")
			}
		})
	}
}

// A process that gets a lock by hand-over and dies keeps others from it for its own ttl only.
func TestALockIsNotHandedOverForLongerThanAskedFor(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		next := lockertest.WaitFor(l, time.Second)
		require.NoError(t, lock.Release(t.Context()))
		g := <-next
		require.NoError(t, g.Err)
		require.NotEqual(t, lock.Token(), g.Lock.Token())
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// However a lock was acquired, it starts with the validity that its ttl promises.
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

// A lock that is extended automatically starts with enough validity for its first
// extension, or not at all.
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
