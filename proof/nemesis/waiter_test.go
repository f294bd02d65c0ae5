//go:build unix

package nemesis

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

// nodesOfWaiter, when set, makes the test binary a waiter that is to be stopped or
// killed: see TestWaiter.
const (
	nodesOfWaiter = "NEMESIS_WAITER_NODES"
	ttlOfWaiter   = "NEMESIS_WAITER_TTL"
)

const (
	window    = 500 * ms // the ttl that a grant sets
	lease     = 750 * ms // the time for which a queue keeps a place
	heartbeat = 250 * ms
	// loaded is the time that a loaded machine may add.
	loaded = time.Second
)

// queued polls so rarely that only a queue can end a wait in time.
var queued = redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1))

// belief is what a process believed of one hold: the first and the last time at which it was sure.
type belief struct {
	Token       string
	First, Last int64 // Unix time in ns; 0 if it never was
	Lost        string
}

// TestWaiter is the waiter, in a process of its own. For each line that it reads
// it acquires the lock, keeps it until the next line or its loss, checks it all
// the time, and prints what it believed. Run alone it does so once.
func TestWaiter(t *testing.T) {
	nodes, child := os.LookupEnv(nodesOfWaiter)
	urls, ttl, in := strings.Split(nodes, ","), time.Second, io.Reader(strings.NewReader("acquire\nrelease\n"))
	if child {
		in = os.Stdin
		var err error
		ttl, err = time.ParseDuration(os.Getenv(ttlOfWaiter))
		require.NoError(t, err)
	} else {
		urls = redistest.URLs(NewTestbed(t, 3, ttl).Proxies)
	}
	l, err := redlock.Open(context.Background(), urls)
	require.NoError(t, err)
	defer l.Close()
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- struct{}{}
		}
	}()
	for range lines {
		fmt.Println("waiting")
		lock, err := l.Acquire(t.Context(), "k", ttl, queued)
		require.NoError(t, err)
		_ = lock.AutoExtend(0)
		fmt.Println("holding")
		b := belief{Token: lock.Token()}
		// Before it looks: whatever happens between, it may believe what it sees.
		for released := false; !released; {
			now := time.Now().UnixNano()
			if !lock.Valid() {
				<-lock.Context().Done()
				b.Lost = fmt.Sprint(context.Cause(lock.Context()))
				break
			}
			if b.Last = now; b.First == 0 {
				b.First = now
			}
			select {
			case <-lines:
				released = true
			default:
				time.Sleep(100 * time.Microsecond)
			}
		}
		_ = lock.Release(t.Context())
		text, _ := json.Marshal(b)
		fmt.Printf("believed %s\n", text)
		if b.Lost != "" {
			<-lines
		}
		if !child {
			require.Empty(t, b.Lost)
			return
		}
	}
}

// waiter is a TestWaiter.
type waiter struct {
	t       *testing.T
	command *exec.Cmd
	in      io.Writer
	out     chan string // closed when it has ended
	said    string      // a line that was received, and not yet heard
}

func (bed *Testbed) waiter(t *testing.T) *waiter {
	t.Helper()
	var urls []string
	for _, s := range bed.Servers {
		urls = append(urls, "redis://"+s.Addr())
	}
	w := &waiter{t: t, out: make(chan string, 1000)}
	w.command = exec.Command(os.Args[0], "-test.run=^TestWaiter$", "-test.v")
	w.command.Env = append(os.Environ(), nodesOfWaiter+"="+strings.Join(urls, ","), ttlOfWaiter+"="+bed.TTL.String())
	in, err := w.command.StdinPipe()
	require.NoError(t, err)
	out, err := w.command.StdoutPipe()
	require.NoError(t, err)
	w.in = in
	require.NoError(t, w.command.Start())
	go func() {
		defer close(w.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.out <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = w.command.Process.Kill() // also if it is stopped
		for range w.out {
		}
		_ = w.command.Wait()
	})
	return w
}

// goOn makes it acquire, or release.
func (w *waiter) goOn() {
	w.t.Helper()
	_, err := fmt.Fprintln(w.in, "go on")
	require.NoError(w.t, err)
}

