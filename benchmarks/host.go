package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// host stands in for the test that redistest wants, in a program. It has the
// methods that redistest calls; any other panics.
type host struct {
	testing.TB

	mu       sync.Mutex // guards what follows
	cleanups []func()
	errs     []error
}

// fatal is the value that Fatalf panics with.
type fatal struct{ error }

// withHost runs f, then the clean-ups, last to first. It returns the error of f and those
// that redistest reported.
func withHost(f func(*host) error) (err error) {
	h := &host{}
	defer func() {
		for len(h.cleanups) > 0 {
			last := len(h.cleanups) - 1
			clean := h.cleanups[last]
			h.cleanups = h.cleanups[:last]
			clean()
		}
		err = errors.Join(append(h.errs, err)...)
	}()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fatal:
			err = r.error
		default:
			panic(r)
		}
	}()
	return f(h)
}

func (h *host) Helper() {}

func (h *host) Fatalf(format string, args ...any) {
	panic(fatal{fmt.Errorf(format, args...)})
}

func (h *host) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, fmt.Errorf(format, args...))
}

func (h *host) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "redlock-bench-")
	if err != nil {
		h.Fatalf("temporary directory: %w", err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// deployment says where the servers are: all that a peer needs to be opened,
// in this process or in another.
type deployment struct {
	Nodes   []string          // independent servers, host:port
	Cluster []string          // a Cluster with as many masters, or empty
	Via     map[string]string // where to dial a server of the Cluster instead
	RTT     time.Duration     // that the network adds to a round trip
	Hangs   bool              // one of the servers hangs for a while
}

// servers are the processes behind a deployment.
type servers struct {
	deployment
	nodes   []*redistest.Server
	masters []*redistest.Server
}

// start starts n servers. With an rtt, a proxy before each adds it.
func start(h *host, n int, rtt time.Duration) *servers {
	s := &servers{deployment: deployment{RTT: rtt}}
	s.nodes = redistest.StartN(h, n)
	for _, node := range s.nodes {
		s.Nodes = append(s.Nodes, s.front(h, node.Addr()))
	}
	return s
}

// startWithCluster is start and, for three servers, a Cluster of as many too:
// rueidislock wants several servers so.
func startWithCluster(h *host, n int, rtt time.Duration) *servers {
	s := start(h, n, rtt)
	if n == 3 {
		cluster := redistest.StartCluster(h)
		s.masters, s.Cluster, s.Via = cluster.Servers(), cluster.Addrs(), make(map[string]string)
		for _, addr := range s.Cluster {
			s.Via[addr] = s.front(h, addr)
		}
	}
	return s
}

// front returns the address at which the server at addr is dialled.
func (s *servers) front(h *host, addr string) string {
	if s.RTT == 0 {
		return addr
	}
	proxy := redistest.NewProxy(h, addr)
	proxy.Delay(s.RTT/2, s.RTT/2)
	return proxy.Addr()
}

// hang stops the first server, and the first of the Cluster.
func (s *servers) hang() {
	s.nodes[0].Pause()
	if s.masters != nil {
		s.masters[0].Pause()
	}
}

// wake ends what hang did.
func (s *servers) wake() {
	s.nodes[0].Resume()
	if s.masters != nil {
		s.masters[0].Resume()
	}
}

// flush deletes all keys.
func (s *servers) flush() error {
	for _, server := range slices.Concat(s.nodes, s.masters) {
		if _, err := server.Do("FLUSHALL"); err != nil {
			return err
		}
	}
	return nil
}

// keys returns the keys on all servers.
func (s *servers) keys(h *host) []string {
	var all []string
	for _, server := range slices.Concat(s.nodes, s.masters) {
		all = append(all, server.Keys(h)...)
	}
	return all
}
