//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// child is the command: a process that leads a group of its own.
type child struct {
	pid      int
	changes  chan change
	terminal *terminal // nil before it was needed
}

// change is a change of a child's state: it was stopped, or it has ended.
type change struct {
	stopped os.Signal // the signal that stopped it; nil: it has ended
	code    int       // the code that the tool exits with
	how     string    // it ended
}

// start runs a program, with the tool's own stdin, stdout and stderr.
func start(program string, args, env []string) (*child, error) {
	cmd := &exec.Cmd{
		Path: program, Args: args, Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	dieWithTool(cmd.SysProcAttr)
	c := &child{changes: make(chan change)}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that starts the child. So this
		// thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			c.pid = cmd.Process.Pid
			_ = cmd.Process.Release() // watch waits for it, for its stops too
		}
		started <- err
		if err == nil {
			c.watch()
		}
	}()
	return c, <-started
}

// watch sends the child's changes until the child has ended.
func (c *child) watch() {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(c.pid, &status, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			c.changes <- change{code: 1, how: fmt.Sprintf("unknown: %v", err)}
			return
		case status.Stopped():
			c.changes <- change{stopped: status.StopSignal()}
		case status.Signaled():
			c.changes <- change{code: exitSignal + int(status.Signal()), how: fmt.Sprintf("signal %d (%v)", status.Signal(), status.Signal())}
			return
		default:
			c.changes <- change{code: status.ExitStatus(), how: fmt.Sprintf("exit code %d", status.ExitStatus())}
			return
		}
	}
}

// signal passes a signal on to the group.
func (c *child) signal(s os.Signal) {
	_ = syscall.Kill(-c.pid, s.(syscall.Signal)) // fails only if the group is empty
}

// terminate asks the group to stop. It reports whether that is possible.
func (c *child) terminate() bool {
	c.signal(syscall.SIGTERM)
	c.resume()
	return true
}

// resume continues the group if it was stopped.
func (c *child) resume() { c.signal(syscall.SIGCONT) }

// kill ends the group.
func (c *child) kill() { c.signal(syscall.SIGKILL) }

// catch returns the signals that are meant for the command. Those that were ignored when
// the tool was started, as under nohup, stay ignored: for the tool and for the command.
func catch() chan os.Signal {
	signals := make(chan os.Signal, 16)
	for _, s := range []syscall.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP,
	} {
		if ignoredAtStart(s) {
			signal.Ignore(s)
		} else {
			signal.Notify(signals, s)
		}
	}
	return signals
}

// ends reports whether the signal ends the wait for a lock.
func ends(s os.Signal) bool {
	switch s {
	case syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP:
		return false
	}
	return true
}
