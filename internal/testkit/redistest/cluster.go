package redistest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const slots = 16384

const masters = 3

// Cluster is three masters that share the slots, each with a third of them. With a master
// down, the slots of the others are served (cluster-require-full-coverage no).
type Cluster struct {
	t       testing.TB
	servers []*Server // those that began as masters in front
	buses   []string  // the addresses of the Cluster bus
}

// StartCluster starts three masters without replicas, and returns once each of them knows
// the whole Cluster. args go last on their command lines.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	// A node timeout that a loaded machine does not reach: no live server is taken for dead.
	return startCluster(t, 0, append([]string{"--cluster-node-timeout", "10000"}, args...))
}

// startCluster starts the masters and so many replicas, the first of the first master.
func startCluster(t testing.TB, replicas int, args []string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for range masters + replicas {
		s, bus := startWithBus(t, append([]string{"--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"}, args...))
		c.servers, c.buses = append(c.servers, s), append(c.buses, bus)
	}
	for i, s := range c.servers[:masters] {
		add := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * slots / masters; slot < (i+1)*slots/masters; slot++ {
			add = append(add, strconv.Itoa(slot))
		}
		c.do(s, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		c.do(s, add...)
	}
	for i, bus := range c.buses[1:] {
		host, port, _ := net.SplitHostPort(c.servers[i+1].addr)
		_, busPort, _ := net.SplitHostPort(bus)
		c.do(c.servers[0], "CLUSTER", "MEET", host, port, busPort)
	}
	for i, replica := range c.servers[masters:] {
		c.replicate(replica, c.servers[i])
	}
	until(t, "every server of the Cluster knows all of it", func() error {
		for _, s := range c.servers {
			info, err := s.Do("CLUSTER", "INFO")
			if err != nil {
				return err
			}
			if text := info.(string); !strings.Contains(text, "cluster_state:ok") || !strings.Contains(text, "cluster_size:3") {
				return fmt.Errorf("%s: %s", s.addr, text)
			}
			for slot := 0; slot < slots; slot += slots / masters {
				if _, err := c.owner(s, slot); err != nil {
					return err
				}
			}
			if err := c.knowsReplicas(s); err != nil {
				return err
			}
		}
		return nil
	})
	return c
}

// startWithBus starts a server of a Cluster. It returns the address of its bus
// too, whose port can be chosen from Redis 7 on, and is 10000 higher before.
func startWithBus(t testing.TB, args []string) (s *Server, bus string) {
	t.Helper()
	if AtLeast(t, 7, 0) {
		return startWithPort(t, "--cluster-port", args)
	}
	s = Start(t, args...)
	host, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port)
	return s, net.JoinHostPort(host, strconv.Itoa(n+10000))
}

// Servers returns all servers, those that began as masters in front.
func (c *Cluster) Servers() []*Server { return slices.Clone(c.servers) }

// Addrs returns the servers' addresses.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, s := range c.servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// URL returns all of [Cluster.Addrs] as one redis:// URL.
func (c *Cluster) URL() string { return manyURL(c.Addrs()) }

// Slot returns the slot of key, according to the first server that answers.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	for _, s := range c.servers {
		if slot, err := s.Do("CLUSTER", "KEYSLOT", key); err == nil {
			return int(slot.(int64))
		}
	}
	c.t.Fatalf("redistest: no server of the Cluster answers")
	return 0
}

// Owner returns the server of the slot of key. It waits until all servers that answer agree:
// one that was down, or has not heard of a change yet, names the owner before.
func (c *Cluster) Owner(key string) *Server {
	c.t.Helper()
	slot := c.Slot(key)
	var owner *Server
	until(c.t, fmt.Sprintf("the servers of the Cluster agree on the owner of slot %d", slot), func() (err error) {
		owner, err = c.agreed(slot)
		return err
	})
	return owner
}

func (c *Cluster) agreed(slot int) (owner *Server, err error) {
	for _, s := range c.servers {
		said, e := c.owner(s, slot)
		switch {
		case e != nil:
			err = e
		case owner == nil:
			owner = said
		case owner != said:
			return nil, fmt.Errorf("%s says %s, another server %s", s.addr, said.addr, owner.addr)
		}
	}
	if owner == nil {
		return nil, err
	}
	return owner, nil
}

// KeyOf returns a key that begins with prefix and belongs to the server.
func (c *Cluster) KeyOf(s *Server, prefix string) string {
	c.t.Helper()
	for i := 0; ; i++ {
		if key := prefix + strconv.Itoa(i); c.Owner(key) == s {
			return key
		}
	}
}

func (c *Cluster) owner(asked *Server, slot int) (*Server, error) {
	reply, err := asked.Do("CLUSTER", "SLOTS")
	if err != nil {
		return nil, err
	}
	for _, entry := range reply.([]any) {
		fields := entry.([]any)
		if from, to := fields[0].(int64), fields[1].(int64); int64(slot) < from || int64(slot) > to {
			continue
		}
		addr := addrOf(fields[2])
		for _, s := range c.servers {
			if s.addr == addr {
				return s, nil
			}
		}
		return nil, fmt.Errorf("%s: slot %d is of %s", asked.addr, slot, addr)
	}
	return nil, fmt.Errorf("%s: slot %d has no owner", asked.addr, slot)
}

// BeginMove starts to migrate the slot of key from its owner to another server: from now
// on the owner sends clients there for the keys that it does not have.
func (c *Cluster) BeginMove(key string, to *Server) {
	c.t.Helper()
	slot, from := strconv.Itoa(c.Slot(key)), c.Owner(key)
	c.do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.id(from))
	c.do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.id(to))
}

// EndMove moves the keys of the slot, and makes to its owner.
func (c *Cluster) EndMove(key string, to *Server) {
	c.t.Helper()
	slot, from := strconv.Itoa(c.Slot(key)), c.Owner(key)
	host, port, _ := net.SplitHostPort(to.addr)
	for _, moved := range c.do(from, "CLUSTER", "GETKEYSINSLOT", slot, "1000").([]any) {
		c.do(from, "MIGRATE", host, port, moved.(string), "0", "5000")
	}
	for _, s := range []*Server{to, from} {
		c.do(s, "CLUSTER", "SETSLOT", slot, "NODE", c.id(to))
	}
}

func (c *Cluster) id(s *Server) string {
	c.t.Helper()
	id, _ := c.do(s, "CLUSTER", "MYID").(string)
	return id
}

func (c *Cluster) do(s *Server, args ...string) any {
	c.t.Helper()
	return mustAsk(c.t, s.addr, args...)
}

// mustAsk runs one command, which must not fail. On a loaded machine it may take longer
// than the timeout of a probe.
func mustAsk(t testing.TB, addr string, args ...string) any {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		reply, err := probe(addr, args...)
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			t.Fatalf("redistest: %q on %s: %v", args, addr, err)
		}
		return reply
	}
}

// until waits until cond returns nil.
func until(t testing.TB, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("redistest: waited without success: %s: %v", what, err)
		}
		time.Sleep(pollEvery)
	}
}

// manyURL returns several addresses of one deployment as a redis:// URL.
func manyURL(addrs []string) string {
	return "redis://" + addrs[0] + "?addr=" + strings.Join(addrs[1:], "&addr=")
}
