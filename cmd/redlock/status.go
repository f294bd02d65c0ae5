package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"github.com/urfave/cli/v3"

	"github.com/redis-kit/redlock/internal/node"
)

func statusCommand() *cli.Command {
	return leaf(&cli.Command{
		Name:        "status",
		Usage:       "show on which nodes the lock on KEY is held, for how long and by whom",
		UsageText:   "redlock status [options] KEY",
		Description: "The exit code is 0 whether the lock is held or not, and 69 if no quorum answered.",
		Flags:       []cli.Flag{jsonFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() != 1 || c.Args().First() == "" {
				return usagef("status: %d arguments: the form is redlock status [options] KEY", c.NArg())
			}
			key, deployments, g, err := readSubject(c)
			if err != nil {
				return err
			}
			return show(c, readStatus(ctx, key, deployments, g))
		},
	})
}

// status is what the nodes say about a key. docs/cli.md documents the JSON.
type status struct {
	Key    string       `json:"key"`
	State  string       `json:"state"` // "held", "free" or "unknown"
	Quorum int          `json:"quorum"`
	Nodes  []nodeStatus `json:"nodes"`
}

// nodeStatus is what one node says. It has the token's metadata and not the token: a reader
// of the token could release the lock.
type nodeStatus struct {
	Node   string `json:"node"`
	Held   bool   `json:"held"`
	TTLms  *int64 `json:"ttl_ms,omitempty"` // none if the key is not held, or never expires
	Fence  int64  `json:"fence,omitempty"`  // the last that the node counted for the key; none if it counts none
	Holder string `json:"holder,omitempty"` // the holder's metadata; none if the holder has set none
	Error  string `json:"error,omitempty"`
	// How much longer the node does not vote, by the restart guard that the tool was given.
	Quarantine int64 `json:"quarantine_ms,omitempty"`
}

// answerTime bounds the wait for a node's answer.
const answerTime = 3 * time.Second

func readStatus(ctx context.Context, key string, deployments []deployment, g restartGuard) status {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s := status{Key: key, Quorum: len(deployments)/2 + 1, Nodes: make([]nodeStatus, len(deployments))}
	var asking sync.WaitGroup
	for i, d := range deployments {
		asking.Go(func() { s.Nodes[i] = d.status(ctx, key, g) })
	}
	asking.Wait()
	held, free := 0, 0
	for _, n := range s.Nodes {
		switch {
		case n.Error != "":
		case n.Held:
			held++
		case n.Quarantine > 0: // it may have forgotten the holder of the key
		default:
			free++
		}
	}
	switch {
	case held >= s.Quorum:
		s.State = "held"
	case free > len(s.Nodes)-s.Quorum: // so no quorum can hold it
		s.State = "free"
	default:
		s.State = "unknown"
	}
	return s
}

func (d deployment) status(ctx context.Context, key string, g restartGuard) nodeStatus {
	n := nodeStatus{Node: d.name}
	client, err := d.dial()
	if err != nil {
		n.Error = err.Error()
		return n
	}
	defer client.Close()
	left, err := client.Do(ctx, client.B().Pttl().Key(key).Build()).AsInt64()
	switch {
	case err != nil:
		n.Error = err.Error()
		if answer, ok := rueidis.IsRedisErr(err); ok && d.kind() == single {
			if _, moved := answer.IsMoved(); moved {
				n.Error += ": this is a Cluster: add ?cluster=true to its URL"
			}
		}
	case left >= 0:
		n.Held, n.TTLms = true, &left
	case left == -1:
		n.Held = true
	}
	if n.Error != "" {
		return n
	}
	if g.set() {
		quarantine, err := g.ask(ctx, client)
		if err != nil {
			return nodeStatus{Node: d.name, Error: fmt.Sprintf("restart guard: %v", err)}
		}
		n.Quarantine = quarantine.Milliseconds()
	}
	if token, err := client.Do(ctx, client.B().Get().Key(key).Build()).ToString(); err == nil {
		n.Holder = node.Metadata(token)
	}
	if fence, err := client.Do(ctx, client.B().Get().Key(node.Companion(key, node.Fence)).Build()).AsInt64(); err == nil {
		n.Fence = fence
	}
	return n
}

func (s status) print(w io.Writer) error {
	rows := [][]string{{"NODE", "KEY", "EXPIRES IN", "FENCE", "HOLDER"}}
	held := 0
	for _, n := range s.Nodes {
		row := []string{n.Node, "free", "-", "-", cmp.Or(n.Holder, "-")}
		if n.Fence > 0 {
			row[3] = strconv.FormatInt(n.Fence, 10)
		}
		switch {
		case n.Error != "":
			row = []string{n.Node, "unknown", n.Error}
		case n.TTLms != nil:
			row[1], row[2] = "held", (time.Duration(*n.TTLms) * time.Millisecond).String()
		case n.Held:
			row[1], row[2] = "held", "never: this is no lock of redlock's"
		}
		if n.Held {
			held++
		} else if n.Quarantine > 0 {
			row[1] = "unknown"
		}
		if n.Quarantine > 0 {
			row[4] += fmt.Sprintf(" (in quarantine for %v)", time.Duration(n.Quarantine)*time.Millisecond)
		}
		rows = append(rows, row)
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%q is %s: on %d of %d nodes, %d needed\n", s.Key, s.State, held, len(s.Nodes), s.Quorum)
	return err
}

// err returns the error for a key about which too few nodes answered.
func (s status) err() error {
	if s.State != "unknown" {
		return nil
	}
	return exitError{exitNoQuorum, fmt.Errorf("status %q: too few of the nodes that may vote answered", s.Key)}
}
