// Package redistest runs real Redis servers for tests and breaks the network
// in front of them.
//
// [Start] runs a redis-server process of its own, which a test can kill,
// restart, pause, and ask directly what it holds. [NewProxy] puts a TCP proxy
// before such a server: it delays, holds back and cuts what passes, on
// connections that are in use.
package redistest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	patience  = 20 * time.Second     // for a server to start, stop or answer
	pollEvery = 2 * time.Millisecond // while waiting for it
	portTries = 10
)

var (
	errExited    = errors.New("the process has exited")
	errPortTaken = errors.New("the port is taken")
)

// Server is one redis-server process. Its methods may be called from any
// goroutine. Those that take no [testing.TB] report trouble by Errorf on the
// test that started the server, since a nemesis seldom runs on the test's own
// goroutine, where alone Fatal is allowed.
type Server struct {
	t    testing.TB
	bin  string
	dir  string
	addr string
	args []string
	env  []string // of the process, besides the test's own

	mu   sync.Mutex // held while the process changes state
	proc *process   // the last one started, running or not
}

// Start runs a redis-server on a free loopback port, in a directory of its own,
// without persistence, and returns once it answers. args go last on its command
// line, so they win. The binary is $REDIS_SERVER, or else the redis-server,
// valkey-server or redict-server in PATH; without one the test fails, it is
// never skipped. The process is killed when the test ends.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartN(t, 1, args...)[0]
}

// StartN is [Start] for n servers at once.
func StartN(t testing.TB, n int, args ...string) []*Server {
	t.Helper()
	return startN(t, n, args, func(*Server) error { return nil })
}

// startN starts servers that have been prepared.
func startN(t testing.TB, n int, args []string, prepare func(*Server) error) []*Server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	servers := make([]*Server, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range servers {
		// The directory first: clean-ups run last to first, and it must not
		// be removed under a living server.
		s := &Server{t: t, bin: bin, dir: t.TempDir(), args: slices.Clone(args)}
		t.Cleanup(s.Kill)
		servers[i] = s
		if errs[i] = prepare(s); errs[i] == nil {
			wg.Go(func() { errs[i] = s.startAnywhere() })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return servers
}

// Addr returns the server's host:port, which a [Server.Restart] keeps.
func (s *Server) Addr() string { return s.addr }

// URL returns [Server.Addr] as a redis:// URL.
func (s *Server) URL() string { return "redis://" + s.addr }

// URLs returns the URLs of servers, proxies or deployments.
func URLs[N interface{ URL() string }](nodes []N) []string {
	urls := make([]string, len(nodes))
	for i, node := range nodes {
		urls[i] = node.URL()
	}
	return urls
}

// Dir returns the server's working directory, which has its files.
func (s *Server) Dir() string { return s.dir }

// Kill ends the process by SIGKILL, paused or not, and returns when it is gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

// Restart kills the server if it runs, starts it again on the same port and in
// the same directory, and returns once it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
	deadline := time.Now().Add(patience)
	for {
		err := s.start()
		if err == nil {
			return
		}
		// Its clients know this port, so the server cannot use another.
		if !errors.Is(err, errPortTaken) || time.Now().After(deadline) {
			s.t.Errorf("redistest: restart: %v", err)
			return
		}
		time.Sleep(10 * pollEvery)
	}
}

// Pause stops the process by SIGSTOP. On Linux it returns only when the kernel
// says that the process has stopped. A server that is not running stays as it is.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return
	}
	err := s.proc.os.Signal(sigstop)
	if err == nil {
		err = s.proc.await(func() error { return stopped(s.proc.os.Pid) })
	}
	if err != nil {
		s.t.Errorf("redistest: pause %s: %v", s.addr, err)
	}
}

// Resume continues a paused process by SIGCONT and returns once it answers. A
// server that is not running stays as it is.
func (s *Server) Resume() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return
	}
	err := s.proc.os.Signal(sigcont)
	if err == nil {
		err = s.proc.await(func() error {
			_, err := s.Do("PING")
			if reply := RESPError(""); errors.As(err, &reply) {
				return nil // busy, full or loading, but awake
			}
			return err
		})
	}
	if err != nil {
		s.t.Errorf("redistest: resume %s: %v", s.addr, err)
	}
}

// Do runs one command over a connection of its own, past any proxy, within 2 s.
// The reply is a string, int64, nil or []any; an error reply is returned as a
// [RESPError].
func (s *Server) Do(args ...string) (any, error) {
	return probe(s.addr, args...)
}

// Get returns what the server holds under key. It fails the test if it cannot
// be asked.
func (s *Server) Get(t testing.TB, key string) (value string, ok bool) {
	t.Helper()
	reply, err := s.Do("GET", key)
	if err != nil {
		t.Fatalf("redistest: GET %q on %s: %v", key, s.addr, err)
	}
	value, ok = reply.(string)
	return value, ok
}

