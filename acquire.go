package redlock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/contest"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// request is what take is asked for.
type request struct {
	keys   []string
	ttl    time.Duration
	config lockConfig
	wait   bool
	auto   bool            // the lock is extended automatically from its beginning
	values context.Context // the lock's context has its values
}

func (l *Locker) acquire(ctx context.Context, r request, opts []LockOption) (*Lock, error) {
	config, err := l.lockConfig(opts)
	if err != nil {
		return nil, &opError{op: "acquire", keys: l.prefix(r.keys), what: err}
	}
	r.keys, err = l.lockKeys(ctx, r.keys, config.fence)
	if err != nil {
		return nil, err
	}
	r.config, r.values, r.auto = config, ctx, r.auto && !config.manual
	if l.chain == nil {
		return l.take(ctx, r, nil)
	}
	return l.acquireThrough(ctx, r)
}

// take acquires the keys: in one attempt or, with wait, in as many as the retry policy
// and ctx allow (invariant 8).
func (l *Locker) take(ctx context.Context, r request, op *Op) (*Lock, error) {
	if err := r.config.checkTTL(r.ttl, l.keeper.Validity(r.ttl)); err != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: err}
	}
	if err := l.config.checkTTL(r.ttl, r.config.fence); err != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: err}
	}
	if ctx.Err() != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: ErrNotAcquired, how: "nothing was tried", why: errors.Join(ctxErrors(ctx)...)}
	}
	if !l.begin() {
		return nil, &opError{op: "acquire", keys: r.keys, what: ErrClosed}
	}
	defer l.operations.Done()

	w := wait{locker: l, request: r, op: op}
	defer w.end()
	for {
		verdict := quorum.Rejected
		if !w.asks() {
			var lock *Lock
			if lock, verdict = l.attempt(ctx, &w); lock != nil {
				op.polled()
				l.took(lock)
				return lock, nil
			}
		}
		// A grant may have come while the nodes were asked.
		if lock := w.granted(ctx); lock != nil {
			return lock, nil
		}
		if why := l.interruption(ctx); why != nil {
			return nil, w.refused().because(why)
		}
		if !r.wait {
			return nil, w.refused()
		}
		lock, outcome, err := w.pause(ctx, verdict == quorum.Rejected)
		switch {
		case err != nil:
			return nil, &opError{op: "acquire", keys: r.keys, what: err, why: w.refused()}
		case lock != nil:
			return lock, nil
		case outcome == interrupted:
			return nil, w.refused().because(l.interruption(ctx))
		case outcome == over:
			return nil, w.refused()
		}
	}
}

// attempt asks every node once, with a fresh token, and settles the votes if they are
// split. If it fails, whatever it may have set is released in the background (invariant 4).
func (l *Locker) attempt(ctx context.Context, w *wait) (*Lock, quorum.Verdict) {
	r, op := &w.request, w.op
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl}
	lock.context = heldContext{values: r.values, lock: lock}
	lock.claim = &lock.own
	keyTTL := l.keeper.KeyTTL(r.ttl, r.config.maxHold)
	w.claim(lock.claim)
	asking, done := w.untilGranted(ctx)
	defer done()

	start := l.keeper.Now() // before the first byte is sent (invariant 1)
	began := op.now()
	poll := l.panel.Open()
	defer poll.Close()
	for _, n := range l.nodes {
		n.Acquire(lock.claim, keyTTL, poll)
	}
	// Where validity is shorter than the shortest node timeout, that is waited for all
	// the same: refusals that come late still tell who holds the lock.
	lasts := l.keeper.Lasts(keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold})
	timeout := l.config.timeoutOf(r.ttl)
	verdict := poll.Wait(asking, l.closing, timeout, max(lasts, minNodeTimeout), func(i int) (time.Time, error) {
		return l.nodes[i].Unsent(lock.claim)
	})
	var ballot *quorum.Ballot // of the contest, if there was one
	if verdict == quorum.Rejected && contest.Split(poll) && w.settles() {
		a := contest.Attempt{
			Nodes: l.nodes, Now: l.keeper.Now, Claim: lock.claim, Start: start, Renew: w.renewal(), TTL: keyTTL,
			Lasts: lasts, Trip: l.trip(), Patience: min(timeout, lasts),
		}
		verdict, ballot = a.Settle(asking, l.closing, poll)
		lock.claim, start = a.Claim, a.Start
	}
	op.attempted(began, poll, ballot)
	var failed *refusal
	if verdict == quorum.Carried {
		if failed = l.keep(ctx, w, lock, start, start.Add(lasts), tally(poll, ballot)); failed == nil {
			return lock, verdict
		}
		if failed.ballot != nil { // of the fence
			verdict = failed.ballot.Verdict()
			failed.reason = newRefusal(verdict, nil).reason
		}
	} else {
		failed = newRefusal(verdict, ballot)
	}
	if failed.ballot == nil {
		failed.ballot = poll.Ballot()
	}
	lock.claim.End()
	l.abandon(lock.claim)
	w.refuse(verdict, failed)
	return nil, verdict
}

