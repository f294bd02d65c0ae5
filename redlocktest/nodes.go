package redlocktest

import (
	"fmt"
	"testing"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/redisnode"
)

// New returns a Locker over n nodes in memory. It is closed when the test ends.
func New(tb testing.TB, n int, opts ...redlock.Option) *redlock.Locker {
	tb.Helper()
	return Start(tb, n, opts...).Locker()
}

// Nodes is a set of nodes in memory, with the Lockers that use them. Its methods are safe for
// concurrent use, except [Nodes.NewLocker], which must be called on the test's goroutine.
//
// Nodes are numbered from 0. Errors call them "node 0", "node 1" and so on.
type Nodes struct {
	tb       testing.TB
	backends []*memnode.Backend
	locker   *redlock.Locker
}

// Start returns n nodes in memory. The options apply to their [Nodes.Locker].
//
// With [redlock.WithRestartGuard] the nodes vote at once, like those of a deployment that has
// been running for a while. They are never in quarantine, since they never lose their data: not
// even by [Nodes.Down].
func Start(tb testing.TB, n int, opts ...redlock.Option) *Nodes {
	tb.Helper()
	nodes := &Nodes{tb: tb}
	for range n {
		backend := new(memnode.Backend)
		backend.Trust()
		nodes.backends = append(nodes.backends, backend)
	}
	nodes.locker = nodes.NewLocker(opts...)
	return nodes
}

// Locker returns the Locker that [Start] made. It is closed when the test ends.
func (n *Nodes) Locker() *redlock.Locker { return n.locker }

// NewLocker returns another Locker over the same nodes, as a second process would have. It is
// closed when the test ends.
func (n *Nodes) NewLocker(opts ...redlock.Option) *redlock.Locker {
	n.tb.Helper()
	var clients []rueidis.Client
	for i, b := range n.backends {
		clients = append(clients, redisnode.NewStoreClient(fmt.Sprint("node ", i), b))
	}
	locker, err := redlock.New(clients, opts...)
	if err != nil {
		n.tb.Fatalf("redlocktest: %v", err)
	}
	n.tb.Cleanup(func() {
		n.Up() // Close would wait for nodes that do not answer
		if err := locker.Close(); err != nil {
			n.tb.Errorf("redlocktest: %v", err)
		}
	})
	return locker
}

// Held reports whether the lock on key is held: see [Nodes.Owner].
func (n *Nodes) Held(key string) bool { return n.Owner(key) != "" }

// Owner returns the token that more than half of the nodes have for key, or "" if there is
// none. A lock's token is [redlock.Lock.Token]. Nodes that are down or frozen count too.
func (n *Nodes) Owner(key string) string {
	votes := make(map[string]int)
	for _, b := range n.backends {
		token, ok := b.Get(key)
		if !ok {
			continue
		}
		if votes[token]++; votes[token] > len(n.backends)/2 {
			return token
		}
	}
	return ""
}