// Keys returns all keys the server holds, sorted. It fails the test if the
// server cannot be asked.
func (s *Server) Keys(t testing.TB) []string {
	t.Helper()
	reply, err := s.Do("KEYS", "*")
	if err != nil {
		t.Fatalf("redistest: KEYS on %s: %v", s.addr, err)
	}
	var keys []string
	for _, key := range reply.([]any) {
		keys = append(keys, key.(string))
	}
	slices.Sort(keys)
	return keys
}

// startAnywhere starts the server on whatever port is free.
func (s *Server) startAnywhere() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for range portTries {
		if s.addr, err = freeAddr(); err != nil {
			return err
		}
		// Between the look for a free port and the start another process can
		// take it.
		if err = s.start(); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// start runs the process and waits until it serves. s.mu is held.
func (s *Server) start() error {
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{
		"--port", port, "--bind", "127.0.0.1", "--protected-mode", "no",
		"--dir", s.dir, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--loglevel", "warning",
	}, s.args...)
	p, err := launch(s.bin, s.dir, args, s.env)
	if err != nil {
		return fmt.Errorf("%s: %w", s.bin, err)
	}
	err = p.await(func() error { return s.serving(p.os.Pid) })
	if err == nil {
		s.proc = p
		return nil
	}
	p.kill()
	out := p.output()
	if strings.Contains(out, "Address already in use") {
		err = errPortTaken
	}
	return fmt.Errorf("%s on %s does not serve: %w\n%s", s.bin, s.addr, err, out)
}

// serving returns nil if the server answers, and is ours: on a port taken by another
// test, another program's Redis would answer PING just as well.
func (s *Server) serving(pid int) error {
	if _, err := s.Do("PING"); err != nil {
		return err
	}
	info, err := s.Do("INFO", "server")
	if reply := RESPError(""); errors.As(err, &reply) && strings.HasPrefix(string(reply), "ERR unknown command") {
		return s.inItsDirectory() // its INFO has another name
	}
	if err != nil {
		return err
	}
	if text, _ := info.(string); !strings.Contains(text, fmt.Sprintf("process_id:%d\r\n", pid)) {
		return errPortTaken
	}
	return nil
}

func (s *Server) inItsDirectory() error {
	reply, err := s.Do("CONFIG", "GET", "dir")
	if err != nil {
		return err
	}
	if config := reply.([]any); len(config) != 2 || config[1] != s.dir {
		return errPortTaken
	}
	return nil
}

func (s *Server) kill() {
	if s.proc == nil {
		return
	}
	s.proc.kill()
}

func (s *Server) running() bool {
	if s.proc == nil {
		return false
	}
	select {
	case <-s.proc.exited:
		return false
	default:
		return true
	}
}

// process is one run of a server.
type process struct {
	os     *os.Process
	log    string        // file that takes its output
	exited chan struct{} // closed when it has been reaped
}

func launch(bin, dir string, args, env []string) (*process, error) {
	// A file rather than a pipe: no goroutine has to drain it.
	log, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = dieWithTest()

	p := &process{log: log.Name(), exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that forks, not to
		// the process. So the goroutine that waits for the child, and lives as
		// long, also forks it, and keeps its thread until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.os = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// await polls until cond returns nil, the process exits, or patience runs out.
func (p *process) await(cond func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-p.exited:
			return errExited
		case <-time.After(pollEvery):
		}
	}
}

func (p *process) kill() {
	_ = p.os.Kill() // fails only if it has exited
	<-p.exited
}

func (p *process) output() string {
	out, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func binary() (string, error) {
	names := []string{"redis-server", "valkey-server", "redict-server"}
	if env := os.Getenv("REDIS_SERVER"); env != "" {
		names = []string{env}
	}
	var first error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			// The server runs in a directory of its own.
			return filepath.Abs(path)
		}
		first = cmp.Or(first, err)
	}
	return "", fmt.Errorf("no Redis server to test with: %w; "+
		"run make deps, which installs one, or set REDIS_SERVER to its binary", first)
}

// AtLeast reports whether the server that [Start] runs has this version or a later one:
// of Redis, or Valkey's or Redict's own, which went on from 7.2.
func AtLeast(t testing.TB, major, minor int) bool {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	var has [2]int
	out, err := exec.Command(bin, "--version").Output()
	if err == nil {
		_, version, _ := strings.Cut(string(out), " v=")
		_, err = fmt.Sscanf(version, "%d.%d", &has[0], &has[1])
	}
	if err != nil {
		t.Fatalf("redistest: the version of %s: %v: %q", bin, err, out)
	}
	return slices.Compare(has[:], []int{major, minor}) >= 0
}

// Ports below the ephemeral range of Linux and macOS: the kernel gives none of
// them to an outgoing connection. So a killed server finds its port free again,
// and a client that keeps redialling it cannot connect to itself.
const (
	firstPort = 15000
	ports     = 17000
)

// nextPort counts up, so that no two servers of one test binary share a port,
// and from a random start, because packages are tested in parallel.
var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(ports)) }

func freeAddr() (string, error) {
	for range ports {
		port := firstPort + int(nextPort.Add(1)%ports)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if ln, err := net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", fmt.Errorf("no free port from %d to %d", firstPort, firstPort+ports-1)
}
