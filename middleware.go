package redlock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// Handler carries out an operation.
type Handler func(ctx context.Context, op *Op) error

// Middleware wraps the handler of every operation of a [Locker]. The ctx that it
// passes to next is the one that the next middleware sees and, for [OpHold], the one
// that fn gets. The Handler that it returns is called concurrently.
//
// A middleware runs on the caller's goroutine for [OpAcquire], [OpHold], [OpRelease], and
// for an [OpExtend] that comes from [Lock.Extend]. For automatic extensions, [OpLost], and
// OpRelease with [WithBackgroundRelease] it runs on a goroutine of the Locker. There it must
// not block or close the Locker. If it does block, it delays the extension of that lock, or
// [Locker.Close], but never the end of its context. At most about 4 000 automatic extensions
// run in the middleware at a time.
// An extension that takes far longer than the rest, as when a middleware blocks, does not
// count toward that limit, so it does not delay the extensions of other locks for long.
//
// A middleware that returns an error without calling next refuses the operation.
// Only a release cannot be refused: the lock ends anyway. If a middleware returns an
// error after an acquire has succeeded, the lock is released.
//
// A middleware must call next on the goroutine that it was called on, and return
// after next has returned. If it returns earlier for OpHold, fn goes on without the
// lock: With releases it, ends fn's ctx and returns an error.
//
// A panic reaches the caller, after the lock has been released. On a goroutine of the
// Locker a panic would end the process, so there it becomes a [PanicError], which next
// returns to the middleware further out: put the logging middleware first. If a panic
// prevented an extension and the lock is then lost, the cause of the loss matches the
// PanicError. [Locker.Close] returns the first PanicError.
type Middleware func(next Handler) Handler

// PanicError is a panic of a [Middleware] on a goroutine of the [Locker]: in an
// automatic extension, or in [OpLost], where it is joined with the cause of the loss.
// Find it with [errors.As].
type PanicError struct {
	Value any    // what the middleware panicked with
	Stack []byte // as [debug.Stack] formats it
}

// Error returns the text of Value, without the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("redlock: a middleware panicked: %v", e.Value)
}

// WithMiddleware wraps every operation of the [Locker]. The first middleware is the
// outermost. If the option is given several times, each appends to the chain:
//
//	WithMiddleware(a, b), WithMiddleware(c)
//
//	a before ─ b before ─ c before ─ operation ─ c after ─ b after ─ a after
//
// [New] and [Open] build the chain once. Without middleware, operations cost nothing more.
// The default is none.
func WithMiddleware(middleware ...Middleware) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.middleware = append(slices.Clip(c.middleware), middleware...)
		return c
	})
}

// chain returns the handler of all operations. Without middleware it is nil, and operations run
// without an [Op], which would cost an allocation.
func chain(middleware []Middleware) Handler {
	if len(middleware) == 0 {
		return nil
	}
	handler := Handler(func(ctx context.Context, op *Op) error { return op.run(ctx, op) })
	for _, m := range slices.Backward(middleware) {
		handler = guarded(m(handler))
	}
	return handler
}

// guarded returns the handler of one middleware with its panics turned into errors on
// the Locker's own goroutines.
func guarded(handler Handler) Handler {
	return func(ctx context.Context, op *Op) (err error) {
		if op.background {
			// A middleware may change op, so Lock and Kind are read now.
			defer op.Lock.recovered(op.Kind, &err)
		}
		return handler(ctx, op)
	}
}

// recovered is deferred around a middleware. It turns a panic into *err.
func (l *Lock) recovered(kind Kind, err *error) {
	value := recover()
	if value == nil {
		return
	}
	panicked := &PanicError{Value: value, Stack: debug.Stack()}
	l.locker.panicked.CompareAndSwap(nil, panicked)
	*err = panicked
	if kind == OpLost {
		*err = errors.Join(panicked, l.cause())
	}
}

// acquireThrough runs take inside the middleware. If a middleware returns an error or panics
// after the lock was acquired, the lock is released.
func (l *Locker) acquireThrough(ctx context.Context, r request) (*Lock, error) {
	op := &Op{Kind: OpAcquire, Keys: r.keys, TTL: r.ttl, locker: l, run: runAcquire, request: r}
	returned := false
	defer func() {
		if !returned && op.acquired != nil {
			op.acquired.drop()
		}
	}()
	if err := l.chain(ctx, op); err != nil {
		return nil, err
	}
	if op.acquired == nil {
		return nil, opErrorf("acquire", r.keys, "a middleware returned nil, and there is no lock: it must call next, and return its error")
	}
	returned = true
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

// through runs an operation on the lock inside the middleware.
func (l *Lock) through(ctx context.Context, op *Op) error { return l.locker.chain(ctx, op) }

// notRun returns the error of an operation for which a middleware returned nil but did not call
// next.
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
		return // Close ends the lock
	}
	defer l.locker.operations.Done()
	if l.hold.End(ErrReleased) {
		l.locker.nodes.Abandon(l.claim)
		l.noteEnded()
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
	tally, extended := op.Lock.hold.ExtendDue(op.TTL)
	op.record(start, tally)
	if extended {
		return nil
	}
	return op.Lock.notExtended(tally)
}

// tellLost tells the middleware that a lock ended without being released.
func (l *Lock) tellLost() {
	op := l.op(OpLost, l.ttl, runLost)
	op.background = true
	_ = l.through(l.Context(), op) // returns the cause of the loss, which the middleware has seen
}
