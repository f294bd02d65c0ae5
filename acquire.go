package redlock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// request is what is asked of take.
type request struct {
	keys   []string
	ttl    time.Duration
	config lockConfig
	wait   bool
	values context.Context // what the lock's context has the values of
}

func (l *Locker) acquire(ctx context.Context, keys []string, ttl time.Duration, opts []LockOption, wait bool) (*Lock, error) {
	config, err := l.lockConfig(opts)
	if err != nil {
		return nil, err
	}
	keys, err = l.lockKeys(ctx, keys)
	if err != nil {
		return nil, err
	}
	r := request{keys: keys, ttl: ttl, config: config, wait: wait, values: ctx}
	if l.chain == nil {
		return l.take(ctx, r, nil)
	}
	return l.acquireThrough(ctx, r)
}

// take takes the keys: in one attempt or, with wait, in as many as the retry
// policy and ctx allow (invariant 8).
func (l *Locker) take(ctx context.Context, r request, op *Op) (*Lock, error) {
	if err := r.config.checkTTL(r.ttl, l.keeper.Validity(r.ttl)); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %s: nothing was tried: %w", ErrNotAcquired, quoted(r.keys), errors.Join(ctxErrors(ctx)...))
	}
	if !l.begin() {
		return nil, fmt.Errorf("%w: acquire %s", ErrClosed, quoted(r.keys))
	}
	defer l.operations.Done()

	var pauses backoff.BackOff
	var last *QuorumError // what the latest attempt that was decided came to
	for {
		lock, verdict, failed := l.attempt(ctx, r, op)
		if failed == nil {
			return lock, nil
		}
		if verdict != quorum.Open || last == nil {
			last = failed
		}
		if why := l.interruption(ctx); why != nil {
			return nil, last.because(why)
		}
		if !r.wait {
			return nil, failed
		}
		if pauses == nil {
			if pauses = r.config.retry(); pauses == nil {
				return nil, argumentError("WithRetry: the policy returned nil: must return a backoff.BackOff; after: %w", failed)
			}
			pauses.Reset() // one that a literal makes is not ready before
		}
		pause := pauses.NextBackOff()
		if pause == backoff.Stop {
			return nil, failed
		}
		if !l.pause(ctx, pause, op) {
			return nil, failed.because(l.interruption(ctx))
		}
	}
}

// attempt asks every node once, with a token of its own. Whatever it leaves
// behind if it fails is released, in the background (invariant 4).
func (l *Locker) attempt(ctx context.Context, r request, op *Op) (*Lock, quorum.Verdict, *QuorumError) {
	lock := &Lock{locker: l, config: r.config, ttl: r.ttl}
	lock.context = heldContext{values: r.values, lock: lock}
	terms := keeper.Terms{TTL: r.ttl, Grace: r.config.grace, MaxHold: r.config.maxHold}
	claim, keyTTL := &lock.claim, l.keeper.KeyTTL(r.ttl, r.config.maxHold)
	claim.Init(r.keys, rand.Text(), len(l.nodes))

	start := l.keeper.Now() // before the first byte is sent (invariant 1)
	began := op.now()
	poll := l.panel.Open()
	for _, n := range l.nodes {
		n.Acquire(claim, keyTTL, poll)
	}
	verdict := poll.Wait(ctx, l.closing, l.config.timeoutOf(r.ttl), l.keeper.Lasts(terms), func(i int) (time.Time, error) {
		return l.nodes[i].Unsent(claim)
	})
	op.attempted(began, poll)
	if verdict == quorum.Carried {
		if l.keeper.Hold(&lock.hold, &lock.context, claim, start, terms) {
			poll.Close()
			return lock, verdict, nil
		}
	}
	ballot := poll.Ballot()
	poll.Close()
	claim.End()
	l.abandon(claim)
	reason := ErrNoQuorum
	if verdict == quorum.Rejected {
		reason = ErrNotAcquired
	}
	return nil, verdict, l.quorumError("acquire", r.keys, ballot, reason)
}

// abandon has the keys of a claim that has ended released, in the background.
func (l *Locker) abandon(claim *node.Claim) {
	for _, n := range l.nodes {
		n.Abandon(claim)
	}
}

// pause waits for d. It reports false if ctx or the Locker ended before.
func (l *Locker) pause(ctx context.Context, d time.Duration, op *Op) bool {
	began := op.now()
	defer op.waited(began)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-l.closing:
	}
	return false
}

// interruption is what ended a wait, if anything did.
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

// ctxErrors is ctx's error, and its cause where that says more.
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

// lockConfig is the Locker's configuration with the options of one lock.
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

// lockKeys checks the keys, which are its own, and returns them sorted and without
// duplicates.
func (l *Locker) lockKeys(ctx context.Context, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, argumentError("no keys: at least one is needed")
	}
	if i := slices.Index(keys, ""); i >= 0 {
		if len(keys) == 1 {
			return nil, argumentError("key is empty: any other string is accepted")
		}
		return nil, argumentError("keys[%d] is empty: any other string is accepted", i)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, n := range l.nodes {
		if err := n.Check(keys); err != nil {
			return nil, argumentError("node %s: %w", n.Name(), err)
		}
	}
	for lock, ok := FromContext(ctx); ok; lock, ok = FromContext(lock.context.values) {
		if lock.locker != l || !lock.Valid() {
			continue
		}
		for _, key := range lock.claim.Keys {
			if slices.Contains(keys, key) {
				return nil, fmt.Errorf("%w: %q, valid until %s: waiting for it would be a deadlock", ErrAlreadyHeld, key, clockTime(lock.Until()))
			}
		}
	}
	return keys, nil
}
