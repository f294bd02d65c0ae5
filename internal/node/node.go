// Package node is one Redis deployment as a voter: it acquires, extends and
// releases claims, keeps the number of calls in flight bounded, and sees to it
// that whatever a claim leaves behind is released.
package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// How many calls may be in flight to one node, by kind: those who wait for
	// a lock must not keep one that is held from being extended. Releases have
	// more room, to take back what was sent.
	maxAcquisitions = 256
	maxExtensions   = 128
	maxReleases     = 512
	// maxBatch caps one pipeline. rueidis sends pipelines of 2000 and more on
	// another connection, where they overtake.
	maxBatch = 256
)

var (
	errOwned  = errors.New("held by another owner")
	errGone   = errors.New("the key was gone; it is set again, and counts from the next extension on")
	errNoKey  = errors.New("not held here")
	errNoSend = unasked{errNoKey}
	errClosed = unasked{errors.New("the node is closed")}
	errEnded  = unasked{errors.New("not sent: the lock has ended")}
)

// Node is one voter. Its methods block until the Store answers; they are to be
// called on goroutines that nobody waits for without a timer of his own.
type Node struct {
	name  string
	index int
	store Store

	// ctx is that of all calls. It has Done and no deadline: with a deadline
	// rueidis may close a connection in synchronous mode, and leave a key
	// behind; without one it only abandons the wait.
	ctx  context.Context
	stop context.CancelFunc

	acquisitions, extensions, releases gate

	mu     sync.Mutex // guards what follows
	closed bool
	calls  int // acquisitions and extensions, in flight or waiting to be
	// releasing are the claims whose release has begun, other than of debts, and
	// whether it must be followed by another.
	releasing map[*Claim]bool
	debts     []debt
	owing     error // why the last debts could not be paid
	settling  bool
	idle      sync.Cond      // signalled when nothing is in flight or owed
	running   sync.WaitGroup // the goroutines of the node's own
}

