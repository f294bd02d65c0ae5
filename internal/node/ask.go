package node

import "time"

// Acquire asks for all of the claim's keys. The command is dropped if the claim ends before it
// is sent.
func (n *Node) Acquire(c *Claim, ttl time.Duration, v ReplyHandler) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, handler: v})
}

// AcquireAgain is Acquire for a claim that has been asked for here before. It is granted where
// the claim has the keys already, and a refusal names their owner.
func (n *Node) AcquireAgain(c *Claim, ttl time.Duration, v ReplyHandler) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, Script: true, handler: v})
}

// Read asks who owns the claim's keys: the vote is in favour if they are all free. It acquires
// nothing.
func (n *Node) Read(c *Claim, v ReplyHandler) { n.ask(Command{Kind: Read, Claim: c, handler: v}) }

// Confirm asks to raise the counters of the claim's keys to fence, where the node holds the
// claim. The reply's Fence is their value after that.
func (n *Node) Confirm(c *Claim, fence int64, v ReplyHandler) {
	n.ask(Command{Kind: Confirm, Claim: c, Fence: fence, handler: v})
}

// Look asks whether other claims wait for the key of the claim, which holds it: the vote is in
// favour if the queue of the key is empty here. The command is dropped if the claim ends
// before it is sent.
func (n *Node) Look(c *Claim, v ReplyHandler) { n.ask(Command{Kind: Look, Claim: c, handler: v}) }

// ask queues a command for which a handler waits.
func (n *Node) ask(c Command) {
	dropped, err := n.admit(&c)
	if err != nil {
		c.handler.Cast(n.index, failed(err))
		return
	}
	n.cast(dropped)
}

// Join enters the claim into the queue of its key, of which it has one, or renews its entry.
// From then on the node may grant the claim its key, until the claim is released. It announces
// the grant on the entry's channel, with the nonce: see Listen.
func (n *Node) Join(c *Claim, entry *Entry, nonce string, j Joiner) {
	command := Command{Kind: Join, Claim: c, Entry: entry, Nonce: nonce, joiner: j}
	dropped, err := n.admit(&command)
	if err != nil {
		command.Err = err
		j.Joined(n.index, &command)
		return
	}
	n.cast(dropped)
}

// admit queues a command, or returns why it cannot be sent now. It also returns the commands
// that were dropped from the queue.
func (n *Node) admit(c *Command) (dropped []Command, err error) {
	name := n.backend.Server(c.Claim.Keys)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, errClosed
	case c.Kind == Join && !n.queue:
		return nil, unasked(ErrNoPush)
	}
	s := n.server(name)
	if err := s.refusal(); err != nil {
		return nil, err
	}
	return s.push(*c), nil
}