// keep makes lock a lock, of a claim that a quorum has granted in an attempt that began at
// start and lasts until end: it agrees on the fence, and extends what has become too short.
func (l *Locker) keep(ctx context.Context, w *wait, lock *Lock, start, end keeper.Instant, n numbered) *refusal {
	r := &w.request
	if r.config.fence {
		var unconfirmed *quorum.Ballot
		lock.fence, unconfirmed = l.confirm(ctx, lock.claim, n, r.ttl, end, w.op)
		if lock.fence == 0 {
			return &refusal{ballot: unconfirmed, reason: ErrNoQuorum}
		}
	}
	validity := l.keeper.Validity(r.ttl)
	trip := l.keeper.Now().Sub(start) // at most: the attempt has taken a round trip to a quorum
	if trip > validity/20 {           // it may have settled split votes, or agreed on a fence
		trip = min(trip, l.trip())
	}
	terms, err := l.freshen(ctx, r, lock.claim, start, start.Add(validity), trip, WaitNone)
	if err != nil {
		return &refusal{reason: ErrNoQuorum, why: err}
	}
	if !l.keeper.Hold(&lock.hold, &lock.context, lock.claim, start, terms) {
		return &refusal{reason: ErrNoQuorum}
	}
	return nil
}

// refusal is how an attempt failed.
type refusal struct {
	ballot *quorum.Ballot
	reason error // ErrNotAcquired or ErrNoQuorum
	why    error // what the votes do not tell; nil if that is nothing
}

// newRefusal returns the refusal of an attempt that was not carried. ballot is that of the
// contest, nil if there was none.
func newRefusal(verdict quorum.Verdict, ballot *quorum.Ballot) *refusal {
	f := &refusal{ballot: ballot, reason: ErrNoQuorum}
	switch {
	case verdict == quorum.Rejected:
		f.reason = ErrNotAcquired
	case verdict == quorum.Unreachable && ballot != nil && ballot.Verdict() != quorum.Unreachable:
		f.why = errLeftovers
	}
	return f
}

var errLeftovers = errors.New("no owner has a quorum: the votes are split, as by keys that a process left when it died and that end with their ttl")

// abandon releases the keys of a claim that has ended, in the background.
func (l *Locker) abandon(claim *node.Claim) {
	for _, n := range l.nodes {
		n.Abandon(claim)
	}
}

// interruption returns what ended a wait: the closing of the Locker, ctx, or nothing.
func (l *Locker) interruption(ctx context.Context) []error {
	if l.isClosing() {
		return []error{ErrClosed}
	}
	return ctxErrors(ctx)
}

func (l *Locker) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// ctxErrors returns ctx's error, and its cause if that says more.
func ctxErrors(ctx context.Context) []error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(cause, err):
		return []error{cause}
	}
	return []error{err, cause}
}

// lockConfig returns the Locker's configuration with the options of one lock applied.
func (l *Locker) lockConfig(opts []LockOption) (lockConfig, error) {
	config := l.config.lock
	for i, o := range opts {
		if o == nil {
			return config, argumentError("option %d is nil", i)
		}
		config = o.applyLock(config)
	}
	return config, config.check()
}

// lockKeys checks the keys and returns them as they are on the nodes, sorted and without
// duplicates. It changes keys.
func (l *Locker) lockKeys(ctx context.Context, keys []string, fence bool) ([]string, error) {
	if len(keys) == 0 {
		return nil, opErrorf("acquire", nil, "no keys: at least one is needed")
	}
	if i := slices.Index(keys, ""); i >= 0 {
		if len(keys) == 1 {
			return nil, opErrorf("acquire", keys, "key is empty: any other string is accepted")
		}
		return nil, opErrorf("acquire", keys, "keys[%d] is empty: any other string is accepted", i)
	}
	keys = l.prefix(keys)
	for _, key := range keys {
		if err := node.Reserved(key); err != nil {
			return nil, &opError{op: "acquire", keys: []string{key}, what: err}
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, n := range l.nodes {
		if err := n.Check(keys); err != nil {
			return nil, opErrorf("acquire", keys, "node %s: %w", n.Name(), err)
		}
		if !fence {
			continue
		}
		if err := n.CheckCounters(keys); err != nil {
			return nil, opErrorf("acquire", keys, "WithFence: node %s: %w", n.Name(), err)
		}
	}
	for lock, ok := FromContext(ctx); ok; lock, ok = FromContext(lock.context.values) {
		if lock.locker != l || !lock.Valid() {
			continue
		}
		for _, key := range lock.claim.Keys {
			if slices.Contains(keys, key) {
				return nil, &opError{op: "acquire", keys: []string{key}, what: ErrAlreadyHeld, how: "valid until " + clockTime(lock.Until()) + ": waiting for it would be a deadlock"}
			}
		}
	}
	return keys, nil
}

// prefix returns the keys as they are on the nodes. It changes keys.
func (l *Locker) prefix(keys []string) []string {
	if l.config.keyPrefix != "" {
		for i := range keys {
			keys[i] = l.config.keyPrefix + keys[i]
		}
	}
	return keys
}
