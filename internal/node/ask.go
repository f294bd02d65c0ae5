package node

import "time"

// Acquire asks for all of the claim's keys. The command is dropped if the claim ends before it
// is sent.
func (n *Node) Acquire(c *Claim, ttl time.Duration, v ReplyHandler) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, handler: v})
}

// AcquireAgain is Acquire for a claim that has been asked for here before. A node that
// has the keys for the claim already grants it, and a refusal names the owner of the
// keys.
func (n *Node) AcquireAgain(c *Claim, ttl time.Duration, v ReplyHandler) {
	n.ask(Command{Kind: Acquire, Claim: c, TTL: ttl, Script: true, handler: v})
}

// Read asks who owns the claim's keys, and acquires nothing. The node grants if all keys
// are free.
func (n *Node) Read(c *Claim, v ReplyHandler) { n.ask(Command{Kind: Read, Claim: c, handler: v}) }

// Confirm asks the node to raise the counters of the claim's keys to fence, if the claim
// holds the keys there. The reply's Fence is the value of the counters after that.
func (n *Node) Confirm(c *Claim, fence int64, v ReplyHandler) {
	n.ask(Command{Kind: Confirm, Claim: c, Fence: fence, handler: v})
}

// Look asks whether other claims wait for the key that the claim holds. The node grants
// if its queue for the key is empty. The command is dropped if the claim ends before it
// is sent.
func (n *Node) Look(c *Claim, v ReplyHandler) { n.ask(Command{Kind: Look, Claim: c, handler: v}) }

// ask queues a command whose handler receives the reply.
func (n *Node) ask(c Command) {
	dropped, err := n.admit(&c)
	if err != nil {
		c.handler.Cast(n.index, failed(err))
		return
	}
	n.cast(dropped)
}

// Join enters the claim, which has one key, into the queue of that key, or renews its
// entry. From then on the node may grant the claim the key, until the claim is released.
// It announces a grant on the entry's channel, with the nonce: see Listen.
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
	case c.Kind == Join:
		if err := n.CheckQueue(c.Claim.Keys[0]); err != nil {
			return nil, unasked(err)
		}
	}
	s := n.server(name)
	if err := s.refusal(); err != nil {
		return nil, err
	}
	return s.push(*c), nil
}
