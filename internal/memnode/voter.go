package memnode

import "github.com/redis-kit/redlock/internal/quorum"

// Voter is a [node.Voter] that receives what is cast. It must have room for as much.
type Voter chan quorum.Reply

// Sent does nothing.
func (v Voter) Sent(int, quorum.Progress) {}

// Cast passes the reply on.
func (v Voter) Cast(_ int, r quorum.Reply) { v <- r }
