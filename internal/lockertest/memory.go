package lockertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/sim"
)

// Over returns a Locker over nodes in memory, which errors call n0, n1 and so on. The
// caller closes it.
func Over[N node.Store](t testing.TB, nodes []N, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	clients := make([]rueidis.Client, len(nodes))
	for i, n := range nodes {
		clients[i] = node.StandIn(fmt.Sprint("n", i), n)
	}
	l, err := redlock.New(clients, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Stores returns n nodes in memory.
func Stores(n int) []*sim.Store {
	stores := make([]*sim.Store, n)
	for i := range stores {
		stores[i] = new(sim.Store)
	}
	return stores
}

// Way is the network between one process and a node: each call and each push takes time.
type Way struct {
	*sim.Store

	trip atomic.Int64 // in ns; negative while the way is cut
}

// NewWay returns a way whose round trip takes trip.
func NewWay(s *sim.Store, trip time.Duration) *Way {
	w := &Way{Store: s}
	w.Set(trip)
	return w
}

// Ways returns the ways of one process to all nodes. It asks trip for each.
func Ways(stores []*sim.Store, trip func() time.Duration) []*Way {
	ways := make([]*Way, len(stores))
	for i, s := range stores {
		ways[i] = NewWay(s, trip())
	}
	return ways
}

// Set changes the round trip. It also ends [Way.Cut].
func (w *Way) Set(trip time.Duration) { w.trip.Store(int64(trip)) }

// Cut has all calls fail and all pushes get lost, until [Way.Set].
func (w *Way) Cut() { w.trip.Store(-1) }

// Do implements node.Store. A round trip that grows during a call delays its reply.
func (w *Way) Do(ctx context.Context, batch []node.Command) error {
	trip := time.Duration(w.trip.Load())
	if trip < 0 {
		for i := range batch {
			batch[i].Err = node.NotConnected(sim.ErrDown)
		}
		return node.NotConnected(sim.ErrDown)
	}
	time.Sleep(trip / 2)
	err := w.Store.Do(ctx, batch)
	time.Sleep(time.Duration(max(w.trip.Load(), int64(trip))) - trip/2)
	return err
}

// Listen implements node.Store.
func (w *Way) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return w.Store.Listen(ctx, channel, ready, func(p node.Push) {
		if trip := time.Duration(w.trip.Load()); trip >= 0 {
			time.Sleep(trip / 2)
			heard(p)
		}
	})
}