// heard returns what follows the prefix in the next line that has it.
func (w *waiter) heard(prefix string) string {
	w.t.Helper()
	end := time.After(patience)
	if text, ok := strings.CutPrefix(w.said, prefix); ok && w.said != "" {
		w.said = ""
		return text
	}
	for {
		select {
		case line, ok := <-w.out:
			require.True(w.t, ok, "the waiter ended before it said %q", prefix)
			if text, ok := strings.CutPrefix(line, prefix); ok {
				return text
			}
		case <-end:
			require.FailNow(w.t, "nothing was said", "%q within %v", prefix, patience)
		}
	}
}

// believed returns what it printed that it believed, as a hold.
func (w *waiter) believed(h *history.History) (belief, history.Hold) {
	w.t.Helper()
	var b belief
	require.NoError(w.t, json.Unmarshal([]byte(w.heard("believed ")), &b))
	hold := history.Hold{Key: "k", Contender: 1, Token: b.Token}
	if b.First > 0 {
		hold.Returned, hold.Until = h.At(time.Unix(0, b.First)), h.At(time.Unix(0, b.Last))
	}
	return b, hold
}

func (w *waiter) signal(s syscall.Signal) {
	w.t.Helper()
	require.NoError(w.t, w.command.Process.Signal(s))
}

