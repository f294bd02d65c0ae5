package redlock

import (
	"context"
	"time"
)

// acquireThrough runs take inside the middleware. If a middleware fails or panics after
// the lock was acquired, the lock is released.
func (l *Locker) acquireThrough(ctx context.Context, r request) (*Lock, error) {
	op := &Op{Kind: OpAcquire, Keys: r.keys, TTL: r.ttl, locker: l, run: runAcquire, request: r}
	kept := false
	defer func() {
		if !kept && op.acquired != nil {
			op.acquired.drop()
		}
	}()
	if err := l.chain(ctx, op); err != nil {
		return nil, err
	}
	if op.acquired == nil {
		return nil, opErrorf("acquire", r.keys, "a middleware returned nil, and there is no lock: it must call next, and return its error")
	}
	kept = true
	return op.acquired, nil
}

func runAcquire(ctx context.Context, op *Op) error {
	if op.acquired != nil {
		return opErrorf("acquire", op.Keys, "a middleware called next again after it had succeeded")
	}
	r := op.request
	r.ttl = op.TTL
	lock, err := op.locker.take(ctx, r, op)
	op.acquired, op.Lock = lock, lock
	return err
}

// op returns an operation on the lock.
func (l *Lock) op(kind Kind, ttl time.Duration, run Handler) *Op {
	return &Op{Kind: kind, Keys: l.claim.Keys, TTL: ttl, Lock: l, locker: l.locker, run: run}
}

// through runs an operation inside the middleware.
func (l *Lock) through(ctx context.Context, op *Op) error { return l.locker.chain(ctx, op) }

// notRun returns the error of an operation that no middleware refused, but that was not run
// either.
func (l *Lock) notRun(op *Op) error {
	return opErrorf(op.Kind.String(), op.Keys, "a middleware returned nil without calling next")
}

func runExtend(ctx context.Context, op *Op) error {
	op.ran = true
	return op.Lock.extend(ctx, op.TTL, op)
}

func runRelease(_ context.Context, op *Op) error { return op.Lock.release(op) }

func runLost(_ context.Context, op *Op) error { return op.Lock.cause() }

// drop ends the lock, if it has not ended, and releases its keys in the background.
func (l *Lock) drop() {
	if !l.locker.begin() {
		return // Close ends it
	}
	defer l.locker.operations.Done()
	if l.hold.End(ErrReleased) {
		l.locker.nodes.Abandon(l.claim)
		l.noteReleased()
	}
	l.hold.Done()
}

// extendDue runs an automatic extension inside the middleware. It returns an error only
// if a middleware kept the extension from being tried.
func (l *Lock) extendDue() error {
	op := l.op(OpExtend, l.ttl, runDue)
	op.background = true
	if err := l.through(l.Context(), op); !op.ran {
		return err
	}
	return nil
}

func runDue(_ context.Context, op *Op) error {
	op.ran = true
	if err := op.Lock.checkExtension(op.TTL); err != nil {
		return err
	}
	start := time.Now()
	ballot, extended := op.Lock.hold.ExtendDue(op.TTL)
	op.record(start, ballot)
	if extended {
		return nil
	}
	return op.Lock.notExtended(ballot)
}

// tellLost tells the middleware that a lock ended without being released.
func (l *Lock) tellLost() {
	op := l.op(OpLost, l.ttl, runLost)
	op.background = true
	_ = l.through(l.Context(), op) // the cause, which the middleware has seen
}
