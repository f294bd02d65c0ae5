package lockertest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
)

const ms = time.Millisecond

// Opener opens the Locker of another process.
type Opener = func(opts ...redlock.Option) *redlock.Locker

// FarOpener is [Opener] for a process that is trip away from all nodes.
type FarOpener = func(trip time.Duration, opts ...redlock.Option) (*redlock.Locker, []*Way)

// OverNodes runs a test of Lockers over three nodes in memory, in virtual time. At the end
// the Lockers are closed, and no key may be left.
func OverNodes(t *testing.T, test func(t *testing.T, stores []*memnode.Backend, open Opener)) {
	t.Helper()
	virtual(t, 0, func(t *testing.T, stores []*memnode.Backend, closed func(*redlock.Locker) *redlock.Locker) {
		test(t, stores, func(opts ...redlock.Option) *redlock.Locker {
			return closed(Over(t, stores, opts...))
		})
	})
}

// OverWays is [OverNodes] with ways of its own for each process. Late commands have five
// seconds to arrive after the Lockers are closed.
func OverWays(t *testing.T, test func(t *testing.T, stores []*memnode.Backend, open FarOpener)) {
	t.Helper()
	virtual(t, 5*time.Second, func(t *testing.T, stores []*memnode.Backend, closed func(*redlock.Locker) *redlock.Locker) {
		test(t, stores, func(trip time.Duration, opts ...redlock.Option) (*redlock.Locker, []*Way) {
			ways := Ways(stores, func() time.Duration { return trip })
			return closed(Over(t, ways, opts...)), ways
		})
	})
}

// virtual runs a test over three nodes. closed registers a Locker to be closed at its
// end. The keys are counted late after that.
func virtual(t *testing.T, late time.Duration, test func(t *testing.T, stores []*memnode.Backend, closed func(*redlock.Locker) *redlock.Locker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stores := Stores(3)
		var lockers []*redlock.Locker
		defer func() {
			for _, s := range stores {
				s.Faults(nil)
			}
			for _, l := range lockers {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(late)
			for i, s := range stores {
				if n := s.Len(); n > 0 {
					t.Errorf("node %d has %d keys left", i, n)
				}
			}
		}()
		test(t, stores, func(l *redlock.Locker) *redlock.Locker {
			lockers = append(lockers, l)
			return l
		})
	})
}

// Queued is a policy that relies on the queues: it polls once an hour.
var Queued = redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1))

// Patient is a policy that polls every 200 to 300 ms without limit.
var Patient = redlock.WithRetry(redlock.FixedRetry(200*ms, 100*ms, -1))

// Acquired is the result of an acquire, with its time.
type Acquired struct {
	Lock *redlock.Lock
	Err  error
	At   time.Time
}

// WaitFor acquires the key k in the background, with [Queued], and returns once the caller is in
// the queues.
func WaitFor(l *redlock.Locker, ttl time.Duration, opts ...redlock.LockOption) <-chan Acquired {
	c := make(chan Acquired, 1)
	go func() {
		lock, err := l.Acquire(context.Background(), "k", ttl, append([]redlock.LockOption{Queued}, opts...)...)
		c <- Acquired{lock, err, time.Now()}
	}()
	synctest.Wait()
	time.Sleep(2 * ms)
	return c
}

// Soon receives the result of [WaitFor], or fails the test after a minute: otherwise virtual time
// would pass for ever.
func Soon(t testing.TB, c <-chan Acquired) Acquired {
	t.Helper()
	select {
	case a := <-c:
		return a
	case <-time.After(time.Minute):
		t.Fatal("not acquired")
		return Acquired{}
	}
}

// NoExtensions is for [memnode.Backend.Faults]: extensions get lost.
func NoExtensions(op memnode.Op, _ int) memnode.Fault {
	return memnode.Fault{LoseRequest: op == memnode.Extend}
}