// New is the voter with the given index of its panel, 0 ≤ index < MaxNodes.
func New(index int, name string, store Store) *Node {
	n := &Node{
		name: name, index: index, store: store, releasing: make(map[*Claim]bool),
		acquisitions: gate{most: maxAcquisitions},
		extensions:   gate{most: maxExtensions},
		releases:     gate{most: maxReleases},
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.idle.L = &n.mu
	return n
}

// Name is what errors call the node.
func (n *Node) Name() string { return n.name }

// Check says why a lock over these keys can never be taken here, if so.
func (n *Node) Check(keys []string) error { return n.store.Check(keys) }

// Acquire asks for all of the claim's keys.
func (n *Node) Acquire(c *Claim, ttl time.Duration) quorum.Reply {
	if err := n.begin(); err != nil {
		return quorum.Reply{Vote: quorum.Failed, Err: err}
	}
	defer n.end()
	if err := n.acquisitions.enter(n.ctx, c); err != nil {
		return quorum.Reply{Vote: quorum.Failed, Err: err}
	}
	defer n.acquisitions.leave()
	if !c.send(n.index, ttl) {
		return quorum.Reply{Vote: quorum.Failed, Err: errEnded}
	}
	granted, err := n.store.Acquire(n.ctx, c.Keys, c.Token, ttl)
	switch {
	case err != nil:
		if errors.Is(err, ErrNotRun) {
			c.untrace(n.index)
		}
		n.settleIfEnded(c)
		return quorum.Reply{Vote: quorum.Failed, Err: err}
	case !granted:
		c.untrace(n.index) // the token is fresh: whoever holds it, it is not us
		return quorum.Reply{Vote: quorum.Refused, Err: errOwned}
	}
	n.settleIfEnded(c)
	return quorum.Reply{Vote: quorum.Granted}
}

// Extend asks to extend the claim.
func (n *Node) Extend(c *Claim, ttl time.Duration) quorum.Reply {
	if err := n.extensions.enter(n.ctx, c); err != nil {
		return quorum.Reply{Vote: quorum.Failed, Err: err}
	}
	defer n.extensions.leave()
	return n.ExtendAll([]Extension{{Claim: c, TTL: ttl}})[0]
}

// ExtendAll asks to extend the claims, one pipeline for at most maxBatch of
// them. A claim that has ended is not sent. Of those who call it, each has one
// call in flight: there is no bound.
func (n *Node) ExtendAll(batch []Extension) []quorum.Reply {
	replies := make([]quorum.Reply, len(batch))
	if err := n.begin(); err != nil {
		for i := range replies {
			replies[i] = quorum.Reply{Vote: quorum.Failed, Err: err}
		}
		return replies
	}
	defer n.end()
	for from := 0; from < len(batch); from += maxBatch {
		to := min(from+maxBatch, len(batch))
		n.extend(batch[from:to], replies[from:to])
	}
	return replies
}

func (n *Node) extend(batch []Extension, replies []quorum.Reply) {
	sent := make([]Extension, 0, len(batch))
	at := make([]int, 0, len(batch))
	for i, e := range batch {
		if e.Claim.send(n.index, e.TTL) {
			sent, at = append(sent, e), append(at, i)
		} else {
			replies[i] = quorum.Reply{Vote: quorum.Failed, Err: errEnded}
		}
	}
	if len(sent) == 0 {
		return
	}
	n.store.Extend(n.ctx, sent)
	for j, e := range sent {
		switch e.Outcome {
		case Extended:
			replies[at[j]] = quorum.Reply{Vote: quorum.Granted}
		case Refilled: // never counted (invariants 3 and 6)
			replies[at[j]] = quorum.Reply{Vote: quorum.Refused, Err: errGone}
		case Taken: // the trace stays: of several keys some may be ours
			replies[at[j]] = quorum.Reply{Vote: quorum.Refused, Err: errOwned}
		case Unknown:
			replies[at[j]] = quorum.Reply{Vote: quorum.Failed, Err: e.Err}
			if errors.Is(e.Err, ErrNotRun) {
				e.Claim.untrace(n.index)
			}
		}
		n.settleIfEnded(e.Claim)
	}
}

// Release deletes what the claim holds here. The claim must have ended. What
// fails is tried again in the background for as long as the key can live.
// The vote is a refusal where there was nothing to delete.
func (n *Node) Release(c *Claim) quorum.Reply {
	if !c.traced(n.index) {
		return quorum.Reply{Vote: quorum.Refused, Err: errNoSend}
	}
	n.mu.Lock()
	begun := n.beginRelease(c)
	n.mu.Unlock()
	if !begun {
		return quorum.Reply{Vote: quorum.Failed, Err: errClosed}
	}
	return n.release(c)
}

// Abandon is Release in the background. When it returns, Close knows of it. One
// that is too many becomes a debt, and is released together with others.
func (n *Node) Abandon(c *Claim) {
	if !c.traced(n.index) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch full := len(n.releasing) >= maxReleases; {
	case !n.beginRelease(c):
	case full:
		delete(n.releasing, c)
		n.owe(c)
	default:
		n.running.Go(func() { n.release(c) })
	}
}

// beginRelease enters a release. It reports false if the node is closed. n.mu is
// held.
func (n *Node) beginRelease(c *Claim) bool {
	if bit := uint64(1) << n.index; c.released.Or(bit)&bit != 0 || n.closed {
		return false
	}
	n.releasing[c] = false
	return true
}

func (n *Node) release(c *Claim) quorum.Reply {
	batch := []Deletion{{Claim: c}}
	if err := n.releases.enter(n.ctx, nil); err != nil {
		batch[0].Err = err
	} else {
		n.store.Release(n.ctx, batch)
		n.releases.leave()
	}
	deleted, err := batch[0].Deleted, batch[0].Err
	n.mu.Lock()
	defer n.mu.Unlock()
	if deleted == len(c.Keys) {
		// The acquisition, of which there is one, can leave none any more, even
		// if its answer is still on its way. An extension can.
		c.untrace(n.index)
	}
	if n.releasing[c] || err != nil {
		n.owe(c)
	}
	delete(n.releasing, c)
	n.idle.Broadcast()
	switch {
	case err != nil:
		return quorum.Reply{Vote: quorum.Failed, Err: err}
	case deleted < len(c.Keys):
		return quorum.Reply{Vote: quorum.Refused, Err: errNoKey}
	}
	return quorum.Reply{Vote: quorum.Granted}
}

func (n *Node) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errClosed
	}
	n.calls++
	return nil
}

func (n *Node) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls--
	n.idle.Broadcast()
}

// Close waits until nothing is in flight or owed, but no longer than timeout,
// then ends every call and closes what the Store owns. The error says what was
// not settled.
func (n *Node) Close(timeout time.Duration) error {
	expired := false
	timer := time.AfterFunc(timeout, func() {
		n.mu.Lock()
		expired = true
		n.mu.Unlock()
		n.idle.Broadcast()
	})
	n.mu.Lock()
	busy := func() bool { return n.calls > 0 || len(n.releasing) > 0 || n.settling }
	for busy() && !expired {
		n.idle.Wait()
	}
	var err error
	switch {
	case busy() && n.owing != nil:
		err = fmt.Errorf("keys not released within %v: %w", timeout, n.owing)
	case busy():
		err = fmt.Errorf("%w within %v", quorum.ErrNoReply, timeout)
	}
	n.closed = true
	n.mu.Unlock()
	timer.Stop()
	n.stop()
	n.store.Close()
	n.running.Wait()
	return err
}
