package redlock

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

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
	values context.Context // the lock's context has its values
}

func (l *Locker) acquire(ctx context.Context, keys []string, ttl time.Duration, opts []LockOption, wait bool) (*Lock, error) {
	config, err := l.lockConfig(opts)
	if err != nil {
		return nil, &opError{op: "acquire", keys: l.prefix(keys), what: err}
	}
	keys, err = l.lockKeys(ctx, keys, config.fence)
	if err != nil {
		return nil, err
	}
	r := request{keys: keys, ttl: ttl, config: config, wait: wait, values: ctx}
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
	var last *refusal // of the latest attempt that was decided
	verdict, here := quorum.Rejected, w.behindOthersHere()
	for ask := !here; ; ask = true {
		if ask {
			var lock *Lock
			var failed *refusal
			if lock, verdict, failed = l.attempt(ctx, r, op); failed == nil {
				op.polled()
				l.took(lock)
				return lock, nil
			}
			if verdict != quorum.Open || last == nil && !here {
				last = failed
			}
		}
		if why := l.interruption(ctx); why != nil {
			return nil, w.refused(last).because(why)
		}
		if !r.wait {
			return nil, w.refused(last)
		}
		lock, outcome, err := w.pause(ctx, verdict == quorum.Rejected)
		switch {
		case err != nil:
			return nil, &opError{op: "acquire", keys: r.keys, what: err, why: w.refused(last)}
		case lock != nil:
			return lock, nil
		case outcome == interrupted:
			return nil, w.refused(last).because(l.interruption(ctx))
		case outcome == over && ask:
			return nil, w.refused(last)
		case outcome == over: // nobody has been asked yet
			r.wait = false
		}
	}
}

// attempt asks every node once, with a fresh token. If it fails, whatever it may have set
// is released in the background (invariant 4).
func (l *Locker) attempt(ctx context.Context, r request, op *Op) (*Lock, quorum.Verdict, *refusal) {
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl}
	lock.context = heldContext{values: r.values, lock: lock}
	terms := keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold}
	lock.claim = &lock.own
	claim, keyTTL := lock.claim, l.keeper.KeyTTL(r.ttl, r.config.maxHold)
	claim.Init(r.keys, node.Tag(rand.Text(), r.config.metadata), len(l.nodes))
	claim.Ask(l.terms(r.config))

	start := l.keeper.Now() // before the first byte is sent (invariant 1)
	began := op.now()
	poll := l.panel.Open()
	for _, n := range l.nodes {
		n.Acquire(claim, keyTTL, poll)
	}
	// Where validity is shorter than the shortest node timeout, that is waited for all
	// the same: refusals that come late still tell who holds the lock.
	limit := max(l.keeper.Lasts(terms), minNodeTimeout)
	verdict := poll.Wait(ctx, l.closing, l.config.timeoutOf(r.ttl), limit, func(i int) (time.Time, error) {
		return l.nodes[i].Unsent(claim)
	})
	op.attempted(began, poll)
	granted := verdict == quorum.Carried
	var unconfirmed *quorum.Ballot
	if granted && r.config.fence {
		lock.fence, unconfirmed = l.confirm(ctx, claim, tally(poll), r.ttl, start.Add(l.keeper.Lasts(terms)), op)
		granted = lock.fence > 0
	}
	if granted && l.keeper.Hold(&lock.hold, &lock.context, claim, start, terms) {
		poll.Close()
		return lock, verdict, nil
	}
	ballot := poll.Ballot()
	poll.Close()
	claim.End()
	l.abandon(claim)
	if unconfirmed != nil {
		ballot, verdict = unconfirmed, unconfirmed.Verdict()
	}
	reason := ErrNoQuorum
	if verdict == quorum.Rejected {
		reason = ErrNotAcquired
	}
	return nil, verdict, &refusal{ballot, reason}
}

// refusal is how an attempt failed.
type refusal struct {
	ballot *quorum.Ballot
	reason error // ErrNotAcquired or ErrNoQuorum
}

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
