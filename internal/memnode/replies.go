package memnode

import "github.com/redis-kit/redlock/internal/quorum"

// Replies is a [node.ReplyHandler] that receives replies on a channel, which must have room for
// all of them.
type Replies chan quorum.Reply

// Sent does nothing.
func (r Replies) Sent(int, quorum.Progress) {}

// Cast passes the reply on.
func (r Replies) Cast(_ int, reply quorum.Reply) { r <- reply }