// stop returns once the process has stopped, where the system tells.
func (w *waiter) stop() {
	w.t.Helper()
	w.signal(syscall.SIGSTOP)
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.command.Process.Pid))
		if err != nil {
			time.Sleep(20 * ms)
			return
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(rest, "T") {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
	require.FailNow(w.t, "it does not stop")
}

// queueLen reports whether n processes wait for k on a majority of the nodes. A node may have
// granted k to a waiter for a moment, before the holder had it.
func (bed *Testbed) queueLen(n int64) func() bool {
	return func() bool {
		nodes := 0
		for _, s := range bed.Servers {
			if size, err := s.Do("ZCARD", "k:waiters"); err == nil && size == n {
				nodes++
			}
		}
		return nodes >= bed.most()
	}
}

// extended reports whether k has a longer ttl than a grant sets, on a majority of the nodes.
func (bed *Testbed) extended() bool {
	nodes := 0
	for _, s := range bed.Servers {
		if left, err := s.Do("PTTL", "k"); err == nil && left.(int64) > window.Milliseconds() {
			nodes++
		}
	}
	return nodes >= bed.most()
}

// channel returns the channel on which the first waiter for k hears of grants.
func (bed *Testbed) channel() string {
	for _, s := range bed.Servers {
		first, err := s.Do("ZRANGE", "k:waiters", "0", "0")
		require.NoError(bed.t, err)
		if tokens := first.([]any); len(tokens) == 1 {
			entry, err := s.Do("HGET", "k:waiting", tokens[0].(string))
			require.NoError(bed.t, err)
			return strings.Fields(entry.(string))[3] // see internal/redisnode/queue.lua
		}
	}
	require.FailNow(bed.t, "no process waits", bed.queues())
	return ""
}

// deserted reports whether a channel has no listener left.
func (bed *Testbed) deserted(channel string) bool {
	for _, s := range bed.Servers {
		count, err := s.Do("PUBSUB", "NUMSUB", channel)
		require.NoError(bed.t, err)
		if count.([]any)[1] != int64(0) {
			return false
		}
	}
	return true
}

// queues returns the owner of k and its waiters, on every node.
func (bed *Testbed) queues() string {
	var text strings.Builder
	for i, s := range bed.Servers {
		for _, command := range [][]string{{"GET", "k"}, {"PTTL", "k"}, {"ZRANGE", "k:waiters", "0", "-1", "WITHSCORES"}, {"HGETALL", "k:waiting"}} {
			reply, err := s.Do(command...)
			fmt.Fprintln(&text, i, command, reply, err)
		}
	}
	return text.String()
}

// scene has a lock, its holder, a waiter, and a rival that comes after the waiter.
type scene struct {
	t       *testing.T
	testbed *Testbed
	h       *history.History
	holder  *redlock.Locker
	other   *redlock.Locker
	child   *waiter
}

func newScene(t *testing.T, ttl time.Duration) *scene {
	bed := NewTestbed(t, 3, ttl)
	s := &scene{t: t, testbed: bed, h: history.New(), holder: bed.Open(), other: bed.Open(), child: bed.waiter(t)}
	t.Cleanup(func() { _, _ = s.holder.Close(), s.other.Close() })
	return s
}

// held is a lock of a Locker of this process.
type held struct {
	lock *redlock.Lock
	hold history.Hold
	at   time.Time
}

func (s *scene) acquire(l *redlock.Locker, contender int) (held, error) {
	hold := history.Hold{Key: "k", Contender: contender, Sent: s.h.Now()}
	lock, err := l.Acquire(s.t.Context(), "k", s.testbed.TTL, queued)
	if err != nil {
		return held{}, err
	}
	hold.Returned, hold.Token = s.h.Now(), lock.Token()
	return held{lock, hold, time.Now()}, lock.AutoExtend(0)
}

func (s *scene) release(x held) {
	s.t.Helper()
	x.hold.Until, x.hold.Released = s.h.At(x.lock.Until()), s.h.Now()
	s.h.AddHold(x.hold)
	require.NoError(s.t, x.lock.Release(s.t.Context()))
}

// waits has the child wait behind a holder, and the rival behind the child.
func (s *scene) waits() (holder held, rival <-chan held) {
	s.t.Helper()
	holder, err := s.acquire(s.holder, 0)
	require.NoError(s.t, err)
	s.child.goOn()
	s.child.heard("waiting")
	eventually.True(s.t, "the child waits", s.testbed.queueLen(1), s.testbed.queues)
	began := time.Now().UnixMilli()
	eventually.True(s.t, "the rival comes in a later millisecond", func() bool { return time.Now().UnixMilli() > began })
	return holder, s.rival(2)
}

// rival waits, as the last of n processes.
func (s *scene) rival(of int64) <-chan held {
	s.t.Helper()
	rival := make(chan held, 1)
	go func() {
		x, err := s.acquire(s.other, 2)
		if err != nil {
			s.t.Error(err)
		}
		rival <- x
	}()
	eventually.True(s.t, "the rival waits", s.testbed.queueLen(of), s.testbed.queues)
	return rival
}

// gets waits until the rival has the lock, and returns the time since since.
func (s *scene) gets(rival <-chan held, since time.Time, within time.Duration) (held, time.Duration) {
	s.t.Helper()
	select {
	case x := <-rival:
		took := x.at.Sub(since)
		require.Less(s.t, took, within+loaded)
		return x, took
	case <-time.After(patience):
		require.FailNow(s.t, "the rival waits for ever")
		return held{}, 0
	}
}

func (s *scene) check() {
	s.t.Helper()
	require.Empty(s.t, s.h.Check())
	eventually.True(s.t, "no key is left", func() bool { return s.testbed.Keys() == 0 })
}

// A process that is stopped while it waits loses its place after its lease,
// and delays no other process. When it goes on it waits again.
func TestAProcessThatIsStoppedWhileItWaits(t *testing.T) {
	s := newScene(t, 10*time.Second)
	for range 3 {
		holder, rival := s.waits()
		s.child.stop()
		time.Sleep(lease + 50*ms) // while it is stopped
		released := time.Now()
		s.release(holder)
		x, took := s.gets(rival, released, heartbeat)
		t.Logf("the rival has the lock %v after the release", took)
		s.child.signal(syscall.SIGCONT)
		eventually.True(t, "it waits again", s.testbed.queueLen(1), s.testbed.queues)
		s.release(x)
		s.child.heard("holding")
		s.child.goOn()
		_, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
	}
	s.check()
}

// A process that is stopped before it is granted the lock, or while it is, keeps
// others from it for a window. When it goes on it finds that its grants are over.
func TestAProcessThatIsStoppedWhenItIsGranted(t *testing.T) {
	s := newScene(t, 10*time.Second)
	random := rand.New(rand.NewPCG(1, 0))
	var longest time.Duration
	for i := range 12 {
		holder, rival := s.waits()
		released := time.Now()
		if i < 4 {
			s.child.stop()
			released = time.Now()
			s.release(holder)
		} else { // somewhere between the push and the first extension
			done := make(chan struct{})
			go func() { defer close(done); s.release(holder) }()
			time.Sleep(between(random, 0, ms/2)) // when it is stopped
			s.child.stop()
			<-done
		}
		var x held
		select {
		case x = <-rival:
			took := x.at.Sub(released)
			longest = max(longest, took)
			require.Less(t, took, window+heartbeat+loaded)
			s.child.signal(syscall.SIGCONT)
			time.Sleep(between(random, 50*ms, window+100*ms)) // while it is watched
			require.True(t, x.lock.Valid(), "%v", context.Cause(x.lock.Context()))
			s.release(x)
		case <-time.After(window + heartbeat + loaded): // it was stopped when it had extended already
			t.Logf("round %d: it was stopped when it had extended already", i)
			s.child.signal(syscall.SIGCONT)
			select {
			case x = <-rival: // it has found its grant over, and given it back
				s.release(x)
			case line := <-s.child.out:
				s.child.said = line
			}
		}
		s.child.heard("holding")
		s.child.goOn()
		b, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
		t.Logf("round %d: it believed for %v; lost: %q", i, hold.Until-hold.Returned, b.Lost)
		if x.lock == nil {
			x, _ = s.gets(rival, time.Now(), heartbeat)
			s.release(x)
		}
		eventually.True(t, "nothing is left", func() bool { return s.testbed.Keys() == 0 })
	}
	t.Logf("the rival had the lock at most %v after the release", longest)
	s.check()
}

// A process that is stopped while it holds the lock loses it, and knows before it
// does anything.
func TestAProcessThatIsStoppedWhileItHolds(t *testing.T) {
	s := newScene(t, time.Second)
	for range 3 {
		holder, rival := s.waits()
		s.release(holder)
		s.child.heard("holding")
		eventually.True(t, "extended to its ttl", s.testbed.extended, s.testbed.queues)
		stopped := time.Now()
		s.child.stop()
		x, took := s.gets(rival, stopped, s.testbed.TTL+300*ms)
		t.Logf("the rival has the lock %v after the stop, ttl %v", took, s.testbed.TTL)
		s.child.signal(syscall.SIGCONT)
		b, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
		s.child.goOn()
		require.NotEmpty(t, b.Lost)
		require.Less(t, time.Unix(0, b.Last), stopped.Add(loaded))
		require.True(t, x.lock.Valid(), "%v", context.Cause(x.lock.Context()))
		s.release(x)
	}
	s.check()
}

func TestAWaiterThatIsKilledDelaysNobody(t *testing.T) {
	for _, killed := range []string{"before the release", "after it"} {
		t.Run(killed, func(t *testing.T) {
			s := newScene(t, 10*time.Second)
			holder, rival := s.waits()
			if killed == "before the release" {
				channel := s.testbed.channel()
				s.child.signal(syscall.SIGKILL)
				eventually.True(t, "the servers have noticed", func() bool { return s.testbed.deserted(channel) })
			} else {
				s.child.stop() // its grant is not answered
			}
			released := time.Now()
			s.release(holder)
			s.child.signal(syscall.SIGKILL)
			x, took := s.gets(rival, released, window)
			t.Logf("the rival has the lock %v after the release", took)
			s.release(x)
			s.check()
		})
	}
}

func TestAHolderThatIsKilledDelaysTheNextByItsTTL(t *testing.T) {
	s := newScene(t, time.Second)
	holder, rival := s.waits()
	s.release(holder)
	s.child.heard("holding")
	eventually.True(t, "extended to its ttl", s.testbed.extended, s.testbed.queues)
	killed := time.Now()
	s.child.signal(syscall.SIGKILL)
	x, took := s.gets(rival, killed, s.testbed.TTL+300*ms)
	t.Logf("the rival has the lock %v after the kill, ttl %v", took, s.testbed.TTL)
	s.release(x)
	s.check()
}
