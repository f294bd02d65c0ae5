package redlocktest

import (
	"crypto/rand"
	"fmt"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
)

// Down makes nodes refuse connections until [Nodes.Up], all nodes if none is named. They keep
// their keys, which expire as usual. Requests in flight fail.
func (n *Nodes) Down(nodes ...int) {
	for _, b := range n.named("Down", nodes) {
		b.Down()
	}
}

// Freeze makes nodes hang until [Nodes.Up], all nodes if none is named. They accept
// requests and do not answer. Their keys expire as usual.
func (n *Nodes) Freeze(nodes ...int) {
	for _, b := range n.named("Freeze", nodes) {
		b.Pause()
		b.Up()
	}
}

// Up ends [Nodes.Down] and [Nodes.Freeze], for all nodes if none is named. A node that was
// frozen runs the requests that it accepted. A Locker notices within a quarter of a second that
// a node is no longer down.
func (n *Nodes) Up(nodes ...int) {
	for _, b := range n.named("Up", nodes) {
		b.Up()
		b.Resume()
	}
}

// Expire deletes key on all nodes, as if its ttl had passed. If the lock is held,
// it is lost at its next extension: see [Nodes.Steal].
func (n *Nodes) Expire(key string) {
	for _, b := range n.backends {
		b.Delete(key)
	}
}

// Steal gives key to another owner on all nodes, until [Nodes.Expire]. If the lock is held, it
// is lost at its next extension: while [redlock.With] runs, that is within a third of the ttl,
// unless [redlock.WithExtendThreshold] says otherwise. Acquires of the lock are refused.
func (n *Nodes) Steal(key string) {
	thief := rand.Text()
	for _, b := range n.backends {
		b.Set(key, thief, redlock.MaxTTL)
	}
}

// named returns the nodes with these numbers.
func (n *Nodes) named(method string, numbers []int) []*memnode.Backend {
	if len(numbers) == 0 {
		return n.backends
	}
	var named []*memnode.Backend
	for _, i := range numbers {
		if i < 0 || i >= len(n.backends) {
			panic(fmt.Sprintf("redlocktest: %s(%d): there is no such node: must be from 0 to %d", method, i, len(n.backends)-1))
		}
		named = append(named, n.backends[i])
	}
	return named
}
