package keeper

import (
	"fmt"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// round is one extension of one hold, on all nodes. It counts for as long as the hold is
// valid, whatever the result of later rounds: a quorum that comes late still counts from the
// start of its own round.
type round struct {
	hold  *Hold
	start clock.Instant
	ttl   time.Duration

	mu       sync.Mutex // guards what follows
	ballot   *quorum.Ballot
	sent     uint64        // the nodes to which it has been sent, as bits
	extended bool          // the hold was extended by it
	settled  chan struct{} // closed when it is carried or cannot be; nil if no goroutine waits
}

var _ node.Voter = (*round)(nil)

// newRound makes a round the latest of its hold. k.mu is held.
func (h *Hold) newRound(start clock.Instant, ttl time.Duration) *round {
	nodes := h.keeper.config.Nodes.Len()
	if h.slots == nil {
		h.slots = make([]node.PendingExtension, nodes)
	}
	h.round = &round{hold: h, start: start, ttl: ttl, ballot: quorum.NewBallot(nodes)}
	return h.round
}

// dispatch sends the rounds to every node. Where the round before of a hold has
// not been sent yet, the new one takes its place.
func (k *Keeper) dispatch(rounds ...*round) {
	batch := make([]node.Extension, len(rounds))
	for j, r := range rounds {
		batch[j] = node.Extension{Claim: r.hold.claim, TTL: r.hold.keyTTL(r.start, r.ttl), Due: r.hold.deadlineTime(), Voter: r}
	}
	for i, n := range k.config.Nodes.All() {
		for j, r := range rounds {
			batch[j].Pending = &r.hold.slots[i]
		}
		n.Extend(batch...)
	}
}

// Sent implements node.Voter.
func (r *round) Sent(node int, _ quorum.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent |= 1 << node
}

// Cast implements node.Voter. The vote that carries the round has its result applied. So does
// the vote after which it can no longer be carried, and each later one.
func (r *round) Cast(node int, reply quorum.Reply) {
	r.mu.Lock()
	before := r.ballot.Verdict()
	r.ballot.Cast(node, reply)
	verdict := r.ballot.Verdict()
	if before == quorum.Carried || verdict == quorum.Open {
		r.mu.Unlock()
		return
	}
	var ballot *quorum.Ballot // a copy, since later votes still come in
	if verdict != quorum.Carried {
		ballot = r.ballot.Clone()
	}
	r.mu.Unlock()
	extended := r.hold.settle(r.start, r.ttl, verdict, ballot)
	if before == quorum.Open && r.settled != nil {
		r.mu.Lock()
		r.extended = extended
		r.mu.Unlock()
		close(r.settled)
	}
}

// giveUp notes a round that is still open after a time as its hold's latest
// failure.
func (r *round) giveUp(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ballot.Verdict() == quorum.Open {
		r.hold.failed.Store(&failure{start: r.start, ballot: r.close(after)})
	}
}

// outcome returns the votes of a round that a goroutine waits for, and whether the hold was
// extended by it. If waited, its whole time has passed, and the nodes that have not answered
// have failed.
func (r *round) outcome(after time.Duration, waited bool) (*quorum.Ballot, bool) {
	r.mu.Lock()
	if r.ballot.Verdict() == quorum.Open {
		defer r.mu.Unlock()
		if !waited {
			return r.ballot.Clone(), false
		}
		return r.close(after), false
	}
	r.mu.Unlock()
	<-r.settled // at once: the goroutine of the vote that settled it applies the result
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ballot.Clone(), r.extended
}

// close returns the round's ballot, with every node that has not answered counted as failed.
// r.mu is held.
func (r *round) close(after time.Duration) *quorum.Ballot {
	ballot := r.ballot.Clone()
	for i, reply := range ballot.Replies {
		if reply.Vote != quorum.Pending {
			continue
		}
		reason := fmt.Errorf("%w within %v", quorum.ErrNoReply, after)
		if r.sent&(1<<i) == 0 {
			_, queued := r.hold.keeper.config.Nodes.All()[i].Unsent(r.hold.claim)
			reason = fmt.Errorf("%w: %w", quorum.ErrNoReply, queued)
		}
		ballot.Cast(i, quorum.Reply{Vote: quorum.Failed, Err: reason})
	}
	return ballot
}
