package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

// child is the command: one process. Those that it starts are not ended with it.
type child struct {
	process *os.Process
	changes chan change
}

// change is a change of a child's state: here only its end.
type change struct {
	stopped os.Signal // nil: it has ended; nothing else happens here
	code    int       // the code that the tool exits with
	how     string    // it ended
}

// start runs a program, with the tool's own stdin, stdout and stderr.
func start(program string, args, env []string) (*child, error) {
	cmd := &exec.Cmd{
		Path: program, Args: args, Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{process: cmd.Process, changes: make(chan change)}
	go func() {
		_ = cmd.Wait() // the state says more
		code := cmd.ProcessState.ExitCode()
		c.changes <- change{code: code, how: fmt.Sprintf("exit code %d", code)}
	}()
	return c, nil
}

// signal passes nothing on: the console sends Ctrl-C to the command too.
func (c *child) signal(os.Signal) {}

// terminate reports that a process cannot be asked to stop here: there is no SIGTERM.
func (c *child) terminate() bool { return false }

// yield, resume and leave have nothing to do: Windows does not stop processes, and all
// processes share the console.
func (c *child) yield(os.Signal) bool { return true }
func (c *child) resume()              {}
func (c *child) leave()               {}

// kill ends the process.
func (c *child) kill() { _ = c.process.Kill() } // fails only if it has ended

// catch returns the signals that are meant for the command.
func catch() chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt)
	return signals
}

// ends reports whether the signal ends the wait for a lock.
func ends(os.Signal) bool { return true }
