package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/internal/testkit/syncbuf"
)

// session is a shell with a terminal of its own, and with job control.
type session struct {
	t        *testing.T
	keyboard *os.File
	screen   syncbuf.Buffer
	done     chan struct{}
}

func openSession(t *testing.T, nodes, script string) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer slave.Close()

	shell := exec.Command("sh", "-c", "set -m; "+script)
	shell.Env = append(os.Environ(), nodesVariable+"="+nodes)
	shell.Stdin, shell.Stdout, shell.Stderr = slave, slave, slave
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, shell.Start())
	s := &session{t: t, keyboard: master, done: make(chan struct{})}
	go func() {
		_, _ = master.WriteTo(&s.screen) // it fails when the last one has closed the terminal
	}()
	go func() {
		defer close(s.done)
		_ = shell.Wait()
	}()
	t.Cleanup(func() {
		_ = shell.Process.Kill()
		<-s.done
		master.Close()
		if t.Failed() {
			t.Logf("on the screen:\n%s", &s.screen)
		}
	})
	return s
}

func (s *session) shows(text string) {
	s.t.Helper()
	eventually.True(s.t, "the screen shows "+text, func() bool { return strings.Contains(s.screen.String(), text) })
}

func (s *session) types(text string) {
	s.t.Helper()
	_, err := s.keyboard.WriteString(text)
	require.NoError(s.t, err)
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

func TestTheCommandReadsFromTheTerminalAndTheShellGetsItBack(t *testing.T) {
	s := openSession(t, redistest.Start(t).Addr(),
		tool+` run k -- sh -c 'read line; echo "the command got $line"'; read line; echo "the shell got $line"`)
	s.types("one\n")
	s.shows("the command got one")
	s.types("two\n")
	s.shows("the shell got two")
}

func TestCtrlCEndsTheCommand(t *testing.T) {
	s := openSession(t, redistest.Start(t).Addr(),
		tool+` run k -- sh -c 'trap "exit 9" INT; `+idle+`'; echo "the tool exited with $?"`)
	s.shows("runs")
	s.types(ctrlC)
	s.shows("the tool exited with 9")
}

func TestCtrlZStopsTheCommandAndItGoesOnWithTheLock(t *testing.T) {
	s := openSession(t, redistest.Start(t).Addr(),
		tool+` run -ttl 1h k -- sh -c 'echo "group $$."; read line; echo "the command got $line"'; echo "stopped with $?"; fg; echo "ended with $?"`)
	s.shows(".")
	var group int
	_, err := fmt.Sscanf(s.screen.String(), "group %d.", &group)
	require.NoError(t, err)
	eventually.True(t, "the command has the terminal", func() bool {
		now, err := unix.IoctlGetInt(int(s.keyboard.Fd()), unix.TIOCGPGRP)
		return err == nil && now == group
	})
	// It was stopped when it first read. The SIGCONT that ends this would discard a stop that
	// is still to be delivered.
	eventually.True(t, "it reads", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", group))
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && strings.HasPrefix(state, "S")
	})
	s.types(ctrlZ)
	s.shows("stopped with ")
	s.types("one\n")
	s.shows("the command got one")
	s.shows("ended with 0")
}

func TestACommandThatWasStoppedForTooLongDoesNotGoOn(t *testing.T) {
	nodes := redistest.Start(t).Addr()
	log := filepath.Join(t.TempDir(), "log")
	s := openSession(t, nodes, fmt.Sprintf(
		`%s run -ttl 1s k -- sh -c 'trap "" TERM; echo tick > %s; echo runs; while :; do echo tick >> %s; sleep 0.01; done'; echo stopped; read line; fg; echo "ended with $?"`, tool, log, log))
	s.shows("runs")
	s.types(ctrlZ)
	s.shows("stopped")
	code, _, _ := use(t, nodes, "run", "-wait", "forever", "k", "--", "true")
	require.Zero(t, code, "the lock has expired")
	before, err := os.ReadFile(log)
	require.NoError(t, err)
	s.types("\n")
	s.shows("ended with 70")
	after, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, len(before), len(after))
}
