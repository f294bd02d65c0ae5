package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// crew is processes of this program that all do the same job.
type crew []*hand

// hand is one process of a crew.
type hand struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// startCrew starts n processes, and returns when all are ready. They end when the host
// does, at the latest.
func startCrew(ctx context.Context, h *host, n int, j job) (crew, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	var c crew
	for range n {
		p := &hand{cmd: exec.CommandContext(ctx, program)}
		p.cmd.Env = append(os.Environ(), inChild+"=1")
		p.cmd.Stderr = &p.stderr
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		stdout, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		p.stdout = bufio.NewReader(stdout)
		if err := p.cmd.Start(); err != nil {
			return nil, err
		}
		h.Cleanup(func() {
			_ = p.cmd.Process.Kill() // it may have ended
			_ = p.cmd.Wait()
		})
		c = append(c, p)
		if err := p.say(text); err != nil {
			return nil, err
		}
	}
	for _, p := range c {
		if line, err := p.stdout.ReadString('\n'); err != nil || strings.TrimSpace(line) != ready {
			return nil, p.failed(err)
		}
	}
	return c, nil
}

// begin starts the work of all processes.
func (c crew) begin() error {
	for _, p := range c {
		if err := p.say(nil); err != nil {
			return err
		}
	}
	return nil
}

// end stops all processes, and returns the turns of each.
func (c crew) end() ([][]turn, error) {
	for _, p := range c {
		if err := p.stdin.Close(); err != nil {
			return nil, p.failed(err)
		}
	}
	all := make([][]turn, len(c))
	for i, p := range c {
		if err := json.NewDecoder(p.stdout).Decode(&all[i]); err != nil {
			return nil, p.failed(err)
		}
	}
	return all, nil
}

func (p *hand) say(line []byte) error {
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return p.failed(err)
	}
	return nil
}

// failed returns the error of a process, with the text that the process wrote to stderr, if any.
func (p *hand) failed(err error) error {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // after which stderr is complete
	if said := strings.TrimSpace(p.stderr.String()); said != "" {
		return fmt.Errorf("process %d: %s", p.cmd.Process.Pid, said)
	}
	return errors.Join(fmt.Errorf("process %d ended, or said something else than expected", p.cmd.Process.Pid), err)
}
