package memnode

import "github.com/redis-kit/redlock/internal/quorum"

// Voter is a [node.Voter] that receives replies on a channel. The channel must have room for
// all of them.
type Voter chan quorum.Reply

// Sent does nothing.
func (v Voter) Sent(int, quorum.Progress) {}

// Cast passes the reply on.
func (v Voter) Cast(_ int, r quorum.Reply) { v <- r }
