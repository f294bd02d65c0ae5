package simulation

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// younger returns the token of a contender that came after all other contenders.
func younger() string { return node.AttemptToken(node.NewAge() + 1<<40) }

// Invariant 12: an attempt that had to wait for its rivals has used up some of its validity.
func TestTheEldestThatSettledLongHasFullValidity(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(2 * ms)
		stores[1].Set("k", younger(), 200*ms)
		stores[2].Set("k", younger(), 200*ms)
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		left := time.Until(lock.Until())
		require.GreaterOrEqual(t, left, 888*ms, "nine tenths of the validity; a round trip takes 2 ms")
		require.NoError(t, lock.Release(t.Context()))
	})
}

// The same with automatic extension: the lock is not refused because of the time of the contest.
func TestDoAfterALongContestIsNotThrownAway(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(2*ms, redlock.WithNodeTimeout(500*ms))
		stores[1].Set("k", younger(), 200*ms)
		stores[2].Set("k", younger(), 200*ms)
		err := redlock.Do(t.Context(), l, "k", 700*ms, func(context.Context) error { return nil }, redlock.WithRetry(redlock.NoRetry()))
		if err != nil {
			t.Error(err)
		}
	})
}

// WithMaxHold limits a hold on purpose.
func TestAMaxHoldBelowThreeRoundTripsIsNotRefusedForTheTTL(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		l, _ := open(40 * ms)
		err := redlock.Do(t.Context(), l, "k", 30*time.Second, func(context.Context) error { return nil }, redlock.WithRetry(redlock.NoRetry()), redlock.WithMaxHold(100*ms))
		require.NoError(t, err)
	})
}

// A waiter acquires soon after its majority is back.
func TestAWaiterAcquiresSoonAfterAnOutage(t *testing.T) {
	for _, how := range []string{"down", "cut off"} {
		var worst, sum time.Duration
		for range 40 {
			lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
				l, ways := open(2 * ms)
				other, _ := open(2 * ms)
				holder, err := other.TryAcquire(t.Context(), "k", 2*time.Second)
				require.NoError(t, err)
				here := make(chan lockertest.Acquired, 1)
				go func() {
					lock, err := l.Acquire(context.Background(), "k", 10*time.Second, lockertest.Patient)
					here <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
				}()
				time.Sleep(100 * ms)
				for i, s := range stores[:2] {
					if how == "down" {
						s.Down()
					} else {
						ways[i].Cut()
					}
				}
				time.Sleep(60 * time.Second)
				for i, s := range stores[:2] {
					s.Up()
					ways[i].Set(2 * ms)
				}
				healed := time.Now()
				g := <-here
				require.NoError(t, g.Err)
				worst, sum = max(worst, g.At.Sub(healed)), sum+g.At.Sub(healed)
				require.NoError(t, g.Lock.Release(t.Context()))
				<-holder.Context().Done()
			})
		}
		t.Logf("%s: the lock was free for %v after the nodes were back, %v in the mean", how, worst, sum/40)
		if worst > 2*time.Second {
			t.Errorf("%s: the lock was free for %v after the nodes were back, with one client that waits", how, worst)
		}
	}
}

// stoppable is a way of a process that can be stopped. It reads what has arrived when it goes on.
type stoppable struct {
	*lockertest.Way
	until *atomic.Pointer[time.Time]
}

func (s *stoppable) Do(ctx context.Context, batch []node.Command) error {
	err := s.Way.Do(ctx, batch)
	time.Sleep(time.Until(*s.until.Load()))
	return err
}

func (s *stoppable) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return s.Way.Listen(ctx, channel, ready, func(p node.Push) {
		time.Sleep(time.Until(*s.until.Load()))
		heard(p)
	})
}

