package redisnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// Redis is a Store over a rueidis client.
type Redis struct {
	topology    *topology    // of a Cluster; nil otherwise
	able        ability      // of the server, if it is no Cluster
	connections *connections // nil if the client is the caller's
	sentinels   bool         // it is a Sentinel group
	// Texts of durations that most commands have in common.
	ttl, retention, quarantine ttlText

	demoted atomic.Bool // the server has said that it is not the one to write to: see redial
	oldLua  atomic.Bool // the server does not know what ping.lua begins with: it is older than Redis 7

	mu        sync.Mutex     // guards what follows
	client    rueidis.Client // nil until the first connection stands
	err       error          // why there is none yet
	redialled time.Time      // when redial did so last
	moved     chan struct{}  // closed then

	// For a client that the Store dials, and so owns:
	stop  context.CancelFunc
	tried chan struct{} // closed when the first dial has ended, either way
	done  chan struct{} // closed when dialling is over
}

// Wrap returns a Store over a client that the caller owns: Close does not close it.
// Of a StandIn it is the Store that this stands for.
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

// ClientName is what errors call a client of the caller's: its address, or its
// addresses.
func ClientName(client rueidis.Client) string {
	var addrs []string
	for addr := range client.Nodes() {
		addrs = append(addrs, addr)
	}
	return Name(addrs)
}

// Name is what errors call the deployment at these addresses.
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

// Dial returns a Store that makes its own client. rueidis.NewClient dials at
// once and fails if nobody answers, so this goes on in the background until it
// succeeds; until then every command fails at once, with the reason.
func Dial(option rueidis.ClientOption) *Redis {
	s := &Redis{
		err:       errors.New("the first dial has not ended"),
		sentinels: option.Sentinel.MasterSet != "",
		moved:     make(chan struct{}),
		tried:     make(chan struct{}),
		done:      make(chan struct{}),
	}
	if IsCluster(option) {
		s.topology = newTopology()
	} else if option.DialFn == nil {
		s.connections = &connections{changed: s.able.reset}
		option.DialCtxFn = s.connections.through(option.DialCtxFn)
		// A Sentinel group's client changes from one connection to another at a moment that cannot be seen.
		s.able.counted = !s.sentinels
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go s.dial(ctx, option)
	return s
}

// IsCluster reports whether a client made with option is one of a Cluster.
func IsCluster(option rueidis.ClientOption) bool {
	return len(option.InitAddress) > 1 && option.Sentinel.MasterSet == "" && !option.ForceSingleClient
}

// Connect makes a client, and dials once.
func Connect(option rueidis.ClientOption) (rueidis.Client, error) {
	client, err := rueidis.NewClient(option)
	if err == nil {
		return client, nil
	}
	if client != nil { // a single client is returned even when its dial failed
		client.Close()
	}
	return nil, dialError(err)
}

// Tried is closed when the first dial has ended, either way.
func (s *Redis) Tried() <-chan struct{} { return s.tried }

func (s *Redis) dial(ctx context.Context, option rueidis.ClientOption) {
	defer close(s.done)
	tried := sync.OnceFunc(func() { close(s.tried) })
	defer tried()
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(longestRedial),
		backoff.WithMaxElapsedTime(0))
	for ctx.Err() == nil {
		client, err := Connect(option)
		s.mu.Lock()
		s.client, s.err = client, err
		s.mu.Unlock()
		if err == nil {
			return
		}
		tried()
		timer := time.NewTimer(pauses.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// longestRedial is the longest pause before the first connection is tried again,
// without the half of it that chance may add.
const longestRedial = 400 * time.Millisecond

// connected is the client, or the reason why there is none.
func (s *Redis) connected() (rueidis.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, s.err
	}
	return s.client, nil
}

// Close closes the client if the Store made it.
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

// Server is the server of a Cluster that has the keys' slot, as far as is known.
func (s *Redis) Server(keys []string) string {
	if s.topology == nil {
		return ""
	}
	return s.topology.server(slot(keys[0]))
}

// Samples returns a key of each master of a Cluster that has slots, as far as is
// known. Where there is one server, any key will do that the user may access: that of
// the restart guard's marker, for trust.lua.
func (s *Redis) Samples() []string {
	if s.topology == nil {
		return []string{node.GuardKey}
	}
	return s.topology.samples()
}

// ability returns what is known of the server that has the keys; nil if it is not known
// which that is.
func (s *Redis) ability(keys []string) *ability {
	if s.topology == nil {
		return &s.able
	}
	return s.topology.ability(slot(keys[0]))
}

// Check refuses keys of several slots on a Cluster: no script can hold them
// all or none, and rueidis' builders panic on them.
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
