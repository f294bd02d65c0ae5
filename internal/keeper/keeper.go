// Package keeper keeps the locks that one Locker holds. Each lock has a timer that ends it at
// its deadline. The Keeper extends the locks that ask for it. A held lock costs no goroutine
// (invariant 11).
//
// The way of a lock that loses its quorum, in reading order:
//
//   - Hold.Auto (extend.go) schedules the lock. Keeper.run (keeper.go) calls startDue
//     (schedule.go), which starts a round for each lock that is due. With middleware, the
//     owner starts the round when it is its turn (turns.go).
//   - dispatch (round.go) sends the round to every node. The votes come to round.Cast, and
//     Hold.settle (extend.go) applies the result.
//   - If so many nodes answered that they do not hold the lock that no quorum is left, settle
//     calls Hold.lose (hold.go). If nodes are silent, the deadline stays where it is, and the
//     lock's timer calls Hold.fire, and so Expire.
//   - Both end in endKeepingClaim, which ends the contexts: the hold's own, and the one that
//     With has bound by Hold.Bind. afterLoss then cleans up.
//
// A hold's validity is one atomic word, written by compare-and-swap only. The Keeper's mutex
// guards when a hold is extended next; nothing blocks and no user code runs while it is held.
// A round's mutex guards the votes of one extension. What waits to be sent belongs to the
// Node. Order of locks: docs/design.md.
package keeper

import (
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
)

// tick is the pause between two comparisons of the clocks while a lock is held: a timer does
// not see that the machine was suspended.
const tick = time.Second

// Config configures a Keeper.
type Config struct {
	Nodes *node.Nodes
	Clock *clock.Clock
	// Middleware has owners run the automatic extensions of their holds (Owner.Extend) and
	// learn of a loss (Owner.Lost).
	Middleware bool
}

// Owner is the lock that a Hold belongs to.
type Owner interface {
	// Cause makes the error with which the ctx of a lost hold ends. It must not block
	// (invariant 2).
	Cause(l Loss) error
	// Ended is called after the hold has ended without being released. It must not block.
	Ended()
	// Extend is called, with Config.Middleware, for each automatic extension that is due, on
	// a goroutine of its own and at most once at a time. It calls Hold.ExtendDue, or returns
	// why it did not. See turns.
	Extend() error
	// Lost is called after Ended, with Config.Middleware, on a goroutine of its own.
	Lost()
}

// Keeper keeps holds. All its methods are safe for concurrent use.
type Keeper struct {
	config Config
	clock  *clock.Clock
	wake   chan struct{} // has room for one; wakes the loop
	stop   chan struct{}
	// running counts the goroutines: the loop, and those of Owner.Extend and Owner.Lost.
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the holds' scheduling
	closed   bool
	holds    map[*Hold]struct{}
	emptied  sync.Cond // signalled when no hold is left
	schedule schedule
	turns    turns
	planned  clock.Instant // when the loop looks next
}

// New starts a Keeper.
func New(config Config) *Keeper {
	k := &Keeper{
		config:  config,
		clock:   config.Clock,
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		holds:   make(map[*Hold]struct{}),
		planned: clock.Never,
		turns:   turns{most: maxTurns},
	}
	k.emptied.L = &k.mu
	k.running.Go(k.run)
	return k
}

// Lasts returns how long an unextended hold lasts, from the start of its attempt.
func (k *Keeper) Lasts(options HoldOptions) time.Duration {
	lasts := k.clock.Validity(options.TTL)
	if options.MaxHold > 0 {
		lasts = min(lasts, options.MaxHold)
	}
	return lasts - options.Grace
}

// Close ends every hold with cause, and releases the claims in the background. From then on
// Hold.Start reports false.
func (k *Keeper) Close(cause error) {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	for _, h := range k.all() {
		if h.end(cause) {
			h.afterLoss(0)
		}
		h.Done()
	}
	k.mu.Lock()
	for len(k.holds) > 0 { // other goroutines are ending these holds
		k.emptied.Wait()
	}
	k.mu.Unlock()
	close(k.stop)
}

func (k *Keeper) all() []*Hold {
	k.mu.Lock()
	defer k.mu.Unlock()
	holds := make([]*Hold, 0, len(k.holds))
	for h := range k.holds {
		holds = append(holds, h)
	}
	return holds
}

// Wait returns when the Keeper's goroutines have ended. They may wait for nodes, so
// close the nodes first.
func (k *Keeper) Wait() { k.running.Wait() }

// run starts the extensions that are due.
func (k *Keeper) run() {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	var jumped clock.Instant // 0, as for a new clock, even if this goroutine starts late
	for {
		now := k.clock.Check()
		if last := k.clock.Jumped(); last != jumped {
			jumped = last
			k.expireAll()
		}
		timer.Reset(k.startDue(now).Sub(now))
		select {
		case <-timer.C:
		case <-k.wake:
		case <-k.stop:
			return
		}
	}
}

// expireAll ends the holds whose deadline has passed but whose timers have not fired: a timer
// does not see that the wall clock jumped.
func (k *Keeper) expireAll() {
	for _, h := range k.all() {
		h.Expire()
	}
}

// forget drops a hold that has ended. It is the last step of its clean-up: Close
// waits for it.
func (k *Keeper) forget(h *Hold) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.holds, h)
	k.unschedule(h)
	if len(k.holds) == 0 {
		k.emptied.Broadcast()
	}
}
