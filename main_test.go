package redlock_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// wait lets d pass, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// nodes are real servers, each behind a proxy. The methods ask all servers.
type nodes struct {
	t       testing.TB
	servers []*redistest.Server
	proxies []*redistest.Proxy
}

func start(t testing.TB, n int, args ...string) *nodes {
	ns := &nodes{t: t, servers: redistest.StartN(t, n, args...)}
	for _, s := range ns.servers {
		ns.proxies = append(ns.proxies, redistest.NewProxy(t, s.Addr()))
	}
	return ns
}

func (ns *nodes) urls() []string { return redistest.URLs(ns.proxies) }

// open returns a Locker over the nodes, which is closed at the end of the test.
func (ns *nodes) open(opts ...redlock.Option) *redlock.Locker {
	ns.t.Helper()
	return lockertest.Open(ns.t, ns.urls(), opts...)
}

// holders returns the number of nodes that hold key with this value.
func (ns *nodes) holders(key, value string) int {
	n := 0
	for _, s := range ns.servers {
		if v, ok := s.Get(ns.t, key); ok && v == value {
			n++
		}
	}
	return n
}

// empty reports whether no node has any key.
func (ns *nodes) empty() bool {
	for _, s := range ns.servers {
		if len(s.Keys(ns.t)) > 0 {
			return false
		}
	}
	return true
}

// released reports whether no node has a key that lives for longer than 1 ms. The proof that a
// connection honours SET with GET (redisnode's verify) sets such a key if the lock's own has been
// released by then.
func (ns *nodes) released() bool {
	for _, s := range ns.servers {
		for _, key := range s.Keys(ns.t) {
			reply, err := s.Do("PTTL", key)
			require.NoError(ns.t, err)
			if left := reply.(int64); left > 1 || left == -1 { // -1: it has no ttl; -2: it is gone by now
				return false
			}
		}
	}
	return true
}

// queue reports whether a process waits for k on most of the nodes.
func (ns *nodes) queue() bool {
	n := 0
	for _, s := range ns.servers {
		if len(s.Keys(ns.t)) > 1 {
			n++
		}
	}
	return n > len(ns.servers)/2
}

// inMemory returns healthy nodes in memory, and a Locker over them.
func inMemory(t *testing.T, n int, opts ...redlock.Option) ([]*memnode.Backend, *redlock.Locker) {
	stores := lockertest.Stores(n)
	return stores, lockertest.Over(t, stores, opts...)
}

func left(stores []*memnode.Backend) (keys int) {
	for _, s := range stores {
		keys += s.Len()
	}
	return keys
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
