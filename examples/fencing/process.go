//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// process is a teller: another process of this program.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner // what it says
	hand  io.WriteCloser // its stdin
}

// start starts a process that is killed when ctx ends.
func start(ctx context.Context, t teller) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, tellerArg, string(arg))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, bufio.NewScanner(stdout), stdin}, cmd.Start()
}

var errEnded = errors.New("ended before it had read the account")

// read waits until the teller has read the account, and prints the teller's lines. A slow
// teller then waits for end.
func (p *process) read(say func(string)) error {
	if !p.lines.Scan() {
		return errors.Join(errEnded, p.lines.Err(), p.cmd.Wait())
	}
	say(p.lines.Text())
	return nil
}

// signal stops the process, or has it continue.
func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// end lets the teller write, and waits for the end of the process.
func (p *process) end(say func(string)) error {
	if _, err := io.WriteString(p.hand, "\n"); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	for p.lines.Scan() {
		say(p.lines.Text())
	}
	return errors.Join(p.lines.Err(), p.cmd.Wait())
}

// kill ends the process if an error has left it running.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails if it has ended
	_ = p.cmd.Wait()         // the same
}