// A process that was stopped is back in the queues soon after it goes on.
func TestAProcessThatWasStoppedQueuesAgain(t *testing.T) {
	var worst time.Duration
	for _, stopped := range []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second} {
		lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 4 { // others keep the key busy
				o, _ := open(2 * ms)
				all.Go(func() {
					for ctx.Err() == nil {
						lock, err := o.Acquire(ctx, "k", 10*time.Second, lockertest.Patient)
						if err != nil {
							return
						}
						time.Sleep(20 * ms)
						_ = lock.Release(context.Background())
					}
				})
			}
			var until atomic.Pointer[time.Time]
			now := time.Now()
			until.Store(&now)
			nodes := make([]*stoppable, len(stores))
			for i, s := range stores {
				nodes[i] = &stoppable{lockertest.NewWay(s, 2*ms), &until}
			}
			l := lockertest.Over(t, nodes)
			time.Sleep(time.Second)
			here := make(chan lockertest.Acquired, 1)
			go func() {
				lock, err := l.Acquire(context.Background(), "k", 10*time.Second, lockertest.Patient)
				here <- lockertest.Acquired{Lock: lock, Err: err, At: time.Now()}
			}()
			time.Sleep(30 * ms)
			end := time.Now().Add(stopped)
			until.Store(&end)
			g := <-here
			require.NoError(t, g.Err)
			require.NoError(t, g.Lock.Release(t.Context()))
			time.Sleep(time.Second)
			began := time.Now()
			ctx2, cancel2 := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel2()
			lock, err := l.Acquire(ctx2, "k", 10*time.Second, lockertest.Patient)
			t.Logf("stopped for %v: acquired %v after; and a second later in %v", stopped, g.At.Sub(end), time.Since(began))
			if took := time.Since(began); err != nil || took > 2*time.Second {
				worst = max(worst, took)
			}
			g.Err, g.Lock = err, lock
			cancel()
			all.Wait()
			if g.Err == nil {
				_ = g.Lock.Release(t.Context())
			}
			require.NoError(t, l.Close())
			time.Sleep(2 * stopped)
		})
	}
	if worst > 2*time.Second {
		t.Errorf("a process that was stopped waited for %v", worst)
	}
}

// Many waiters die with the holder. The last one acquires soon.
func TestTheLastWaiterAcquiresSoonThoughEarlierWaitersAreDead(t *testing.T) {
	var worst time.Duration
	for _, dead := range []int{5, 20, 40} {
		lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
			holder, _ := open(2 * ms)
			lock, err := holder.TryAcquire(t.Context(), "k", 20*time.Second)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			var cut [][]*lockertest.Way
			for range dead {
				l, ways := open(2 * ms)
				cut = append(cut, ways)
				all.Go(func() { _, _ = l.Acquire(ctx, "k", 10*time.Second, lockertest.Queued) })
				time.Sleep(10 * ms)
			}
			last, _ := open(2 * ms)
			here := lockertest.WaitFor(last, 10*time.Second)
			time.Sleep(10 * time.Second)
			for _, ways := range cut { // the machine of these waiters is gone
				for _, w := range ways {
					w.Cut()
				}
			}
			time.Sleep(10 * ms)
			require.NoError(t, lock.Release(t.Context()))
			released := time.Now()
			g := <-here
			require.NoError(t, g.Err)
			t.Logf("%d dead: free for %v", dead, g.At.Sub(released))
			worst = max(worst, g.At.Sub(released))
			require.NoError(t, g.Lock.Release(t.Context()))
			for _, ways := range cut {
				setAll(ways, 2*ms)
			}
			time.Sleep(time.Second)
			cancel()
			all.Wait()
		})
	}
	require.Less(t, worst, 3*time.Second)
}

// A waiter that has taken a node the holder has lost, and does not see all of the holder's nodes,
// sends few commands.
func TestAWaiterThatSeesHalfOfAHolderKeepsQuiet(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		one, _ := open(2 * ms)
		two, _ := open(2 * ms)
		first, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		granted := lockertest.WaitFor(two, time.Minute)
		time.Sleep(10 * ms)
		require.NoError(t, first.Release(t.Context()))
		g := <-granted // its token is a candidate's
		require.NoError(t, g.Err)
		stores[2].Wipe() // it was restarted
		var commands atomic.Int64
		nodes := count(stores, 2*ms, func(b []node.Command) { commands.Add(int64(len(b))) })
		nodes[1].Cut()
		l := lockertest.Over(t, nodes)
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		go func() { time.Sleep(time.Second); commands.Store(0) }()
		_, err = l.Acquire(ctx, "k", time.Minute, lockertest.Queued)
		require.Error(t, err)
		t.Logf("%d commands a second", commands.Load()/10)
		if n := commands.Load() / 10; n > 40 {
			t.Errorf("%d commands a second", n)
		}
		require.NoError(t, l.Close())
		require.NoError(t, g.Lock.Release(t.Context()))
	})
}

