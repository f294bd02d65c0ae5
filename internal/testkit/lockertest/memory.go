package lockertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
)

// Over returns a Locker over nodes in memory, which errors call n0, n1 and so on. The
// caller closes it.
func Over[N node.Backend](t testing.TB, nodes []N, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	clients := make([]rueidis.Client, len(nodes))
	for i, n := range nodes {
		clients[i] = redisnode.NewStoreClient(fmt.Sprint("n", i), n)
	}
	l, err := redlock.New(clients, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Stores returns n nodes in memory.
func Stores(n int) []*memnode.Backend {
	stores := make([]*memnode.Backend, n)
	for i := range stores {
		stores[i] = new(memnode.Backend)
	}
	return stores
}

// Way simulates the network between one process and a node: each call and each push takes time.
type Way struct {
	*memnode.Backend

	trip atomic.Int64 // in ns; negative while the way is cut
}

// NewWay returns a way whose round trip takes trip.
func NewWay(s *memnode.Backend, trip time.Duration) *Way {
	w := &Way{Backend: s}
	w.Set(trip)
	return w
}

// Ways returns the ways of one process to all nodes. It asks trip for each.
func Ways(stores []*memnode.Backend, trip func() time.Duration) []*Way {
	ways := make([]*Way, len(stores))
	for i, s := range stores {
		ways[i] = NewWay(s, trip())
	}
	return ways
}

// Set changes the round trip. It also ends [Way.Cut].
func (w *Way) Set(trip time.Duration) { w.trip.Store(int64(trip)) }

// Cut makes all calls fail and loses all pushes, until [Way.Set].
func (w *Way) Cut() { w.trip.Store(-1) }

// Do implements node.Backend. A round trip that grows during a call delays its reply.
func (w *Way) Do(ctx context.Context, batch []node.Command) error {
	trip := time.Duration(w.trip.Load())
	if trip < 0 {
		for i := range batch {
			batch[i].Err = node.NotConnected(memnode.ErrDown)
		}
		return node.NotConnected(memnode.ErrDown)
	}
	time.Sleep(trip / 2)
	err := w.Backend.Do(ctx, batch)
	time.Sleep(time.Duration(max(w.trip.Load(), int64(trip))) - trip/2)
	return err
}

// Listen implements node.Backend.
func (w *Way) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return w.Backend.Listen(ctx, channel, ready, func(p node.Push) {
		if trip := time.Duration(w.trip.Load()); trip >= 0 {
			time.Sleep(trip / 2)
			heard(p)
		}
	})
}
