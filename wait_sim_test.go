package redlock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// simulated runs a test of Lockers over three nodes in memory, in virtual time.
func simulated(t *testing.T, test func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stores, nodes := make([]*memnode.Backend, 3), make([]node.Backend, 3)
		for i := range stores {
			stores[i] = &memnode.Backend{}
			nodes[i] = stores[i]
		}
		var lockers []*redlock.Locker
		defer func() {
			for _, s := range stores {
				s.Faults(nil)
			}
			for _, l := range lockers {
				require.NoError(t, l.Close())
			}
			for i, s := range stores {
				require.Zero(t, s.Len(), "keys of node %d", i)
			}
		}()
		test(t, stores, func(opts ...redlock.Option) *redlock.Locker {
			l, err := redlock.NewOver(nodes, opts...)
			require.NoError(t, err)
			lockers = append(lockers, l)
			return l
		})
	})
}

// got is a lock that was waited for.
type got struct {
	lock *redlock.Lock
	err  error
	at   time.Time
}

func waitFor(l *redlock.Locker, ttl time.Duration, opts ...redlock.LockOption) <-chan got {
	c := make(chan got, 1)
	go func() {
		lock, err := l.Acquire(context.Background(), "k", ttl, append([]redlock.LockOption{queued}, opts...)...)
		c <- got{lock, err, time.Now()}
	}()
	synctest.Wait()
	time.Sleep(2 * ms)
	return c
}

func noExtensions(op memnode.Op, _ int) memnode.Fault {
	return memnode.Fault{LoseRequest: op == memnode.Extend}
}

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

// soon receives a lock that was waited for, or fails: otherwise virtual time would go on for
// ever.
func soon(t *testing.T, c <-chan got) got {
	t.Helper()
	select {
	case g := <-c:
		return g
	case <-time.After(time.Minute):
		require.FailNow(t, "not acquired")
		return got{}
	}
}

// A grace beyond the window takes an extension before the lock is any good.
func TestAGrantThatCannotBeUsedGoesToTheNext(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		var lost atomic.Bool
		var nodes []node.Backend
		for _, s := range stores {
			nodes = append(nodes, without{s, node.Extend, &lost})
		}
		other, err := redlock.NewOver(nodes)
		require.NoError(t, err)
		defer func() { require.NoError(t, other.Close()) }()
		one := open()
		lock, err := one.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		first, second := waitFor(other, 10*time.Second, redlock.WithGrace(time.Second)), waitFor(one, 10*time.Second)
		third := waitFor(open(), 10*time.Second)
		lost.Store(true)
		released := time.Now()
		// Not handed over: the next in this process has a lock of its own.
		require.NoError(t, lock.Release(t.Context()))
		g := soon(t, second)
		require.NoError(t, g.err)
		require.NoError(t, g.lock.Release(t.Context()))
		g = soon(t, third)
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(released), 20*ms)
		lost.Store(false)
		require.NoError(t, g.lock.Release(t.Context()))
		g = soon(t, first)
		require.NoError(t, g.err)
		require.Greater(t, time.Until(g.lock.Until()), 9*time.Second)
		require.NoError(t, g.lock.Release(t.Context()))
	})
}

// What is handed over is what is left of the lock, until it is extended.
func TestALockThatIsHandedOverIsNoFresher(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
		require.NoError(t, err)
		next := waitFor(l, 10*time.Second)
		for _, s := range stores {
			s.Faults(noExtensions)
		}
		time.Sleep(500 * ms)
		until := lock.Until()
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrReleased)
		g := <-next
		require.NoError(t, g.err)
		require.Equal(t, lock.Token(), g.lock.Token())
		require.Equal(t, until, g.lock.Until())
		<-g.lock.Context().Done()
		require.ErrorIs(t, context.Cause(g.lock.Context()), redlock.ErrLost)
		require.WithinDuration(t, until, time.Now(), ms)
	})
}

// However long a lock is handed over, nobody has it when it is nearly over, and another
// process that comes has its turn.
func TestALockThatIsHandedOverForLongStaysValid(t *testing.T) {
	for _, extended := range []bool{true, false} {
		simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
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
						}, queued)
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
				}, queued)
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
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		next := waitFor(l, time.Second)
		require.NoError(t, lock.Release(t.Context()))
		g := <-next
		require.NoError(t, g.err)
		require.NotEqual(t, lock.Token(), g.lock.Token())
		require.NoError(t, g.lock.Release(t.Context()))
	})
}