// However far the nodes are, and however bad the ways: at most one contender wins, and no
// key is left.
func TestAtMostOneOfSimultaneousAttemptsWinsAndNoKeyIsLeft(t *testing.T) {
	for name, worse := range map[string]func(k *tick){
		"far":   func(k *tick) { k.trip = 150 * ms },
		"lossy": func(k *tick) { k.trip, k.fault = 5*ms, lossy(rand.New(rand.NewPCG(k.random.Uint64(), 0))) },
	} {
		t.Run(name, func(t *testing.T) {
			none := 0
			for i := range *simTicks {
				synctest.Test(t, func(t *testing.T) {
					k := randomTick(uint64(i))
					worse(&k)
					k.ghosts = false
					switch won, _ := k.run(t); {
					case won == 0:
						none++
					case won > 1:
						t.Errorf("seed %d: %d winners", i, won)
					}
				})
			}
			t.Logf("%d ticks; none won in %d", *simTicks, none)
		})
	}
}

// lossy returns faults of one call in ten.
func lossy(r *rand.Rand) func(memnode.Op, int) memnode.Fault {
	var mu sync.Mutex // guards r
	return func(memnode.Op, int) memnode.Fault {
		mu.Lock()
		defer mu.Unlock()
		f := memnode.Fault{Request: time.Duration(r.Int64N(int64(ms))), Reply: time.Duration(r.Int64N(int64(ms)))}
		if how := r.IntN(50); how < 5 {
			spoil(&f, r, how, 100*ms, 300*ms)
		}
		return f
	}
}

// A waiter that comes to the front of the queues notices a dead holder.
func TestTheLastWaiterNoticesADeadHolderOnceTheOthersHaveLeft(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		for _, s := range stores { // of a process that has died
			s.Set("k", node.AttemptToken(node.NewAge()), 8*time.Second)
		}
		expires := time.Now().Add(8 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 40 {
			l, _ := open(2 * ms)
			all.Go(func() { _, _ = l.Acquire(ctx, "k", 10*time.Second, lockertest.Queued) })
			time.Sleep(ms)
		}
		last, _ := open(2 * ms)
		here := lockertest.WaitFor(last, 10*time.Second)
		time.Sleep(time.Until(expires.Add(-3 * time.Second)))
		cancel()
		all.Wait()
		g := <-here
		require.NoError(t, g.Err)
		require.NoError(t, g.Lock.Release(t.Context()))
		if free := g.At.Sub(expires); free > 500*ms {
			t.Errorf("free for %v", free)
		}
	})
}

// The joins of one process run, but their answers are lost. It keeps no key from another process.
func TestAWaiterWhoseAnswersAreLostGivesItsVotesUp(t *testing.T) {
	lockertest.OverWays(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.FarOpener) {
		other, _ := open(2 * ms)
		var lost atomic.Bool
		nodes := make([]*answersLost, len(stores))
		for i, s := range stores {
			nodes[i] = &answersLost{lockertest.NewWay(s, 2*ms), &lost}
		}
		l := lockertest.Over(t, nodes)
		defer func() { require.NoError(t, l.Close()) }()
		holder, err := other.TryAcquire(t.Context(), "k", 30*time.Second)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = l.Acquire(ctx, "k", 30*time.Second, lockertest.Patient)
		}()
		time.Sleep(100 * ms)
		lost.Store(true)
		require.NoError(t, holder.Release(t.Context()))
		g := lockertest.Soon(t, lockertest.WaitFor(other, 30*time.Second))
		require.NoError(t, g.Err)
		require.NoError(t, g.Lock.Release(t.Context()))
		lost.Store(false)
		cancel()
		<-gone
	})
}

// answersLost is a way that loses the answers to joins, and the pushes, while lost is set.
type answersLost struct {
	*lockertest.Way
	lost *atomic.Bool
}

func (a *answersLost) Do(ctx context.Context, batch []node.Command) error {
	err := a.Way.Do(ctx, batch)
	for i := range batch {
		if c := &batch[i]; c.Kind == node.Join && a.lost.Load() {
			c.Outcome, c.Err = node.Unknown, memnode.ErrLost
		}
	}
	return err
}

func (a *answersLost) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return a.Way.Listen(ctx, channel, ready, func(p node.Push) {
		if !a.lost.Load() {
			heard(p)
		}
	})
}
