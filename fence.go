package redlock

import (
	"context"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// Fence returns the fencing token of the lock, or 0 if it was acquired without
// [WithFence]. It is above 0 and below 2^53, so it fits an int64 of a database and a number
// of JavaScript. It stays the same for as long as the lock is held.
//
// Per key, while no node loses its counter early: fences are unique, and if one acquire
// returned before another was called, the later fence is larger, even after pauses, expiry
// or clock jumps. If clocks also run within the drift allowance and no data is lost, fences
// follow the order of grants. After a minority of nodes has lost data, these guarantees
// require that those nodes stay down, or are quarantined by [WithRestartGuard], for longer
// than the longest ttl plus twice the clock skew.
//
// The resource that the lock protects must refuse a fence below the highest that it has
// seen: docs/guarantees.md has examples. For a lock on several keys, one fence counts for
// all of them.
func (l *Lock) Fence() int64 { return l.fence }

// fenceClock hands out lower bounds for fences, their floors: the wall clock in microseconds,
// never decreasing within a process. So nodes agree on the fence of a key whose counter some
// of them do not have.
type fenceClock struct{ last atomic.Int64 }

// maxFloor bounds the floors, and so the year that a clock may show, to 2112. A floor near
// 2^53 would leave the counters of its keys no room to count, for every client and for as
// long as the nodes keep them. A lower floor instead of a refusal would not be safe: a node
// that has lost its counter could give a fence twice.
const maxFloor = 1 << 52

// checkClock refuses a wall clock that gives no floor.
func checkClock(now time.Time) error {
	if now.UnixMicro() < maxFloor {
		return nil
	}
	return argumentError("WithFence: the clock of this machine says %s: must be before %s", now.UTC().Format(time.DateOnly), time.UnixMicro(maxFloor).UTC().Format(time.DateOnly))
}

// next returns a floor. If the wall clock has become wrong since checkClock, it returns one
// that the nodes refuse, and later floors do not depend on it.
func (f *fenceClock) next() int64 {
	for {
		now, last := time.Now().UnixMicro(), f.last.Load()
		if now >= maxFloor {
			return 1 << 53
		}
		floor := max(now, last+1)
		if f.last.CompareAndSwap(last, floor) {
			return floor
		}
	}
}

// numbered tells how the nodes that granted a claim have numbered it.
type numbered struct {
	fence  int64  // the largest
	agreed uint64 // the nodes, as bits, whose counter was exactly that
}

func (n *numbered) add(node int, fence int64) {
	switch {
	case fence > n.fence:
		n.fence, n.agreed = fence, 1<<node
	case fence == n.fence:
		n.agreed |= 1 << node
	}
}

func (n *numbered) has(node int) bool { return n.agreed&(1<<node) != 0 }

func (n *numbered) count() int { return bits.OnesCount64(n.agreed) }

// confirm returns the fence of a claim that a quorum has granted: the largest number, once
// a quorum of nodes holds the claim and has counted up to exactly that. A node that has
// counted further makes its own the fence (the strict confirm: without it two holders could
// share one). As a rule the nodes agree, and none is asked. It returns 0 if the nodes do not
// agree before the deadline, with the votes if a round failed.
//
// All nodes that have not agreed are asked, also those whose grant is still to come: the
// grant travels before the question.
func (l *Locker) confirm(ctx context.Context, claim *node.Claim, n numbered, ttl time.Duration, deadline clock.Instant, op *Op) (int64, *quorum.Tally) {
	need := l.nodes.Need()
	for n.count() < need {
		left := deadline.Sub(l.clock.Now())
		if left <= 0 {
			return 0, nil
		}
		began, agreed := op.now(), n
		patience := node.Patience{Timeout: l.config.timeoutOf(ttl), Limit: left, Stop: l.closing}
		poll, verdict := l.nodes.Ask(ctx, claim, patience, func(i int, to *node.Node, v node.ReplyHandler) {
			if agreed.has(i) {
				v.Cast(i, quorum.Reply{Vote: quorum.Granted, Fence: agreed.fence})
			} else {
				to.Confirm(claim, max(agreed.fence, claim.Options().Floor), v)
			}
		})
		n = numbersOf(poll, nil)
		op.confirmed(began, poll)
		tally := poll.Tally()
		poll.Close()
		if verdict != quorum.Won {
			return 0, tally
		}
	}
	return n.fence, nil
}

// numbersOf returns how the nodes that granted a claim have numbered it so far: by the votes of
// a contest, or of the poll where there was none. One without a number has granted the claim
// to an earlier ask, and has yet to say.
func numbersOf(poll *quorum.Poll, settled *quorum.Tally) (n numbered) {
	count := func(tally *quorum.Tally) {
		for i, r := range tally.Replies {
			if r.Vote == quorum.Granted && r.Fence > 0 {
				n.add(i, r.Fence)
			}
		}
	}
	if settled != nil {
		count(settled)
	} else {
		poll.Read(count)
	}
	return n
}

// numbersOfGrant is numbersOf for a grant of the nodes' queues.
func numbersOfGrant(g waitqueue.Grant) (n numbered) {
	for i, fence := range g.Fences {
		if fence > 0 {
			n.add(i, fence)
		}
	}
	return n
}
