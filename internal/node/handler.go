package node

import "github.com/redis-kit/redlock/internal/quorum"

// ReplyHandler receives the reply to one command. Its methods are called without any lock of the
// Node's, and must not block for long: the replies to other commands wait.
type ReplyHandler interface {
	// Sent is called when the command leaves the queue, and again whenever another Progress takes
	// over. It may never be called.
	Sent(node int, sent quorum.Progress)
	// Cast is called once, with the node's reply.
	Cast(node int, reply quorum.Reply)
}

// Joiner receives the result of a Join.
type Joiner interface {
	// Joined is called once, with the command and its outcome, as a ReplyHandler's Cast is.
	// Done means that the node grants the claim, as of the sending of this command.
	Joined(node int, c *Command)
}

// cast passes the results of commands to their handlers. n.mu is not held.
func (n *Node) cast(commands []Command) {
	for i := range commands {
		switch c := &commands[i]; {
		case c.joiner != nil:
			c.joiner.Joined(n.index, c)
		case c.handler != nil:
			c.handler.Cast(n.index, c.reply())
		}
	}
}

// reply returns the outcome as a vote. Keys that an extension set again never count
// (invariants 3 and 6).
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
			return quorum.Reply{Vote: quorum.Refused, Err: errWaiting}
		}
		return quorum.Reply{Vote: quorum.Refused, Err: OwnedBy(c.Owner), Owner: c.Owner}
	}
	return failed(c.Err)
}

func failed(err error) quorum.Reply { return quorum.Reply{Vote: quorum.Failed, Err: err} }
