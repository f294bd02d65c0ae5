// Package redisnode speaks Redis: it is the node.Backend of a server, a Sentinel group or a
// Cluster, over a rueidis client.
package redisnode

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// Redis is a node.Backend over a rueidis client.
type Redis struct {
	topology    *topology    // of a Cluster; nil otherwise
	able        ability      // of the server, unless it is a Cluster
	connections *connections // nil if the client is the caller's
	sentinels   bool         // it is a Sentinel group
	resp2       bool         // the URL asks for RESP2: perhaps it is a proxy, which passes no script on without a key
	// Texts of durations that most commands have in common.
	ttl, retention, quarantine ttlText

	demoted atomic.Bool // the server has answered that it takes no writes: see redial
	keyless atomic.Bool // the user may not access the key of a Ping
	oldLua  atomic.Bool // the server does not know what ping.lua begins with: it is older than Redis 7

	mu        sync.Mutex     // guards what follows
	client    rueidis.Client // nil until the first connection stands
	err       error          // why there is none yet
	redialled time.Time      // when redial last dialled again
	moved     chan struct{}  // closed then

	// For a client that this dials, and so owns:
	stop  context.CancelFunc
	tried chan struct{} // closed when the first dial has ended, either way
	done  chan struct{} // closed when dialling has ended
}

// Wrap returns a Backend over a client that the caller owns: Close does not close the client.
// For a client made by NewStoreClient it returns the Backend that the client stands for.
func Wrap(client rueidis.Client) node.Backend {
	if c, ok := client.(*storeClient); ok {
		return c.backend
	}
	s := &Redis{client: client, moved: make(chan struct{}), sentinels: client.Mode() == rueidis.ClientModeSentinel}
	if client.Mode() == rueidis.ClientModeCluster {
		s.topology = newTopology()
	}
	return s
}

// ClientName returns what errors call a client: its address, or its addresses.
func ClientName(client rueidis.Client) string {
	var addrs []string
	for addr := range client.Nodes() {
		addrs = append(addrs, addr)
	}
	return Name(addrs)
}

// Name returns what errors call the deployment at these addresses.
func Name(addrs []string) string {
	addrs = slices.Sorted(slices.Values(addrs))
	switch len(addrs) {
	case 0:
		return "unknown address"
	case 1:
		return addrs[0]
	}
	return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
}

// connected returns the client, or why there is none.
func (s *Redis) connected() (rueidis.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, s.err
	}
	return s.client, nil
}

// Close closes the client if Dial made it.
func (s *Redis) Close() {
	if s.topology != nil {
		s.topology.close()
	}
	if s.stop == nil {
		return
	}
	s.stop()
	<-s.done
	if s.client != nil {
		s.client.Close()
	}
}

// Server names the server of a Cluster that has the keys' slot, as far as is known.
func (s *Redis) Server(keys []string) string {
	if s.topology == nil {
		return ""
	}
	return s.topology.server(slot(keys[0]))
}

// Samples returns a key of each master of a Cluster that has slots, as far as is known. For one
// server any key will do that the user may access: this is the restart guard's marker, for
// trust.lua.
func (s *Redis) Samples() []string {
	if s.topology == nil {
		return []string{node.GuardKey}
	}
	return s.topology.samples()
}

// ability returns what the server that has the keys has shown; nil if that server is not known.
func (s *Redis) ability(keys []string) *ability {
	if s.topology == nil {
		return &s.able
	}
	return s.topology.ability(slot(keys[0]))
}

// Check refuses keys of several slots on a Cluster: no script can acquire all or none of them,
// and rueidis' builders panic on them.
func (s *Redis) Check(keys []string) error {
	if s.topology == nil {
		return nil
	}
	for _, key := range keys[1:] {
		if slot(key) != slot(keys[0]) {
			return fmt.Errorf("keys %q and %q are in different slots of a Cluster: give them a common hash tag, such as {order:1}:a and {order:1}:b", keys[0], key)
		}
	}
	return nil
}
