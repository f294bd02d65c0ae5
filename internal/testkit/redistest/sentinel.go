package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// MasterSet is the name under which the Sentinels watch the master.
const MasterSet = "mymaster"

// The Sentinels agree that the master is down when it has not answered for downAfter,
// which is far longer than a reply takes on a loaded machine.
const downAfter = "1500"

// Sentinel is a master, two replicas, and three Sentinels, of which two have to
// agree. A failover takes them some seconds.
type Sentinel struct {
	t        testing.TB
	servers  []*Server // the first one began as the master
	watchers []*watcher
}

// StartSentinel starts a group and returns once it is ready for a failover.
// args go last on the command lines of the servers that hold data.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	args = append([]string{"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}, args...)
	master := Start(t, args...)
	host, port, _ := net.SplitHostPort(master.addr)
	s := &Sentinel{t: t, servers: append([]*Server{master}, StartN(t, 2, append(args, "--replicaof", host, port)...)...)}
	for i := range 3 {
		// One of them is to learn first that another agrees, and so to be
		// elected: if all begin a failover at once the votes are split, and
		// they try again only after twice the failover-timeout.
		ask := "1000"
		if i == 0 {
			ask = "100"
		}
		s.watchers = append(s.watchers, startWatcher(t, host, port, ask))
	}
	s.waitReady(len(s.servers))
	return s
}

// Addrs returns the addresses of the Sentinels.
func (s *Sentinel) Addrs() []string {
	var addrs []string
	for _, w := range s.watchers {
		addrs = append(addrs, w.addr)
	}
	return addrs
}

// URL returns all of [Sentinel.Addrs], with the master's name, as one redis:// URL.
func (s *Sentinel) URL() string { return manyURL(s.Addrs()) + "&master_set=" + MasterSet }

// Sentinels returns the Sentinels, to be asked directly. They cannot be restarted.
func (s *Sentinel) Sentinels() []*Server {
	var servers []*Server
	for _, w := range s.watchers {
		servers = append(servers, &Server{t: s.t, addr: w.addr, proc: w.proc})
	}
	return servers
}

// Servers returns the servers that hold data, the first master in front.
func (s *Sentinel) Servers() []*Server { return slices.Clone(s.servers) }

// Master returns the server that all Sentinels, and the server itself, say is the master.
// It waits until they agree: after [Sentinel.KillMaster], until the failover is done.
func (s *Sentinel) Master() *Server {
	s.t.Helper()
	var master *Server
	until(s.t, "the Sentinels agree on a master", func() (err error) {
		master, err = s.master()
		return err
	})
	return master
}

func (s *Sentinel) master() (*Server, error) {
	said := make(map[string]bool)
	for _, w := range s.watchers {
		reply, err := probe(w.addr, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterSet)
		if err != nil {
			return nil, err
		}
		addr := reply.([]any)
		said[net.JoinHostPort(addr[0].(string), addr[1].(string))] = true
	}
	if len(said) != 1 {
		return nil, fmt.Errorf("the Sentinels say %v", said)
	}
	for _, server := range s.servers {
		if !said[server.addr] {
			continue
		}
		role, err := server.Do("ROLE")
		if err != nil {
			return nil, err
		}
		if role.([]any)[0] != "master" {
			return nil, fmt.Errorf("%s says it is a %v", server.addr, role.([]any)[0])
		}
		return server, nil
	}
	return nil, fmt.Errorf("the Sentinels say %v, which is not ours", said)
}

// KillMaster kills the master and returns it. The Sentinels find out, and
// promote a replica.
func (s *Sentinel) KillMaster() *Server {
	s.t.Helper()
	master := s.Master()
	master.Kill()
	return master
}

// CutReplication ends the replication for good, as a partition between the servers would:
// writes to the master stay on it alone from now on. The replicas can still be promoted.
func (s *Sentinel) CutReplication() {
	s.t.Helper()
	master := s.Master()
	mustAsk(s.t, master.addr, "ACL", "SETUSER", "default", "-psync", "-sync")
	until(s.t, "the master has no replicas", func() error {
		if _, err := master.Do("CLIENT", "KILL", "TYPE", "replica"); err != nil {
			return err
		}
		info, err := master.Do("INFO", "replication")
		if err == nil && !strings.Contains(info.(string), "connected_slaves:0") {
			err = errors.New("some are connected")
		}
		return err
	})
}

