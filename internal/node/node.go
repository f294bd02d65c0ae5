// Package node makes a voter of one Redis deployment: it acquires, extends and
// releases claims, and releases whatever a claim may have left behind.
//
// Commands are queued, and leave in pipelines. A dispatcher per server takes what
// has gathered while the last pipeline was under way. That makes the library fast
// under load: with 128 callers a pipeline carries dozens of commands, for one write,
// one read and one wake-up of each goroutine on the way. See server.go.
package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// MaxNodes is the most nodes that can vote on one question.
const MaxNodes = 64

var (
	errOwned  = &Owned{}
	errGone   = errors.New("the key was gone; it is set again, and counts from the next extension on")
	errNoKey  = errors.New("not held here")
	errNoSend = unasked(errNoKey)
	errClosed = unasked(errors.New("the node is closed"))
	errEnded  = unasked(errors.New("not sent: the lock has ended"))
	errWaited = errors.New("others may wait")
	// Not unasked: the node was to be asked, and could not be in time.
	errOverdue = NotRun(errors.New("not sent in time"))
)

func unasked(err error) error { return marked{err, ErrUnasked} }

// Voter is told what becomes of one command. Its methods are called without any
// lock of the Node's, and must not block for long: other commands' votes wait.
type Voter interface {
	// Sent is called when the command leaves the queue. It may never be called.
	Sent(node int, sent quorum.Progress)
	// Cast is called once, with the node's reply.
	Cast(node int, reply quorum.Reply)
}

// Joiner is told what becomes of a Join.
type Joiner interface {
	// Joined is called once, with the command and its outcome, as a Voter's Cast is.
	// Done means that the node grants the claim, as of the sending of this command.
	Joined(node int, c *Command)
}

// Node is one voter. Its methods queue commands and do not wait for the server.
type Node struct {
	name    string
	index   int
	backend Backend
	queue   bool // releases of one key give it to those who wait for it

	// ctx is that of all calls. It has Done and no deadline: with a deadline
	// rueidis may close a connection in synchronous mode, and leave a key
	// behind; without one it only abandons the wait.
	ctx  context.Context
	stop context.CancelFunc

	// mu guards what follows, all of every server, this node's place of every
	// Claim, and every Slot. Nothing blocks while it is held, no Voter is
	// called, and no other lock is taken.
	mu      sync.Mutex
	servers map[string]*server
	started []*server // scratch of Extend
	closed  bool
	pending int       // commands that Close waits for: those in flight, and releases until they have succeeded
	idle    sync.Cond // signalled when nothing is pending

	running sync.WaitGroup // the goroutines of the node's own

	trip atomic.Int64 // of the server that answered last
}

// New returns the voter with the given index of its panel, 0 ≤ index < MaxNodes.
// With queue, a release of one key gives it to whoever is first in its queue, if
// the store can tell of that.
func New(index int, name string, backend Backend, queue bool) *Node {
	n := &Node{name: name, index: index, backend: backend, queue: queue && backend.CanPush(), servers: make(map[string]*server)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.idle.L = &n.mu
	return n
}

// Name is what errors call the node.
func (n *Node) Name() string { return n.name }

// Queues reports whether those who wait for a key stand in a queue here.
func (n *Node) Queues() bool { return n.queue }

// Check says why a lock over these keys can never be taken here, if so.
func (n *Node) Check(keys []string) error { return n.backend.Check(keys) }

// CheckCounters says why a lock over these keys can never have a fence here, if so.
func (n *Node) CheckCounters(keys []string) error {
	for _, key := range keys {
		if n.backend.Check([]string{key, Counter(key)}) != nil {
			return fmt.Errorf("key %q and its counter, %q, are in different slots of a Cluster: use a key without braces, or with a hash tag, such as {order:1}", key, Counter(key))
		}
	}
	return nil
}

// Acquire asks for all of the claim's keys. The command is dropped if the claim
// ends before it is sent.
func (n *Node) Acquire(c *Claim, ttl time.Duration, v Voter) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, voter: v})
}

// AcquireAgain is Acquire for a claim that has been asked for here before. It is granted
// where the claim has the keys already, and a refusal tells their owner.
func (n *Node) AcquireAgain(c *Claim, ttl time.Duration, v Voter) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, Script: true, voter: v})
}

// Read asks who owns the claim's keys: the vote is in favour if they are all free. It
// takes nothing.
func (n *Node) Read(c *Claim, v Voter) { n.ask(Command{Kind: Read, Claim: c, voter: v}) }

// Confirm asks to raise the counters of the claim's keys to fence, where the node
// holds the claim. The reply's Fence is what they are then.
func (n *Node) Confirm(c *Claim, fence int64, v Voter) {
	n.ask(Command{Kind: Confirm, Claim: c, Fence: fence, voter: v})
}

