package redlock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// without is a node on which one process's commands of a kind are lost for a while.
type without struct {
	*memnode.Backend
	kind node.Kind
	lost *atomic.Bool
}

func (w without) Do(ctx context.Context, batch []node.Command) error {
	for i := range batch {
		if batch[i].Kind == w.kind && w.lost.Load() {
			batch[i].Err = memnode.ErrLost
		} else if err := w.Backend.Do(ctx, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// A grace beyond the window takes an extension before the lock is any good.
func TestAGrantThatCannotBeUsedGoesToTheNext(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		var lost atomic.Bool
		var nodes []node.Backend
		for _, s := range stores {
			nodes = append(nodes, without{s, node.Extend, &lost})
		}
		other := lockertest.Over(t, nodes)
		defer func() { require.NoError(t, other.Close()) }()
		one := open()
		lock, err := one.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		first, second := lockertest.WaitFor(other, 10*time.Second, redlock.WithGrace(time.Second)), lockertest.WaitFor(one, 10*time.Second)
		third := lockertest.WaitFor(open(), 10*time.Second)
		lost.Store(true)
		released := time.Now()
		// Not handed over: the next in this process has a lock of its own.
		require.NoError(t, lock.Release(t.Context()))
		g := lockertest.Soon(t, second)
		require.NoError(t, g.Err)
		require.NoError(t, g.Lock.Release(t.Context()))
		g = lockertest.Soon(t, third)
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 20*ms)
		lost.Store(false)
		require.NoError(t, g.Lock.Release(t.Context()))
		g = lockertest.Soon(t, first)
		require.NoError(t, g.Err)
		require.Greater(t, time.Until(g.Lock.Until()), 9*time.Second)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// What is handed over is what is left of the lock, until it is extended.
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

// However long a lock is handed over, nobody has it when it is nearly over, and another
// process that comes has its turn.
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
			t.Logf("extended: %v: %d turns in 2 s that nobody waited for", extended, turns()-waited)
			if extended {
				require.Less(t, turns()-waited, 10, "a turn after each row would make 20")
			} else {
				require.InDelta(t, 2*time.Second/(250*ms), turns()-waited, 4, "it gets fresh grants")
			}
		})
	}
}

// Whoever is handed a lock and dies keeps others from it for its own ttl.
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

// A node that has lost a held key gives it to whoever waits. That one gives it back,
// or the lock would hang on fewer nodes for as long as anybody waits.
func TestOneThatWaitsKeepsNoVoteFromAHolder(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		lock, err := open().TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.NoError(t, lock.AutoExtend(0))
		time.Sleep(ms) // on all nodes, not on a bare quorum, which would not survive what follows
		next := lockertest.WaitFor(open(), time.Second)
		time.Sleep(100 * ms)
		// The moment decides which of the two sets the key first. If it is the candidate, it
		// has done so after a heartbeat (250 ms), and the next extension (333 ms later at
		// most) finds that it has left the key to the holder.
		for i := range 20 {
			time.Sleep(400*ms + time.Duration(i)*37*ms)
			stores[0].Wipe()
			time.Sleep(620 * ms)
			for i, s := range stores {
				owner, _ := s.Get("k")
				require.Equal(t, lock.Token(), owner, "node %d", i)
			}
		}
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		g := <-next
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 2*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A lock that was lost is nobody's here: those who wait in this process go on.
func TestThoseWhoWaitBehindALockThatIsLostGoOn(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		next := lockertest.WaitFor(l, time.Second)
		<-lock.Context().Done()
		lost := time.Now()
		g := lockertest.Soon(t, next)
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(lost), 20*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// The shortest ttl, where the window is the ttl and a heartbeat half of it, and a
// hold that may be no longer than that.
func TestWaitingWithTheShortestTTL(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(redlock.WithLocalHandoff(0)), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan lockertest.Acquired{
			lockertest.WaitFor(other, redlock.MinTTL),
			lockertest.WaitFor(one, redlock.MinTTL, redlock.WithGrace(ms)),
			lockertest.WaitFor(other, time.Minute, redlock.WithMaxHold(redlock.MinTTL)),
			lockertest.WaitFor(one, time.Minute, redlock.WithGrace(5*time.Second), redlock.WithMaxHold(10*time.Second)),
		}
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		// Processes take turns, but for what is handed over.
		for _, i := range []int{0, 2, 1, 3} {
			g := <-waits[i]
			require.NoError(t, g.Err)
			t.Logf("%d: after %v, valid for %v", i, g.At.Sub(began), g.Lock.Until().Sub(g.At))
			if i != 3 {
				require.LessOrEqual(t, g.Lock.Until().Sub(g.At), redlock.MinTTL)
			}
			require.NoError(t, g.Lock.Release(t.Context()))
		}
		require.Less(t, time.Since(began), 50*ms)
	})
}

// One key given to AcquireAll is one key; several are asked for by pauses.
func TestSeveralKeysAreAskedForByPauses(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(), open()
		lock, err := one.TryAcquireAll(t.Context(), []string{"k", "l"}, time.Minute)
		require.NoError(t, err)
		several := make(chan lockertest.Acquired, 1)
		go func() {
			lock, err := other.AcquireAll(t.Context(), []string{"k", "l"}, time.Minute, redlock.WithRetry(redlock.FixedRetry(100*ms, 0, -1)))
			several <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
		}()
		time.Sleep(50 * ms)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		g := <-several
		require.NoError(t, g.Err)
		require.Equal(t, 50*ms, g.At.Sub(released))
		single := make(chan lockertest.Acquired, 1)
		go func() {
			lock, err := one.AcquireAll(t.Context(), []string{"k", "k"}, time.Minute, lockertest.Queued)
			single <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
		}()
		time.Sleep(50 * ms)
		released = time.Now()
		require.NoError(t, g.Lock.Release(t.Context()))
		g = <-single
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 260*ms, "a release of several keys wakes nobody")
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// A middleware that refuses what was acquired leaves it to whoever waits.
func TestALockThatAMiddlewareRefusesGoesToTheNext(t *testing.T) {
	refused := errors.New("refused")
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, third := open(), open()
		other := open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), refused)
		})))
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		first, second, last := lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(third, time.Minute)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, (<-first).Err, refused)
		g := <-last // processes take turns
		require.NoError(t, g.Err)
		require.Less(t, g.At.Sub(released), 20*ms)
		require.NoError(t, g.Lock.Release(t.Context()))
		require.ErrorIs(t, (<-second).Err, refused)
	})
}

func TestCloseEndsWaits(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan lockertest.Acquired{lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(one, time.Minute), lockertest.WaitFor(other, time.Minute)}
		require.NoError(t, other.Close())
		require.NoError(t, one.Close(), "which holds the lock")
		for _, wait := range waits {
			require.ErrorIs(t, (<-wait).Err, redlock.ErrClosed)
		}
		require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	})
}
