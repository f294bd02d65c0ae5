// Package keeper keeps the holds of one Locker: it ends each at its deadline,
// by a timer of the hold's own, and extends those that are to be extended, in
// one pipeline per node for all that are due. A held lock costs no goroutine.
//
// State has these owners: a hold's validity is one atomic word, written by
// compare-and-swap; when a hold is extended next, and what waits to be sent,
// is guarded by the Keeper's mutex, under which nothing blocks and no code of
// a user's runs; the votes of one extension are guarded by its round's.
package keeper

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// tries is how often an extension is tried before validity ends: the
	// first when the threshold is reached, the others spread over what
	// remains.
	tries = 4
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
	// of its own, and at most once at a time for a hold. It is to call
	// ExtendDue; what it returns is why it did not.
	Extend func(*Hold) error
	// Lost, if set, is called when a hold has ended that was not released, on
	// a goroutine of its own.
	Lost func(*Hold)
}

// Loss says how a hold was lost.
type Loss struct {
	Claim  *node.Claim
	Until  time.Time      // the end of its validity
	Capped bool           // it was held for as long as its terms allow
	Ballot *quorum.Ballot // the last extension, if it was not carried
	Err    error          // why the last extension was not even tried, if so
	Jump   *Jump          // what skipped the end of the hold, if that did
}

// Keeper keeps holds. All its methods are safe for concurrent use.
type Keeper struct {
	config Config
	clock  *clock
	wake   chan struct{} // has room for one: the loop looks at everything anew
	stop   chan struct{}
	// running are the goroutines: the loop, one for each lane that has
	// something to send, and those of Config.Extend and Config.Lost.
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows, and the holds' scheduling
	closed  bool
	holds   map[*Hold]struct{}
	emptied sync.Cond // signalled when no hold is left
	queue   queue
	lanes   []lane
	planned Instant // when the loop looks next
}

// lane is what waits to be extended on one node. At most one pipeline of the
// Keeper's is on its way to a node; what comes due meanwhile goes into the next.
type lane struct {
	waiting []*Hold
	busy    bool
}

// round is one extension of one hold, on all nodes.
type round struct {
	hold  *Hold
	start Instant
	ttl   time.Duration

	mu       sync.Mutex // guards what follows
	ballot   *quorum.Ballot
	extended bool          // the hold was extended by it
	settled  chan struct{} // closed when it is carried or cannot be; nil if nobody waits
}

const never = Instant(1<<63 - 1)

