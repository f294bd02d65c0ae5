//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/internal/testkit/syncbuf"
)

// tool is the program under test.
var tool string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "redlock")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tool = filepath.Join(dir, "redlock")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running tool.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout syncbuf.Buffer
	stderr syncbuf.Buffer
	done   chan struct{}
}

// begin starts the tool with the nodes in its environment. It is killed at the end of
// the test.
func begin(t *testing.T, nodes string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(tool, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), nodesVariable+"="+nodes)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.WaitDelay = time.Second // a command that outlives the tool has its stdout
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state says more
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("redlock %q:\n%s%s", args, &p.stdout, &p.stderr)
		}
	})
	return p
}

// says waits until the process has written text to stdout.
func (p *process) says(text string) {
	p.t.Helper()
	eventually.True(p.t, "it says "+text, func() bool { return strings.Contains(p.stdout.String(), text) })
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// code waits for the end, and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(eventually.Soon):
		p.t.Fatal("the tool does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// use runs the tool to its end.
func use(t *testing.T, nodes string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := begin(t, nodes, args...)
	code = p.code()
	return code, p.stdout.String(), p.stderr.String()
}

// list is the servers as -nodes takes them.
func list(servers []*redistest.Server) string {
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr())
	}
	return strings.Join(addrs, ",")
}
