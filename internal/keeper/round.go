package keeper

import (
	"fmt"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// round is one extension of one hold, on all nodes. It counts while the hold is valid,
// whatever the result of later rounds: a late quorum counts from the start of its own round.
type round struct {
	hold  *Hold
	start clock.Instant
	ttl   time.Duration

	mu       sync.Mutex // guards what follows
	tally    *quorum.Tally
	sent     uint64        // the nodes, as bits, to which the round has been sent
	extended bool          // the round extended the hold
	settled  chan struct{} // closed when the round is won or lost; nil if no goroutine waits
}

var _ node.ReplyHandler = (*round)(nil)

// newRound makes a round the latest of its hold. k.mu is held.
func (h *Hold) newRound(start clock.Instant, ttl time.Duration) *round {
	nodes := h.keeper.config.Nodes.Len()
	if h.pending == nil {
		h.pending = make([]node.PendingExtension, nodes)
	}
	h.round = &round{hold: h, start: start, ttl: ttl, tally: quorum.NewTally(nodes)}
	return h.round
}

// dispatch sends the rounds to every node. A round replaces the previous one of its hold on
// each node to which that has not been sent yet.
func (k *Keeper) dispatch(rounds ...*round) {
	batch := make([]node.Extension, len(rounds))
	for j, r := range rounds {
		batch[j] = node.Extension{Claim: r.hold.claim, TTL: r.hold.keyTTL(r.start, r.ttl), Due: r.hold.deadlineTime(), Handler: r}
	}
	for i, n := range k.config.Nodes.All() {
		for j, r := range rounds {
			batch[j].Pending = &r.hold.pending[i]
		}
		n.Extend(batch...)
	}
}

// Sent implements node.ReplyHandler.
func (r *round) Sent(node int, _ quorum.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent |= 1 << node
}

// Cast implements node.ReplyHandler. It applies the result of the round when a vote wins it,
// when a vote makes a quorum impossible, and at each later vote.
func (r *round) Cast(node int, reply quorum.Reply) {
	r.mu.Lock()
	before := r.tally.Verdict()
	r.tally.Cast(node, reply)
	verdict := r.tally.Verdict()
	if before == quorum.Won || verdict == quorum.Pending { // applied already, or undecided
		r.mu.Unlock()
		return
	}
	var tally *quorum.Tally // a copy, since later votes still come in
	if verdict != quorum.Won {
		tally = r.tally.Clone()
	}
	r.mu.Unlock()
	extended := r.hold.settle(r.start, r.ttl, verdict, tally)
	if before == quorum.Pending && r.settled != nil {
		r.mu.Lock()
		r.extended = extended
		r.mu.Unlock()
		close(r.settled)
	}
}

// giveUp notes a round that is still undecided after a time as its hold's latest failure. The
// round may yet be won.
func (r *round) giveUp(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tally.Verdict() == quorum.Pending {
		r.hold.failed.Store(&failure{start: r.start, tally: r.close(after)})
	}
}

// outcome returns the votes of a round, and whether it extended the hold, for the goroutine
// that has waited for it. waited says that it waited for the whole time: the nodes that have
// not answered then count as failed.
func (r *round) outcome(after time.Duration, waited bool) (*quorum.Tally, bool) {
	r.mu.Lock()
	if r.tally.Verdict() == quorum.Pending {
		defer r.mu.Unlock()
		if !waited {
			return r.tally.Clone(), false
		}
		return r.close(after), false
	}
	r.mu.Unlock()
	<-r.settled // soon: the goroutine that cast the deciding vote is applying the result
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally.Clone(), r.extended
}

// close returns the round's tally, with every node that has not answered counted as failed.
// r.mu is held.
func (r *round) close(after time.Duration) *quorum.Tally {
	tally := r.tally.Clone()
	for i, reply := range tally.Replies {
		if reply.Vote != quorum.Awaited {
			continue
		}
		reason := fmt.Errorf("%w within %v", quorum.ErrNoReply, after)
		if r.sent&(1<<i) == 0 {
			_, queued := r.hold.keeper.config.Nodes.All()[i].Unsent(r.hold.claim)
			reason = fmt.Errorf("%w: %w", quorum.ErrNoReply, queued)
		}
		tally.Cast(i, quorum.Reply{Vote: quorum.Failed, Err: reason})
	}
	return tally
}