// A node that has lost a held key gives it to whoever waits. That one gives it back,
// or the lock would hang on fewer nodes for as long as anybody waits.
func TestOneThatWaitsKeepsNoVoteFromAHolder(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		lock, err := open().TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		require.NoError(t, lock.AutoExtend(0))
		time.Sleep(ms) // on all nodes, not on a bare quorum, which would not survive what follows
		next := waitFor(open(), time.Second)
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
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(released), 2*ms)
		require.NoError(t, g.lock.Release(t.Context()))
	})
}

// A lock that was lost is nobody's here: those who wait in this process go on.
func TestThoseWhoWaitBehindALockThatIsLostGoOn(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		next := waitFor(l, time.Second)
		<-lock.Context().Done()
		lost := time.Now()
		g := soon(t, next)
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(lost), 20*ms)
		require.NoError(t, g.lock.Release(t.Context()))
	})
}

// The shortest ttl, where the window is the ttl and a heartbeat half of it, and a
// hold that may be no longer than that.
func TestWaitingWithTheShortestTTL(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		one, other := open(redlock.WithLocalHandoff(0)), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan got{
			waitFor(other, redlock.MinTTL),
			waitFor(one, redlock.MinTTL, redlock.WithGrace(ms)),
			waitFor(other, time.Minute, redlock.WithMaxHold(redlock.MinTTL)),
			waitFor(one, time.Minute, redlock.WithGrace(5*time.Second), redlock.WithMaxHold(10*time.Second)),
		}
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		// Processes take turns, but for what is handed over.
		for _, i := range []int{0, 2, 1, 3} {
			g := <-waits[i]
			require.NoError(t, g.err)
			t.Logf("%d: after %v, valid for %v", i, g.at.Sub(began), g.lock.Until().Sub(g.at))
			if i != 3 {
				require.LessOrEqual(t, g.lock.Until().Sub(g.at), redlock.MinTTL)
			}
			require.NoError(t, g.lock.Release(t.Context()))
		}
		require.Less(t, time.Since(began), 50*ms)
	})
}

// One key given to AcquireAll is one key; several are asked for by pauses.
func TestSeveralKeysAreAskedForByPauses(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		one, other := open(), open()
		lock, err := one.TryAcquireAll(t.Context(), []string{"k", "l"}, time.Minute)
		require.NoError(t, err)
		several := make(chan got, 1)
		go func() {
			lock, err := other.AcquireAll(t.Context(), []string{"k", "l"}, time.Minute, redlock.WithRetry(redlock.FixedRetry(100*ms, 0, -1)))
			several <- got{lock, err, time.Now()}
		}()
		time.Sleep(50 * ms)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		g := <-several
		require.NoError(t, g.err)
		require.Equal(t, 50*ms, g.at.Sub(released))
		single := make(chan got, 1)
		go func() {
			lock, err := one.AcquireAll(t.Context(), []string{"k", "k"}, time.Minute, queued)
			single <- got{lock, err, time.Now()}
		}()
		time.Sleep(50 * ms)
		released = time.Now()
		require.NoError(t, g.lock.Release(t.Context()))
		g = <-single
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(released), 260*ms, "a release of several keys wakes nobody")
		require.NoError(t, g.lock.Release(t.Context()))
	})
}

// A middleware that refuses what was acquired leaves it to whoever waits.
func TestALockThatAMiddlewareRefusesGoesToTheNext(t *testing.T) {
	refused := errors.New("refused")
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		one, third := open(), open()
		other := open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), refused)
		})))
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		first, second, last := waitFor(other, time.Minute), waitFor(other, time.Minute), waitFor(third, time.Minute)
		released := time.Now()
		require.NoError(t, lock.Release(t.Context()))
		require.ErrorIs(t, (<-first).err, refused)
		g := <-last // processes take turns
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(released), 20*ms)
		require.NoError(t, g.lock.Release(t.Context()))
		require.ErrorIs(t, (<-second).err, refused)
	})
}

func TestCloseEndsWaits(t *testing.T) {
	simulated(t, func(t *testing.T, stores []*memnode.Backend, open func(...redlock.Option) *redlock.Locker) {
		one, other := open(), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan got{waitFor(other, time.Minute), waitFor(one, time.Minute), waitFor(other, time.Minute)}
		require.NoError(t, other.Close())
		require.NoError(t, one.Close(), "which holds the lock")
		for _, wait := range waits {
			require.ErrorIs(t, (<-wait).err, redlock.ErrClosed)
		}
		require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	})
}
