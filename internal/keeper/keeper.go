// Package keeper keeps the locks that one Locker holds. It ends each at its
// deadline, by a timer of its own, and extends those that are to be extended. A held
// lock costs no goroutine (invariant 11).
//
// A hold's validity is one atomic word, written by compare-and-swap only. The
// Keeper's mutex guards when a hold is extended next; nothing blocks and no user
// code runs while it is held. A round's mutex guards the votes of one extension.
// What waits to be sent belongs to the Node. Order of locks: docs/design.md.
package keeper

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// tick is how often the clocks are compared while anything is held: a
	// timer does not see that the machine was suspended.
	tick = time.Second
	// margin is what validity leaves for timers that fire late, beside the
	// drift (https://redis.io/docs/latest/develop/use/patterns/distributed-locks/).
	margin = 2 * time.Millisecond
)

// Config is what a Keeper works with.
type Config struct {
	Nodes []*node.Node
	Panel *quorum.Panel
	Drift float64
	// Cause makes the error with which a lost hold's ctx ends. It must not
	// block.
	Cause func(Loss) error
	// Extend, if set, is called for each extension that is due, on a goroutine
	// of its own, and at most once at a time for a hold. It calls ExtendDue, or
	// returns why it did not. See turns.
	Extend func(*Hold) error
	// Ended, if set, is called when a hold has ended without being released. It must
	// not block.
	Ended func(*Hold)
	// Lost, if set, is called when a hold has ended without being released, on a
	// goroutine of its own.
	Lost func(*Hold)
}

// Keeper keeps holds. All its methods are safe for concurrent use.
type Keeper struct {
	config Config
	clock  *clock
	wake   chan struct{} // has room for one: the loop looks at everything anew
	stop   chan struct{}
	// running are the goroutines: the loop, and those of Config.Extend and
	// Config.Lost.
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the holds' scheduling
	closed   bool
	holds    map[*Hold]struct{}
	emptied  sync.Cond // signalled when no hold is left
	schedule schedule
	turns    turns
	planned  Instant // when the loop looks next
}

// New starts a Keeper.
func New(config Config) *Keeper {
	k := &Keeper{
		config:  config,
		clock:   newClock(),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		holds:   make(map[*Hold]struct{}),
		planned: never,
		turns:   turns{most: maxTurns},
	}
	k.emptied.L = &k.mu
	k.running.Go(k.run)
	return k
}

// Now is the current instant: the start of an attempt that is about to be made.
func (k *Keeper) Now() Instant { return k.clock.now() }

// Validity is for how long a lock is valid from the start of the attempt or
// extension that asked for ttl (invariant 1).
func (k *Keeper) Validity(ttl time.Duration) time.Duration {
	return ttl - time.Duration(float64(ttl)*k.config.Drift) - margin
}

// Lasts is for how long a hold lasts from the start of the attempt, if it is not
// extended.
func (k *Keeper) Lasts(terms Terms) time.Duration {
	lasts := k.Validity(terms.TTL)
	if terms.MaxHold > 0 {
		lasts = min(lasts, terms.MaxHold)
	}
	return lasts - terms.Grace
}

// KeyTTL is for how long keys are set on the nodes, to be valid as by ttl, but
// not for longer than most; 0 means no limit.
func (k *Keeper) KeyTTL(ttl, most time.Duration) time.Duration {
	if most <= 0 || most >= k.Validity(ttl) {
		return ttl
	}
	// Validity's inverse, and a millisecond for what is rounded.
	return min(ttl, time.Duration(math.Ceil(float64(most+margin)/(1-k.config.Drift)))+time.Millisecond)
}

// Hold starts to keep a claim that a quorum granted in an attempt that began
// at start, and fills in h. It reports false, and the claim is the caller's to
// release, if that took so long that nothing is left of its validity, or if the
// Keeper is closed. The hold's ctx is a child of ctx.
func (k *Keeper) Hold(h *Hold, ctx context.Context, claim *node.Claim, start Instant, terms Terms) bool {
	h.keeper, h.claim, h.terms, h.max, h.index = k, claim, terms, never, -1
	if terms.MaxHold > 0 {
		h.max = start.Add(terms.MaxHold)
	}
	h.carried.Store(int64(start) - 1)
	h.extended.Store(int64(start) - 1)
	deadline := start.Add(k.Lasts(terms))
	if terms.Until > 0 {
		deadline = min(terms.Until, h.max).Add(-terms.Grace)
	}
	h.deadline.Store(int64(deadline))
	if deadline <= k.clock.now() {
		return false
	}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	// Reset orders the write of h.timer before fire, which reads it.
	h.timer = time.AfterFunc(time.Hour, h.fire)
	// The timer is set before anything is waited for (invariant 2). So the hold
	// may end before it is kept: then lost finds that it is not, and leaves it to
	// this call.
	h.arm()

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || h.over() {
		h.timer.Stop()
		h.cancel(nil)
		return false
	}
	h.kept = true
	k.holds[h] = struct{}{}
	now := k.clock.now()
	k.plan(now.Add(tick))
	if terms.Raise {
		h.raise = max(deadline.Sub(now)/tries, time.Millisecond)
		k.reschedule(h, 0)
	}
	return true
}

// Close ends every hold with cause, and releases the claims in the background. From
// then on Hold reports false.
func (k *Keeper) Close(cause error) {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	for _, h := range k.all() {
		if h.end(cause) {
			h.lost(0)
		}
		h.Done()
	}
	k.mu.Lock()
	for len(k.holds) > 0 { // those that are ending elsewhere
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
	var jumped Instant // as the clock began, even if this goroutine starts late
	for {
		now := k.clock.check()
		if last := k.clock.jumped(); last != jumped {
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

// expireAll ends what has expired though its timer has not fired: timers do
// not see that the wall clock jumped.
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
