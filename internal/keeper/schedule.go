package keeper

import (
	"container/heap"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
)

// tries is the number of times an extension is tried before the deadline: first when the
// threshold is reached, then at equal intervals until the deadline.
const tries = 4

// startDue starts a round for each hold that is due, or has its owner start it. It returns
// when to look again.
func (k *Keeper) startDue(now clock.Instant) clock.Instant {
	var rounds []*round
	k.mu.Lock()
	for len(k.schedule) > 0 && k.schedule[0].due <= now {
		h := k.schedule[0]
		h.due = now.Add(h.retryPause()) // unless it is extended before
		heap.Fix(&k.schedule, 0)
		switch {
		case k.closed:
		case !k.config.Middleware || h.startPause > 0:
			if h.round != nil {
				h.round.giveUp(h.retryPause())
			}
			rounds = append(rounds, h.newRound(now, h.options.TTL))
		case h.queued: // it still waits for its turn
		case h.extending:
			h.extendAgain = true // at once when this extension is over
		default:
			k.awaitTurn(h)
		}
	}
	look := k.startTurns(now)
	k.planned = clock.Never
	if len(k.holds) > 0 {
		k.planned = now.Add(tick)
	}
	if len(k.schedule) > 0 {
		k.planned = min(k.planned, k.schedule[0].due)
	}
	k.planned = min(k.planned, look)
	next := k.planned
	k.mu.Unlock()
	if len(rounds) > 0 {
		k.dispatch(rounds...)
	}
	return next
}

// retryPause returns the time between two tries.
func (h *Hold) retryPause() time.Duration {
	if h.startPause > 0 {
		return h.startPause
	}
	return max((h.threshold-h.options.Grace)/tries, time.Millisecond)
}

// reschedule sets the time of h's next extension, from its deadline and the start of its last
// extension (0: none to consider). k.mu is held.
func (k *Keeper) reschedule(h *Hold, last clock.Instant) {
	deadline := h.deadline.Load()
	if h.threshold == 0 && h.startPause == 0 || deadline < 0 || clock.Instant(deadline).Add(h.options.Grace) >= h.max {
		k.unschedule(h)
		h.unqueue()
		return
	}
	h.due = clock.Instant(deadline).Add(h.options.Grace - h.threshold)
	if h.startPause > 0 {
		h.due = k.clock.Now()
	}
	if last > 0 { // with a threshold near the ttl, extensions would follow without a pause
		h.due = max(h.due, last.Add(h.retryPause()))
		h.unqueue()
	}
	if h.index < 0 {
		heap.Push(&k.schedule, h)
	} else {
		heap.Fix(&k.schedule, int(h.index))
	}
	k.plan(h.due)
}

func (k *Keeper) unschedule(h *Hold) {
	if h.index >= 0 {
		heap.Remove(&k.schedule, int(h.index))
	}
}

// plan has the loop look no later than due. k.mu is held.
func (k *Keeper) plan(due clock.Instant) {
	if due >= k.planned {
		return
	}
	k.planned = due
	k.look()
}

// look has the loop look now.
func (k *Keeper) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// schedule is a heap of the holds to be extended, with the one that is due first in front.
type schedule []*Hold

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due < s[j].due }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = int32(i), int32(j)
}
func (s *schedule) Push(x any) {
	h := x.(*Hold)
	h.index = int32(len(*s))
	*s = append(*s, h)
}
func (s *schedule) Pop() any {
	last := len(*s) - 1
	h := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	h.index = -1
	return h
}
