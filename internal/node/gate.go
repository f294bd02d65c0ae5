package node

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// silence is for how long a node that owes answers may give none before calls
// beyond the bound are turned away.
const silence = 500 * time.Millisecond

// gate bounds the calls of one kind that are in flight to a node, so that one
// that hangs costs a bounded number of goroutines, and of slots in rueidis' ring
// of 1024, where waiting for a free one ignores ctx. Beyond the bound a call
// waits its turn while the node answers: to be busy is not to be sick.
type gate struct {
	most int

	mu       sync.Mutex // guards what follows
	inFlight int
	waiting  list.List // of *waiter
	heard    time.Time // when the last call ended, or the first of those in flight began
}

// waiter is a call that waits its turn, which comes with a nil error. Nobody
// waits for one whose claim has ended.
type waiter struct {
	claim *Claim     // nil for a call that is wanted in any case
	turn  chan error // has room for the one that is sent
}

// enter begins a call, which ends with leave. It waits no longer than until ctx
// ends, the claim ends, or the node is found to be silent.
func (g *gate) enter(ctx context.Context, claim *Claim) error {
	g.mu.Lock()
	if g.inFlight < g.most {
		if g.inFlight == 0 {
			g.heard = time.Now()
		}
		g.inFlight++
		g.mu.Unlock()
		return nil
	}
	if err := g.silent(); err != nil {
		g.mu.Unlock()
		return err
	}
	w := &waiter{claim, make(chan error, 1)}
	place := g.waiting.PushBack(w)
	g.mu.Unlock()
	look := time.NewTicker(silence)
	defer look.Stop()
	for {
		select {
		case err := <-w.turn:
			return err
		case <-look.C:
			g.giveUp(w, place, nil)
		case <-ctx.Done():
			g.giveUp(w, place, errClosed)
		}
	}
}

// giveUp ends a wait for a reason, or because the node is silent, unless its
// turn has come meanwhile.
func (g *gate) giveUp(w *waiter, place *list.Element, reason error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if reason == nil {
		reason = g.silent()
	}
	if reason != nil && len(w.turn) == 0 {
		g.waiting.Remove(place)
		w.turn <- reason
	}
}

// leave ends a call, and hands its place to the next that is still wanted.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = time.Now()
	for first := g.waiting.Front(); first != nil; first = g.waiting.Front() {
		w := g.waiting.Remove(first).(*waiter)
		if w.claim == nil || !w.claim.Ended() {
			w.turn <- nil
			return
		}
		w.turn <- errEnded
	}
	g.inFlight--
}

// silent is why no call may wait, if so.
func (g *gate) silent() error {
	if time.Since(g.heard) < silence {
		return nil
	}
	return fmt.Errorf("not sent: %d earlier calls are unanswered", g.inFlight)
}
