//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal is the one that the tool was started from.
//
// The command has a process group of its own, so it may neither read from the terminal
// nor stop with the tool on its own. The kernel stops it when it tries to read, and then
// the tool lends it the terminal. When Ctrl-Z stops it, the tool stops too, as one job, and
// the tool alone continues it: if the lock is still valid.
type terminal struct {
	file *os.File
	lent bool
}

// yield reacts to the command's stop: it lends the terminal to the command, or stops the
// tool with it. It reports whether the command may go on now.
func (c *child) yield(by os.Signal) bool {
	wants := by == syscall.SIGTTIN || by == syscall.SIGTTOU
	if !wants && by != syscall.SIGTSTP {
		return false // another process stopped it, as with SIGSTOP
	}
	if c.terminal == nil {
		file, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return false
		}
		c.terminal = &terminal{file: file}
	}
	t := c.terminal
	if wants && t.lend(c.pid) {
		return true
	}
	if !isJob() { // no shell would let the tool go on
		return !wants
	}
	wants = wants || t.lent
	t.takeBack()
	stopWithJob()
	if wants {
		t.lend(c.pid)
	}
	return true
}

// lend makes the group the one in the foreground. It reports false if the tool is not
// there itself.
func (t *terminal) lend(group int) bool {
	if now, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP); err != nil || now != unix.Getpgrp() {
		return false
	}
	t.lent = t.give(group)
	return t.lent
}

// takeBack ends lend.
func (t *terminal) takeBack() {
	if t != nil && t.lent {
		t.lent = false
		t.give(unix.Getpgrp())
	}
}

func (t *terminal) give(group int) bool {
	// The kernel would stop a process in the background that does this.
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	return unix.IoctlSetPointerInt(int(t.file.Fd()), unix.TIOCSPGRP, group) == nil
}

// leave gives the terminal back to the tool, and so to the next process that uses it.
func (c *child) leave() { c.terminal.takeBack() }

// isJob reports whether the tool's process group is the job of a shell, which can stop
// and continue it.
func isJob() bool {
	session, err := unix.Getsid(0)
	return err == nil && session != unix.Getpgrp() && unix.Kill(session, 0) == nil
}

// stopWithJob stops the tool's process group, as Ctrl-Z does, and returns when it has
// been continued.
func stopWithJob() {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	// Not SIGTSTP: the tool has a handler for that, which signal.Reset does not take away.
	_ = syscall.Kill(0, syscall.SIGSTOP)
	<-continued
}