// New starts a Keeper.
func New(config Config) *Keeper {
	k := &Keeper{
		config:  config,
		clock:   newClock(),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		holds:   make(map[*Hold]struct{}),
		lanes:   make([]lane, len(config.Nodes)),
		planned: never,
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

// Hold starts to keep a claim that a quorum granted in an attempt that began
// at start, and fills in h. It reports false, and the claim is the caller's to
// release, if that took so long that nothing is left of its validity, or if the
// Keeper is closed. The hold's ctx is a child of ctx.
func (k *Keeper) Hold(h *Hold, ctx context.Context, claim *node.Claim, start Instant, terms Terms) bool {
	h.keeper, h.claim, h.terms, h.max, h.index = k, claim, terms, never, -1
	if terms.MaxHold > 0 {
		h.max = start.Add(terms.MaxHold)
	}
	deadline := min(start.Add(k.Validity(terms.TTL)), h.max).Add(-terms.Grace)
	h.deadline.Store(int64(deadline))
	left := deadline.Sub(k.clock.now())
	if left <= 0 {
		return false
	}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	// Reset orders the write of h.timer before fire, which reads it.
	h.timer = time.AfterFunc(time.Hour, h.fire)

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		h.timer.Stop()
		h.cancel(nil)
		return false
	}
	h.timer.Reset(left)
	k.holds[h] = struct{}{}
	k.plan(k.clock.now().Add(tick))
	return true
}

// Auto has the hold extended, by its ttl, whenever less than threshold remains
// of its validity, until it ends.
func (h *Hold) Auto(threshold time.Duration) {
	k := h.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	h.threshold = threshold
	k.schedule(h, 0)
}

// StopAuto has the hold no longer extended.
func (h *Hold) StopAuto() {
	k := h.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	h.threshold = 0
	k.schedule(h, 0)
}

// Extend extends the hold once, now, to ttl from now. The ballot tells what
// the nodes said; the hold was extended if it is true.
func (h *Hold) Extend(ctx context.Context, ttl, timeout time.Duration) (*quorum.Ballot, bool) {
	k := h.keeper
	start := k.clock.now()
	ballot := k.config.Panel.Ask(ctx, k.stop, timeout, func(i int) quorum.Reply {
		return k.config.Nodes[i].Extend(h.claim, ttl)
	})
	return ballot, h.settle(start, ttl, ballot)
}

// settle draws the consequence of an extension's votes, and reports whether
// validity stands as the extension asked.
func (h *Hold) settle(start Instant, ttl time.Duration, ballot *quorum.Ballot) bool {
	k := h.keeper
	if ballot.Verdict() != quorum.Carried {
		// Enough nodes answered that they do not hold us for no quorum to be
		// left, whatever the others say: it is over now (invariant 2). A node
		// that was refilled is one of them: another may have held it between.
		if ballot.Denied() {
			h.lose(ballot)
		} else {
			h.failed.Store(&failure{ballot: ballot})
		}
		return false
	}
	if !h.advance(start.Add(k.Validity(ttl))) {
		return false
	}
	h.failed.Store(nil)
	k.mu.Lock()
	k.schedule(h, start)
	k.mu.Unlock()
	return true
}

// Close ends every hold with cause, and has the claims released. Nothing is
// kept from then on.
func (k *Keeper) Close(cause error) {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	for _, h := range k.all() {
		if h.end(cause) {
			h.lost()
		}
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

// Wait returns when the Keeper's goroutines have ended, which takes that the
// nodes are closed too.
func (k *Keeper) Wait() { k.running.Wait() }

// run starts the extensions that are due.
func (k *Keeper) run() {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	var jumped Instant // as the clock began, even if this goroutine starts late
	for {
		now := k.clock.now()
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

// startDue starts a round for each hold that is due, and returns when to look
// again.
func (k *Keeper) startDue(now Instant) Instant {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.queue) > 0 && k.queue[0].due <= now {
		h := k.queue[0]
		h.due = now.Add(h.retry()) // unless it is extended before
		heap.Fix(&k.queue, 0)
		switch {
		case k.closed:
		case k.config.Extend == nil:
			if h.round != nil {
				h.round.unsettled(h.retry())
			}
			k.dispatch(&round{hold: h, start: now, ttl: h.terms.TTL})
		case !h.extending:
			h.extending = true
			k.running.Go(func() { k.extendThrough(h) })
		}
	}
	k.planned = never
	if len(k.holds) > 0 {
		k.planned = now.Add(tick)
	}
	if len(k.queue) > 0 {
		k.planned = min(k.planned, k.queue[0].due)
	}
	return k.planned
}

// retry is the time from one try to the next.
func (h *Hold) retry() time.Duration { return max(h.threshold/tries, time.Millisecond) }

// schedule sets when h is extended next, given its validity and when its last
// extension started. k.mu is held.
func (k *Keeper) schedule(h *Hold, last Instant) {
	deadline := h.deadline.Load()
	if h.threshold == 0 || deadline < 0 || Instant(deadline).Add(h.terms.Grace) >= h.max {
		k.unschedule(h)
		return
	}
	h.due = Instant(deadline).Add(h.terms.Grace - h.threshold)
	if last > 0 { // with a threshold near the ttl, extensions would follow each other at once
		h.due = max(h.due, last.Add(h.retry()))
	}
	if h.index < 0 {
		heap.Push(&k.queue, h)
	} else {
		heap.Fix(&k.queue, int(h.index))
	}
	k.plan(h.due)
}

func (k *Keeper) unschedule(h *Hold) {
	if h.index >= 0 {
		heap.Remove(&k.queue, int(h.index))
	}
}

// plan makes the loop look at due at the latest. k.mu is held.
func (k *Keeper) plan(due Instant) {
	if due >= k.planned {
		return
	}
	k.planned = due
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// forget drops a hold that has ended. It is the last that is done about one:
// Close waits for it.
func (k *Keeper) forget(h *Hold) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.holds, h)
	k.unschedule(h)
	if len(k.holds) == 0 {
		k.emptied.Broadcast()
	}
}

// extendThrough has Config.Extend extend a hold that is due.
func (k *Keeper) extendThrough(h *Hold) {
	defer func() { // also if it ends its goroutine
		k.mu.Lock()
		defer k.mu.Unlock()
		h.extending = false
	}()
	if err := k.config.Extend(h); err != nil {
		h.failed.Store(&failure{err: err})
	}
}

// ExtendDue extends a hold by ttl, as part of a Config.Extend, and waits for
// the outcome, but no longer than until the next try is due; a quorum that
// comes later counts all the same.
func (h *Hold) ExtendDue(ttl time.Duration) (*quorum.Ballot, bool) {
	k := h.keeper
	r := &round{hold: h, start: k.clock.now(), ttl: ttl, settled: make(chan struct{})}
	k.mu.Lock()
	patience := h.retry()
	k.dispatch(r)
	k.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.settled:
	case <-timer.C:
	case <-h.ctx.Done():
	case <-k.stop:
	}
	ballot := r.unsettled(patience)
	r.mu.Lock()
	defer r.mu.Unlock()
	return ballot, r.extended
}

// unsettled is how a round stands after a time. If it is still open, that is
// noted as the failure of its hold's latest extension.
func (r *round) unsettled(after time.Duration) *quorum.Ballot {
	r.mu.Lock()
	defer r.mu.Unlock()
	ballot := r.ballot.Clone()
	if ballot.Verdict() == quorum.Open {
		ballot.Close(fmt.Errorf("%w within %v", quorum.ErrNoReply, after))
		r.hold.failed.Store(&failure{ballot: ballot})
	}
	return ballot
}

// dispatch puts a round of its hold in every lane. k.mu is held.
func (k *Keeper) dispatch(r *round) {
	h := r.hold
	h.round, r.ballot = r, quorum.NewBallot(len(k.lanes))
	if k.closed {
		return
	}
	for i := range k.lanes {
		l := &k.lanes[i]
		if h.queued&(1<<i) != 0 {
			continue // it has not been sent yet, and will be with the new round
		}
		h.queued |= 1 << i
		l.waiting = append(l.waiting, h)
		if !l.busy {
			l.busy = true
			k.running.Go(func() { k.serve(i) })
		}
	}
}

// serve sends what waits in lane i until nothing does. It may hang with its
// node, and nobody waits for it.
func (k *Keeper) serve(i int) {
	for {
		rounds := k.take(i)
		if rounds == nil {
			return
		}
		batch := make([]node.Extension, len(rounds))
		for j, r := range rounds {
			batch[j] = node.Extension{Claim: r.hold.claim, TTL: r.ttl}
		}
		for j, reply := range k.config.Nodes[i].ExtendAll(batch) {
			rounds[j].cast(i, reply)
		}
	}
}

// take empties lane i, or ends its service if it is empty.
func (k *Keeper) take(i int) []*round {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := &k.lanes[i]
	if len(l.waiting) == 0 {
		l.busy = false
		return nil
	}
	rounds := make([]*round, len(l.waiting))
	for j, h := range l.waiting {
		h.queued &^= 1 << i
		rounds[j] = h.round
	}
	clear(l.waiting)
	l.waiting = l.waiting[:0]
	return rounds
}

// cast counts a node's reply. The vote that carries the round draws the
// consequence, and so does each from the one on with which it cannot be carried
// any more. A round that a later one has overtaken still counts, for its own
// start.
func (r *round) cast(node int, reply quorum.Reply) {
	r.mu.Lock()
	before := r.ballot.Verdict()
	r.ballot.Cast(node, reply)
	var news *quorum.Ballot // a copy, since later votes still come in
	if before != quorum.Carried && r.ballot.Verdict() != quorum.Open {
		news = r.ballot.Clone()
	}
	r.mu.Unlock()
	if news == nil {
		return
	}
	extended := r.hold.settle(r.start, r.ttl, news)
	if before == quorum.Open && r.settled != nil {
		r.mu.Lock()
		r.extended = extended
		r.mu.Unlock()
		close(r.settled)
	}
}

// queue is the holds to be extended, the one that is due first in front.
type queue []*Hold

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = int32(i), int32(j)
}
func (q *queue) Push(x any) {
	h := x.(*Hold)
	h.index = int32(len(*q))
	*q = append(*q, h)
}
func (q *queue) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	h.index = -1
	return h
}
