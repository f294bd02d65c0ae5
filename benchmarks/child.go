package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// inChild is the environment variable that tells this program that it is a process of a
// crew: see crew.go.
const inChild = "REDLOCK_BENCHMARKS_CHILD"

// job is the task of a process of a crew, which it reads as a line of JSON from its
// stdin. The process then writes ready to its stdout, waits for another line, works until
// its stdin is closed, and writes its turns as JSON.
type job struct {
	Peer       string
	Deployment deployment
	Key        string
	Hold       time.Duration
}

// turn is one hold of the lock by a process. The times are those of the wall clock, in
// ns: all processes are on one machine, and read the same clock.
type turn struct {
	Asked   int64  // before the call that acquires
	Inside  int64  // after it; 0 if the call had not returned when the work ended
	Leaving int64  // before the call that releases
	Failure string `json:",omitempty"` // of the release
}

// child is the main function of a process of a crew.
func child() {
	if err := work(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(stdin io.Reader, stdout io.Writer) (err error) {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name == j.Peer })
	if i < 0 {
		return fmt.Errorf("no such peer: %q", j.Peer)
	}
	l, err := peers[i].open(ctx, j.Deployment)
	if err != nil {
		return fmt.Errorf("open %s: %w", j.Peer, err)
	}
	// Connections are made and scripts loaded before any child reports that it is ready.
	if err := l.Cycle(ctx, fmt.Sprintf("%s:%d", j.Key, os.Getpid())); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, ready); err != nil {
		return err
	}
	if _, err := in.ReadBytes('\n'); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	turns, err := takeTurns(ctx, l.(waiter), j.Key, j.Hold)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("close %s: %w", j.Peer, err)
	}
	return json.NewEncoder(stdout).Encode(turns)
}

const ready = "ready"

// takeTurns waits for the lock, holds and releases it, again and again until
// ctx ends.
func takeTurns(ctx context.Context, w waiter, key string, hold time.Duration) ([]turn, error) {
	var turns []turn
	for ctx.Err() == nil {
		t := turn{Asked: time.Now().UnixNano()}
		lock, err := w.Wait(ctx, key)
		if err != nil {
			if ctx.Err() == nil {
				return nil, fmt.Errorf("wait: %w", err)
			}
			return append(turns, t), nil
		}
		t.Inside = time.Now().UnixNano()
		time.Sleep(hold)
		t.Leaving = time.Now().UnixNano()
		if err := lock.Release(context.WithoutCancel(ctx)); err != nil {
			t.Failure = err.Error() // the machine is busy: the failure is reported, and the measurement goes on
		}
		turns = append(turns, t)
	}
	return turns, nil
}
