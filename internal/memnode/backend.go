// Package memnode implements node.Backend in memory, with faults on request. It is for
// redlocktest, and for tests in virtual time, where real sockets cannot be used.
package memnode

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// Backend is one node. Its zero value is an empty node without faults.
type Backend struct {
	// Rate, if set, is the speed of the node's clock; 1 is exact.
	Rate float64
	// With Mute the answer to a plain acquisition does not name the key's owner, as on
	// servers before Redis 7.0.
	Mute bool
	// With PerKey a Locker has a channel for each key that it waits for, as on a Cluster.
	PerKey bool

	mu      sync.Mutex // guards what follows
	fault   func(op Op, commands int) Fault
	keys    map[string]entry
	queues  map[string][]*waiter       // by key, in order
	heard   map[string]func(node.Push) // by channel
	push    func() (delay time.Duration, lost bool)
	resumed chan struct{} // non-nil while paused; closed on resume
	down    bool
	outages int // calls of Down

	counters map[string]counter
	marked   bool      // the restart guard's marker exists
	since    time.Time // when the quarantine began, by the marker
}

type entry struct {
	token   string
	expires time.Time
}

var _ node.Backend = (*Backend)(nil)

// Do implements node.Backend. One fault applies to the whole pipeline.
func (b *Backend) Do(ctx context.Context, batch []node.Command) error {
	var f Fault
	b.mu.Lock()
	fault, down, outages := b.fault, b.down, b.outages
	b.mu.Unlock()
	if fault != nil {
		f = fault(ops[batch[0].Kind], len(batch))
	}
	f.Refuse = f.Refuse || down
	// The pipeline may outlive this call, as one on a real connection does when
	// ctx has ended: it works on a copy.
	commands := slices.Clone(batch)
	err := b.call(ctx, f, outages, func() {
		for i := range commands {
			if c := &commands[i]; c.Outcome == node.Unknown {
				c.Outcome = b.run(c)
			} else { // the answer of a duplicate is lost
				again := *c
				b.run(&again)
			}
		}
	})
	for i := range batch {
		if batch[i].Err = err; err == nil {
			c := commands[i]
			batch[i].Outcome, batch[i].Err, batch[i].Held, batch[i].Owner, batch[i].Fence = c.Outcome, c.Err, c.Held, c.Owner, c.Fence
			batch[i].Rank = c.Rank
		}
	}
	if errors.Is(err, node.ErrNotConnected) {
		return err
	}
	return nil // the breaker would hide the effect of other faults
}

// call runs run on the node, with the fault. outages is their number when the call began: the
// next outage breaks the call off.
func (b *Backend) call(ctx context.Context, f Fault, outages int, run func()) error {
	switch {
	case f.Refuse:
		return node.NotConnected(ErrDown)
	case f.NotRun:
		return node.NotRun(ErrDown)
	}
	lost := f.LoseRequest || f.LoseReply // read when done is closed
	done := make(chan struct{})
	go func() { // as on a real connection, a request that was sent runs even if ctx has ended
		defer close(done)
		time.Sleep(f.Request)
		if f.LoseRequest {
			return
		}
		if !b.whenResumed(outages, run) {
			lost = true
			return
		}
		time.Sleep(f.Reply)
		if f.Twice {
			b.whenResumed(outages, run)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if lost {
		return ErrLost
	}
	return nil
}

// whenResumed runs run with the Backend locked, once the node is not paused. outages is
// their number when the call began: whenResumed reports false if there has been one
// since. It releases the mutex while it waits.
func (b *Backend) whenResumed(outages int, run func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.resumed != nil {
		resumed := b.resumed
		b.mu.Unlock()
		<-resumed
		b.mu.Lock()
	}
	if b.outages > outages {
		return false
	}
	run()
	return true
}

func (b *Backend) run(c *node.Command) node.Outcome {
	switch c.Kind {
	case node.Acquire:
		return b.acquire(c)
	case node.Extend:
		return b.extend(c)
	case node.Leave:
		return b.leave(c)
	case node.Join:
		return b.join(c)
	case node.Confirm:
		return b.confirm(c)
	case node.Trust:
		b.trust()
		return node.Done
	case node.Ping:
		return node.Done
	case node.Look:
		return b.look(c)
	case node.Read:
		return b.read(c)
	}
	return b.release(c)
}

// Server implements node.Backend: there is one.
func (b *Backend) Server([]string) string { return "" }

// Channels implements node.Backend.
func (b *Backend) Channels() node.Channels {
	if b.PerKey {
		return node.ChannelPerKey
	}
	return node.ChannelPerLocker
}

// Samples implements node.Backend: there is one server.
func (b *Backend) Samples() []string { return []string{"k"} }

// Check implements node.Backend: every set of keys is accepted.
func (b *Backend) Check([]string) error { return nil }

// Close implements node.Backend.
func (b *Backend) Close() {}
