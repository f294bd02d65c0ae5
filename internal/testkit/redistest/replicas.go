package redistest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"
)

// A master that has said nothing for so long is taken for dead: long for a loaded machine,
// and short for a test that waits for the failover.
const replicatedTimeout = "3000"

// StartClusterWithReplicas is [StartCluster] for three masters with a replica each, which
// takes over from a master that is killed, some 5 s later.
func StartClusterWithReplicas(t testing.TB, args ...string) *Cluster {
	t.Helper()
	return startCluster(t, masters, append([]string{
		"--cluster-node-timeout", replicatedTimeout,
		// However old its data: it is the only replica that the master has.
		"--cluster-replica-validity-factor", "0",
		"--repl-diskless-sync-delay", "0",
	}, args...))
}

// Replica returns the server that replicates master, which must run.
func (c *Cluster) Replica(master *Server) *Server {
	c.t.Helper()
	var replica *Server
	until(c.t, "a replica follows "+master.addr, func() error {
		for _, s := range c.servers {
			of, err := masterOf(s)
			if err == nil && of == master.addr {
				replica = s
				return nil
			}
		}
		return errors.New("no server does")
	})
	return replica
}

// Failover has the replica of a running master take over from it (CLUSTER FAILOVER), which
// loses no write. It returns the new master once all servers know it; the old one is its
// replica then.
func (c *Cluster) Failover(master *Server) *Server {
	c.t.Helper()
	replica := c.Replica(master)
	// The replica gives up after 5 s, if the master has not told it its offset or it is not elected.
	const again = 6 * time.Second
	var asked time.Time
	until(c.t, replica.addr+" takes over from "+master.addr, func() error {
		err := c.promoted(replica, master)
		if err != nil && time.Since(asked) > again {
			asked = time.Now()
			if _, refused := replica.Do("CLUSTER", "FAILOVER"); refused != nil {
				return refused
			}
		}
		return err
	})
	return replica
}

// KillMaster kills a master, and returns the replica that took over once all running
// servers know it. What had not been replicated is lost.
func (c *Cluster) KillMaster(master *Server) *Server {
	c.t.Helper()
	replica := c.Replica(master)
	master.Kill()
	until(c.t, replica.addr+" takes over from "+master.addr, func() error { return c.promoted(replica, master) })
	return replica
}

// promoted returns nil if the replica is the master of some slots, for all servers that
// answer, and the old master of none.
func (c *Cluster) promoted(replica, old *Server) error {
	if of, err := masterOf(replica); err != nil || of != "" {
		return errors.Join(err, fmt.Errorf("%s replicates %q", replica.addr, of))
	}
	if of, err := masterOf(old); err == nil && of != replica.addr {
		return fmt.Errorf("%s replicates %q", old.addr, of)
	}
	for _, s := range c.servers {
		reply, err := s.Do("CLUSTER", "SLOTS")
		if err != nil {
			continue
		}
		found := false
		for _, entry := range reply.([]any) {
			switch addrOf(entry.([]any)[2]) {
			case old.addr:
				return fmt.Errorf("%s says %s is a master still", s.addr, old.addr)
			case replica.addr:
				found = true
			}
		}
		if !found {
			return fmt.Errorf("%s has not heard that %s is a master", s.addr, replica.addr)
		}
	}
	return nil
}

// replicate makes a server a replica, once it knows the master.
func (c *Cluster) replicate(s, master *Server) {
	c.t.Helper()
	id := c.id(master)
	until(c.t, s.addr+" replicates "+master.addr, func() error {
		_, err := s.Do("CLUSTER", "REPLICATE", id)
		return err
	})
}

// knowsReplicas returns nil if s names a replica for each slot, in a Cluster that has
// replicas, and follows its own master if it is one.
func (c *Cluster) knowsReplicas(s *Server) error {
	if len(c.servers) == masters {
		return nil
	}
	reply, err := s.Do("CLUSTER", "SLOTS")
	if err != nil {
		return err
	}
	for _, entry := range reply.([]any) {
		if owners := entry.([]any)[2:]; len(owners) < 2 {
			return fmt.Errorf("%s knows no replica of %s", s.addr, addrOf(owners[0]))
		}
	}
	role, err := s.Do("ROLE")
	if err != nil {
		return err
	}
	if fields := role.([]any); fields[0] == "slave" && fields[3] != "connected" {
		return fmt.Errorf("%s is not in step with its master: %v", s.addr, fields[3])
	}
	return nil
}

// masterOf returns the address of the master that s replicates, or "" if s is a master.
func masterOf(s *Server) (string, error) {
	role, err := s.Do("ROLE")
	if err != nil {
		return "", err
	}
	fields := role.([]any)
	if fields[0] != "slave" {
		return "", nil
	}
	return addrOf(fields[1:]), nil
}

// addrOf returns the address in a reply that begins with a host and a port.
func addrOf(reply any) string {
	fields := reply.([]any)
	return net.JoinHostPort(fields[0].(string), strconv.FormatInt(fields[1].(int64), 10))
}
