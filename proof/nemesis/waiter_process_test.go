//go:build unix

package nemesis

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

// nodesOfWaiter, when set, makes the test binary a waiter that is to be stopped or
// killed: see TestWaiter.
const (
	nodesOfWaiter = "NEMESIS_WAITER_NODES"
	ttlOfWaiter   = "NEMESIS_WAITER_TTL"
)

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

// goOn tells the process to acquire, or to release.
func (w *waiter) goOn() {
	w.t.Helper()
	_, err := fmt.Fprintln(w.in, "go on")
	require.NoError(w.t, err)
}

// heard returns the text after the prefix in the next line that has the prefix.
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

// believed returns the belief that the process printed, and that belief as a hold.
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