// ask queues a command for which a voter waits.
func (n *Node) ask(c Command) {
	name := n.backend.Server(c.Claim.Keys)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		c.voter.Cast(n.index, failed(errClosed))
		return
	}
	s := n.server(name)
	if err := s.refusal(); err != nil {
		n.mu.Unlock()
		c.voter.Cast(n.index, failed(err))
		return
	}
	dropped := s.push(c)
	n.mu.Unlock()
	n.cast(dropped)
}

// Extension is one request to extend a claim by TTL. Due is when that must have
// been done: what is due first is sent first, and what is overdue may be dropped.
type Extension struct {
	Pending *PendingExtension
	Claim   *Claim
	TTL     time.Duration
	Due     time.Time
	Voter   Voter
}

// Slot is the place of one claim in one node's queue of extensions. The zero
// Slot is ready for use, with one Node and one Claim.
type PendingExtension struct {
	queued Extension
	server *server // in whose queue it is, or was last
	index  int     // in the queue, from 1; 0 if it is not queued
}

// Extend asks to extend the claims, those that are given together in as few
// pipelines as they fit in. If the last request for a Slot has not been sent, the
// new one takes its place, and the voter of the last one is told nothing; so
// nothing gathers for a server that hangs. While a server is down extensions
// wait: it may be back in time.
func (n *Node) Extend(batch ...Extension) {
	var dropped []Command
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		for _, e := range batch {
			e.Voter.Cast(n.index, failed(errClosed))
		}
		return
	}
	for _, e := range batch {
		s, slot := n.server(n.backend.Server(e.Claim.Keys)), e.Pending
		if slot.index > 0 && slot.server != s { // its keys have moved meanwhile
			slot.server.extensions.remove(slot)
		}
		slot.queued, slot.server = e, s
		dropped = append(dropped, s.extensions.push(slot)...)
		n.started = append(n.started, s)
	}
	for _, s := range n.started {
		s.work(extending)
	}
	clear(n.started)
	n.started = n.started[:0]
	n.mu.Unlock()
	n.cast(dropped)
}

// Join enters the claim into the queue of its key, of which it has one, or renews
// its place. From then on the node may grant the claim its key, until the claim is
// released: it says so on the entry's channel, with the nonce, see Listen.
func (n *Node) Join(c *Claim, entry *Entry, nonce string, j Joiner) {
	command := Command{Kind: Join, Claim: c, Entry: entry, Nonce: nonce, joiner: j}
	name := n.backend.Server(c.Keys)
	n.mu.Lock()
	switch {
	case n.closed:
		command.Err = errClosed
	case !n.queue:
		command.Err = unasked(ErrNoPush)
	default:
		command.Err = n.server(name).refusal()
	}
	if command.Err != nil {
		n.mu.Unlock()
		j.Joined(n.index, &command)
		return
	}
	dropped := n.server(name).push(command)
	n.mu.Unlock()
	n.cast(dropped)
}

// Look asks whether anybody waits for the key of the claim, which holds it: the vote
// is in favour if nobody stands in its queue here. The command is dropped if the
// claim ends before it is sent.
func (n *Node) Look(c *Claim, v Voter) { n.ask(Command{Kind: Look, Claim: c, voter: v}) }

// Listen is the Store's.
func (n *Node) Listen(ctx context.Context, channel string, ready func(), heard func(Push)) error {
	return n.backend.Listen(ctx, channel, ready, heard)
}

// Release deletes what the claim holds here. The claim must have ended. What
// fails is tried again in the background until it succeeds or the keys have
// expired. It is a refusal where there was nothing to delete, and a failure
// where the release has begun before.
func (n *Node) Release(c *Claim, v Voter) {
	name := n.backend.Server(c.Keys)
	n.mu.Lock()
	vote, dropped := n.release(c, name, v)
	n.mu.Unlock()
	n.cast(dropped)
	if v != nil && vote.Vote != quorum.Pending {
		v.Cast(n.index, vote)
	}
}

// Abandon is Release for nobody who waits. When it returns, Close knows of it.
func (n *Node) Abandon(c *Claim) { n.Release(c, nil) }

// release queues a release. It returns a vote if there is one already, and what
// is dropped from the queue. n.mu is held.
func (n *Node) release(c *Claim, name string, v Voter) (vote quorum.Reply, dropped []Command) {
	p := &c.places[n.index]
	switch {
	case n.closed || p.release != notBegun:
		return failed(errClosed), nil
	case p.inFlight == 0 && !p.mayHold():
		return quorum.Reply{Vote: quorum.Refused, Err: errNoSend}, nil
	}
	s := n.server(name)
	command := Command{Kind: n.releaseOf(c), Claim: c, until: time.Now().Add(p.ttl), voter: v}
	if s.down != nil { // it waits for the server; nobody else has to
		command.voter, vote = nil, failed(s.down)
	}
	p.release = queued
	n.pending++
	return vote, s.push(command)
}