// waitReady waits until the Sentinels know each other and the master with its
// replicas, and these follow it.
func (s *Sentinel) waitReady(servers int) {
	s.t.Helper()
	until(s.t, "the Sentinels are ready for a failover", func() error {
		for _, w := range s.watchers {
			state, err := w.state()
			if err != nil {
				return err
			}
			if state["flags"] != "master" || state["num-slaves"] != fmt.Sprint(servers-1) || state["num-other-sentinels"] != fmt.Sprint(len(s.watchers)-1) {
				return fmt.Errorf("%s: %v", w.addr, state)
			}
			replicas, err := probe(w.addr, "SENTINEL", "REPLICAS", MasterSet)
			if err != nil {
				return err
			}
			for _, r := range replicas.([]any) {
				if replica := pairs(r); replica["flags"] != "slave" || replica["master-link-status"] != "ok" {
					return fmt.Errorf("%s: %v", w.addr, replica)
				}
			}
		}
		return nil
	})
}

// watcher is one Sentinel process.
type watcher struct {
	addr string
	proc *process
}

func startWatcher(t testing.TB, host, port, ask string) *watcher {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	w, dir := &watcher{}, t.TempDir()
	t.Cleanup(func() {
		if w.proc != nil {
			w.proc.kill()
		}
	})
	for range portTries {
		if err = w.start(bin, dir, host, port); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("redistest: Sentinel: %v", err)
	}
	// Intervals that are a second or ten by default, and make a failover slow. And a
	// Sentinel that was not scheduled for a while must go on at once, not after half a
	// minute. Not PING-PERIOD: a replica last heard of five of them ago is not promoted,
	// and in a failover it is asked once a second only. Before Redis 7 it all stays as it
	// is, and takes longer.
	if !AtLeast(t, 7, 0) {
		return w
	}
	mustAsk(t, w.addr, "SENTINEL", "DEBUG", "INFO-PERIOD", "100", "ASK-PERIOD", ask, "PUBLISH-PERIOD", "200", "TILT-TRIGGER", "60000")
	return w
}

func (w *watcher) start(bin, dir, host, port string) (err error) {
	if w.addr, err = freeAddr(); err != nil {
		return err
	}
	_, own, _ := net.SplitHostPort(w.addr)
	config := filepath.Join(dir, "sentinel.conf") // which the process rewrites
	lines := []string{
		"port " + own, "bind 127.0.0.1", "protected-mode no", "dir " + dir, "loglevel warning",
		"sentinel monitor " + MasterSet + " " + host + " " + port + " 2",
		"sentinel down-after-milliseconds " + MasterSet + " " + downAfter,
		"sentinel failover-timeout " + MasterSet + " 3000",
	}
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	p, err := launch(bin, dir, []string{config, "--sentinel"}, nil)
	if err != nil {
		return err
	}
	err = p.await(func() error { return (&Server{addr: w.addr}).serving(p.os.Pid) })
	if err == nil {
		w.proc = p
		return nil
	}
	p.kill()
	out := p.output()
	if strings.Contains(out, "Address already in use") {
		err = errPortTaken
	}
	return fmt.Errorf("%s on %s does not serve: %w\n%s", bin, w.addr, err, out)
}

// state returns what the Sentinel knows of the master.
func (w *watcher) state() (map[string]string, error) {
	reply, err := probe(w.addr, "SENTINEL", "MASTER", MasterSet)
	if err != nil {
		return nil, err
	}
	return pairs(reply), nil
}

// pairs returns an array of keys and values as a map.
func pairs(reply any) map[string]string {
	m := make(map[string]string)
	for pair := range slices.Chunk(reply.([]any), 2) {
		m[pair[0].(string)] = pair[1].(string)
	}
	return m
}
