package keeper

import (
	"time"

	"github.com/redis-kit/redlock/internal/clock"
)

// Owner.Extend waits on a goroutine of its own for the nodes to answer, since it may wait
// for anything else besides. When a hundred thousand holds are due, most of these goroutines
// would wait only until their extension may be sent: a node takes three pipelines of 512 at a
// time. So no more than maxTurns are started before others have ended, and the rest of the
// holds wait without one. That bound does not depend on how many are held.
//
// But what a middleware does is up to the user, and a node may hang. Neither may hold up
// the extensions of other holds, so one that takes far longer than others did is stuck, and
// no longer counts. However many are, maxTurns others are started in that time.
const (
	maxTurns  = 4096
	shortest  = 250 * time.Millisecond // before which none is stuck
	overtaken = 4                      // how often others end in the time after which one is
)

// taken is the turn that a hold has.
type taken struct {
	since clock.Instant
	over  bool
}

// turns are those of a Keeper. Its mutex guards them.
type turns struct {
	most    int           // maxTurns, but for tests
	taken   []*taken      // as they were taken, some of which may be over
	count   int           // that are not
	usual   time.Duration // how long those took that were not stuck, the last ones most
	waiting []*Hold       // for a turn, in the order in which they became due; some are no longer queued
}

// begin has h extended through its owner, as soon as it is its turn. k.mu is held.
func (k *Keeper) begin(h *Hold) {
	h.extending, h.queued = true, true
	k.turns.waiting = append(k.turns.waiting, h)
}

// unqueue takes back what begin did, if it is not its turn yet. k.mu is held.
func (h *Hold) unqueue() {
	if h.queued {
		h.extending, h.queued = false, false
	}
	h.extendAgain = false
}

// takeTurns starts what waits for its turn, and returns when to look again. k.mu is held.
func (k *Keeper) takeTurns(now clock.Instant) clock.Instant {
	t := &k.turns
	stuck := max(shortest, overtaken*t.usual)
	for len(t.taken) > 0 && (t.taken[0].over || now.Sub(t.taken[0].since) >= stuck) {
		t.end(t.taken[0])
		t.taken = t.taken[1:]
	}
	started := 0
	for _, h := range t.waiting {
		if t.count == t.most {
			break
		}
		started++
		if !h.queued {
			continue
		}
		if h.ended() || k.closed {
			h.unqueue()
			continue
		}
		h.queued = false
		h.turn = &taken{since: now}
		t.taken = append(t.taken, h.turn)
		t.count++
		k.running.Go(func() { k.extendThrough(h) })
	}
	clear(t.waiting[:started])
	if t.waiting = t.waiting[started:]; len(t.waiting) == 0 {
		t.waiting = nil
		return clock.Never
	}
	return t.taken[0].since.Add(stuck)
}

func (t *turns) end(taken *taken) {
	if !taken.over {
		taken.over = true
		t.count--
	}
}

// endTurn lets another hold have the turn of h. k.mu is held.
func (k *Keeper) endTurn(h *Hold) {
	if t := &k.turns; !h.turn.over {
		t.usual += (k.clock.Now().Sub(h.turn.since) - t.usual) / 64
		t.end(h.turn)
	}
	if len(k.turns.waiting) > 0 {
		k.look()
	}
}
