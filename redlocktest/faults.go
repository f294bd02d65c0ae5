package redlocktest

import (
	"crypto/rand"
	"fmt"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
)

// Down has nodes refuse connections until [Nodes.Up], all of them if none is named. They
// keep their keys, which expire as usual. What they have been asked and have not answered
// fails.
func (n *Nodes) Down(nodes ...int) {
	for _, s := range n.named("Down", nodes) {
		s.Down()
	}
}

// Freeze has nodes hang until [Nodes.Up], all of them if none is named. They accept what
// they are asked and do not answer. Their keys expire as usual.
func (n *Nodes) Freeze(nodes ...int) {
	for _, s := range n.named("Freeze", nodes) {
		s.Pause()
		s.Up()
	}
}

// Up ends [Nodes.Down] and [Nodes.Freeze], of all nodes if none is named. A node that was
// frozen does what it has been asked meanwhile. A Locker notices within a quarter of a
// second that a node is not down any more.
func (n *Nodes) Up(nodes ...int) {
	for _, s := range n.named("Up", nodes) {
		s.Up()
		s.Resume()
	}
}

// Expire deletes key on all nodes, as if its ttl had passed. The lock of whoever holds it
// is lost at its next extension, see [Nodes.Steal].
func (n *Nodes) Expire(key string) {
	for _, s := range n.stores {
		s.Delete(key)
	}
}

// Steal gives key to another owner on all nodes, until [Nodes.Expire]. If somebody holds
// it, that lock is lost at its next extension: while [redlock.With] runs, that is within
// a third of the ttl, unless [redlock.WithExtendThreshold] says otherwise. Whoever asks
// for the lock is told that it is held.
func (n *Nodes) Steal(key string) {
	thief := rand.Text()
	for _, s := range n.stores {
		s.Set(key, thief, redlock.MaxTTL)
	}
}

// named returns the nodes with these numbers.
func (n *Nodes) named(method string, numbers []int) []*memnode.Backend {
	if len(numbers) == 0 {
		return n.stores
	}
	var named []*memnode.Backend
	for _, i := range numbers {
		if i < 0 || i >= len(n.stores) {
			panic(fmt.Sprintf("redlocktest: %s(%d): there is no such node: must be from 0 to %d", method, i, len(n.stores)-1))
		}
		named = append(named, n.stores[i])
	}
	return named
}
