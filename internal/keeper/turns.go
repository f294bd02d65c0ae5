package keeper

import (
	"time"

	"github.com/redis-kit/redlock/internal/clock"
)

// Owner.Extend runs on a goroutine of its own, because a middleware in it may wait for
// anything. When a hundred thousand holds are due, most of these goroutines would only wait
// until their extension may be sent: a node takes three pipelines of 512 at a time. So at most
// maxTurns run at once, and the other holds wait for their turn without a goroutine. The bound
// does not depend on the number of holds.
//
// A middleware may block, and a node may hang. Neither may delay the extensions of other
// holds: a turn that takes far longer than turns usually do is stuck, and no longer counts. So
// however many turns are stuck, maxTurns others start in that time.
const (
	maxTurns  = 4096
	shortest  = 250 * time.Millisecond // no turn is stuck before
	overtaken = 4                      // a turn is stuck after so many times the usual length
)

// turn is the turn of one hold.
type turn struct {
	since clock.Instant
	over  bool
}

// turns bounds the extensions through owners. Keeper.mu guards it.
type turns struct {
	most    int           // maxTurns, except in tests
	taken   []*turn       // in the order in which they began; some may be over
	count   int           // of the turns in taken that are not over
	usual   time.Duration // moving average of the length of turns that were not stuck
	waiting []*Hold       // in the order in which they became due; some are no longer queued
}

// awaitTurn queues h, which its owner extends when it is its turn. k.mu is held.
func (k *Keeper) awaitTurn(h *Hold) {
	h.extending, h.queued = true, true
	k.turns.waiting = append(k.turns.waiting, h)
}

// unqueue undoes awaitTurn, unless the turn has begun. k.mu is held.
func (h *Hold) unqueue() {
	if h.queued {
		h.extending, h.queued = false, false
	}
	h.extendAgain = false
}

// startTurns starts the extensions whose turn it is, and returns when to look again. k.mu is held.
func (k *Keeper) startTurns(now clock.Instant) clock.Instant {
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
		h.turn = &turn{since: now}
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

// extendThrough has the owner extend a hold, and extend it again if it has become due again by
// then.
func (k *Keeper) extendThrough(h *Hold) {
	defer func() { // also if a middleware ends its goroutine
		k.mu.Lock()
		defer k.mu.Unlock()
		k.endTurn(h)
		again := h.extendAgain && !h.ended() && !k.closed
		h.extending, h.extendAgain = false, false
		if again {
			k.awaitTurn(h)
			k.look()
		}
	}()
	start := k.clock.Now()
	if err := h.owner.Extend(); err != nil {
		h.failed.Store(&failure{start: start, err: err})
	}
}

func (t *turns) end(taken *turn) {
	if !taken.over {
		taken.over = true
		t.count--
	}
}

// endTurn ends the turn of h, so that the next hold has one. k.mu is held.
func (k *Keeper) endTurn(h *Hold) {
	if t := &k.turns; !h.turn.over {
		t.usual += (k.clock.Now().Sub(h.turn.since) - t.usual) / 64
		t.end(h.turn)
	}
	if len(k.turns.waiting) > 0 {
		k.look()
	}
}