// releaseOf is the kind of command that releases a claim.
func (n *Node) releaseOf(c *Claim) Kind {
	if n.queue && len(c.Keys) == 1 {
		return Leave
	}
	return Release
}

// Trip is about the shortest round trip to the server that answered last, 0 if none has.
// It takes no lock.
func (n *Node) Trip() time.Duration { return time.Duration(n.trip.Load()) }

// Answers reports whether the server of the keys takes commands, as far as is known: it is
// not down, and not silent.
func (n *Node) Answers(keys []string) bool {
	name := n.backend.Server(keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server(name).refusal() == nil
}

// Unsent says of a command for the claim that is still queued since when nothing
// has been heard from its server, and why it has not been sent. See
// quorum.Unsent.
func (n *Node) Unsent(c *Claim) (since time.Time, reason error) {
	name := n.backend.Server(c.Keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server(name).unsent()
}

// server returns the server of that name. n.mu is held.
func (n *Node) server(name string) *server {
	s, ok := n.servers[name]
	if !ok {
		s = &server{node: n}
		for w := range s.lanes {
			s.lanes[w].ready.L = &n.mu
		}
		n.servers[name] = s
	}
	return s
}

// Close waits until nothing is in flight and every release has succeeded, for as
// long as some server answers at least once in timeout. Then it ends every call
// and closes what the Store owns. The error says what was not settled.
func (n *Node) Close(timeout time.Duration) error {
	expired := false
	last := time.Now() // something was heard, or the wait began
	var timer *time.Timer
	var dropped []Command
	n.mu.Lock()
	for _, s := range n.servers {
		dropped = append(dropped, s.dead(last)...)
	}
	timer = time.AfterFunc(timeout, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.servers {
			if s.heard.After(last) && s.inFlight > 0 {
				last = s.heard
			}
		}
		if left := timeout - time.Since(last); left > 0 {
			timer.Reset(left)
			return
		}
		expired = true
		n.idle.Broadcast()
	})
	for n.pending > 0 && !expired {
		n.idle.Wait()
	}
	var err error
	if n.pending > 0 {
		if err = n.unreleased(); err != nil {
			err = fmt.Errorf("keys not released within %v: %w", timeout, err)
		} else {
			err = fmt.Errorf("%w within %v", quorum.ErrNoReply, timeout)
		}
	}
	n.closed = true
	for _, s := range n.servers {
		dropped = s.close(dropped)
	}
	n.mu.Unlock()
	n.cast(dropped)
	timer.Stop()
	n.stop()
	n.running.Wait() // before its client is closed: rueidis leaks a connection that is being dialled then
	n.backend.Close()
	return err
}

// unreleased is why releases have not succeeded, if that is known. n.mu is held.
func (n *Node) unreleased() error {
	for _, s := range n.servers {
		if s.down != nil {
			return s.down
		}
		if s.owing != nil {
			return s.owing
		}
	}
	return nil
}

// settled ends what Close waits for. n.mu is held.
func (n *Node) settled() {
	if n.pending--; n.pending == 0 {
		n.idle.Broadcast()
	}
}

// cast tells the voters of commands that are done what came of them.
func (n *Node) cast(commands []Command) {
	for i := range commands {
		switch c := &commands[i]; {
		case c.joiner != nil:
			c.joiner.Joined(n.index, c)
		case c.voter != nil:
			c.voter.Cast(n.index, c.reply())
		}
	}
}

// reply is the vote that the outcome is. Keys that an extension set again are
// never counted (invariants 3 and 6).
func (c *Command) reply() quorum.Reply {
	switch c.Outcome {
	case Done:
		return quorum.Reply{Vote: quorum.Granted, Fence: c.Fence}
	case Refilled:
		return quorum.Reply{Vote: quorum.Refused, Err: errGone}
	case Refused:
		switch {
		case c.releases() && c.Err != nil:
			return quorum.Reply{Vote: quorum.Refused, Err: c.Err}
		case c.releases() || c.Kind == Confirm:
			return quorum.Reply{Vote: quorum.Refused, Err: errNoKey}
		case c.Kind == Look:
			return quorum.Reply{Vote: quorum.Refused, Err: errWaited}
		}
		return quorum.Reply{Vote: quorum.Refused, Err: OwnedBy(c.Owner), Owner: c.Owner}
	}
	return failed(c.Err)
}

// releases reports whether c takes back what a claim has.
func (c *Command) releases() bool { return c.Kind == Release || c.Kind == Leave }

func failed(err error) quorum.Reply { return quorum.Reply{Vote: quorum.Failed, Err: err} }
