package simulation

import (
	"context"
	"errors"
	"fmt"
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

// crowd is clients that all want one key, over three distant nodes.
type crowd struct {
	processes, goroutines int // goroutines in each process
	trip, hold, lasts     time.Duration
	opts                  []redlock.LockOption
}

// outcome is the result of a crowd.
type outcome struct {
	holds, refused int64
	commands       int64 // that ran on all nodes
	byKind         map[memnode.Op]int64
}

func (c crowd) run(t *testing.T) (o outcome) {
	t.Helper()
	o.byKind = make(map[memnode.Op]int64)
	synctest.Test(t, func(t *testing.T) {
		stores := lockertest.Stores(3)
		var mu sync.Mutex // guards o.byKind and o.commands
		var holds, refused atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), c.lasts)
		defer cancel()
		var all sync.WaitGroup
		var lockers []*redlock.Locker
		for p := range c.processes {
			l := lockertest.Over(t, count(stores, c.trip, func(batch []node.Command) {
				mu.Lock()
				defer mu.Unlock()
				for _, c := range batch {
					o.byKind[kinds[c.Kind]]++
					o.commands++
				}
			}))
			lockers = append(lockers, l)
			for g := range c.goroutines {
				all.Go(func() {
					time.Sleep(time.Duration(p*c.goroutines+g) * ms / 4)
					for ctx.Err() == nil {
						err := redlock.Do(ctx, l, "k", 10*time.Second, func(context.Context) error {
							holds.Add(1)
							time.Sleep(c.hold)
							return nil
						}, c.opts...)
						switch {
						case errors.Is(err, redlock.ErrNotAcquired) && ctx.Err() == nil:
							refused.Add(1)
						case err != nil && ctx.Err() == nil:
							t.Error(err)
							return
						}
					}
				})
			}
		}
		all.Wait()
		for _, l := range lockers {
			require.NoError(t, l.Close())
		}
		time.Sleep(time.Second)
		o.holds, o.refused = holds.Load(), refused.Load()
	})
	return o
}

var kinds = map[node.Kind]memnode.Op{
	node.Acquire: memnode.Acquire, node.Extend: memnode.Extend, node.Release: memnode.Release, node.Leave: memnode.Release, node.Confirm: memnode.Confirm,
	node.Trust: memnode.Trust, node.Join: memnode.Join, node.Ping: memnode.Ping, node.Look: memnode.Look, node.Read: memnode.Read,
}

// counted is a way on which commands are counted.
type counted struct {
	*lockertest.Way
	count func([]node.Command)
}

// count returns the ways of one process, on which its commands are counted.
func count(stores []*memnode.Backend, trip time.Duration, count func([]node.Command)) []*counted {
	ways := make([]*counted, len(stores))
	for i, s := range stores {
		ways[i] = &counted{lockertest.NewWay(s, trip), count}
	}
	return ways
}

// Do implements node.Backend.
func (c *counted) Do(ctx context.Context, batch []node.Command) error {
	c.count(batch)
	return c.Way.Do(ctx, batch)
}

// Callers that give up soon cost the others nothing: a grant to a caller that leaves goes to the
// next, and no attempt gets in the way.
func TestTheDefaultPolicyKeepsUpOnAHotKeyFarAway(t *testing.T) {
	c := crowd{processes: 1, goroutines: fewer(400, 100), trip: 20 * ms, hold: ms, lasts: 5 * time.Second}
	byDefault := c.run(t)
	c.opts = []redlock.LockOption{lockertest.Patient}
	patient := c.run(t)
	t.Logf("one process, 400 goroutines, 20 ms: %d holds with the default policy (%d refused), %d with a patient one; commands %v and %v",
		byDefault.holds, byDefault.refused, patient.holds, byDefault.byKind, patient.byKind)
	require.GreaterOrEqual(t, float64(byDefault.holds), 0.8*float64(patient.holds))
}

// The cost of a hold hardly grows with the number of processes that wait.
func TestWaitingCostsLittleHoweverManyProcessesWait(t *testing.T) {
	for _, n := range []int{10, fewer(200, 60)} {
		c := crowd{processes: n, goroutines: 1, trip: 20 * ms, hold: ms, lasts: 10 * time.Second, opts: []redlock.LockOption{lockertest.Patient}}
		o := c.run(t)
		perHold := float64(o.commands) / 3 / float64(o.holds)
		t.Logf("%d processes, 20 ms: %d holds, %.1f commands per hold and node: %v", n, o.holds, perHold, o.byKind)
		require.Greater(t, o.holds, int64(400), "a hold takes a round trip and a millisecond")
		require.Less(t, perHold, 12.0)
	}
}

// While a process holds a lock itself, its waiters ask no node for it.
func TestWaitersAskNoNodeForWhatTheirOwnProcessHolds(t *testing.T) {
	c := crowd{processes: 1, goroutines: 1, trip: 0, hold: 30 * time.Second, lasts: 10 * time.Second}
	alone := c.run(t)
	c.goroutines = 500
	crowded := c.run(t)
	require.Equal(t, fmt.Sprint(alone.byKind), fmt.Sprint(crowded.byKind), "499 more wait")
}
