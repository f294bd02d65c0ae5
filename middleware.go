package redlock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
)

// Handler carries out an operation.
type Handler func(ctx context.Context, op *Op) error

// Middleware wraps the handler of every operation of a Locker. What it passes
// on as ctx is what the next one sees and, for OpHold, what fn gets.
//
// It is called on the caller's goroutine for OpAcquire, OpHold, OpRelease and
// an Extend that was asked for; on one of the Locker's for automatic extension
// and OpLost, and must not block there, nor close the Locker: it can hold up the
// extension of that lock, but never the end of its context. It is called
// concurrently.
//
// A middleware that returns an error without calling next refuses the
// operation; only a release cannot be refused: the lock ends all the same. If
// it fails an acquisition that succeeded, the lock is released.
//
// A middleware calls next on its own goroutine, and returns when next has
// returned. One that returns before, on OpHold, leaves fn to run without the
// lock: With releases it and returns, with an error, and fn's ctx ends.
//
// A panic passes to the caller, with the lock released. On a goroutine of the
// Locker's, where it would end the process, it becomes the middleware's error, a
// PanicError. The middleware further out gets it from next: so the one that logs
// should be given first. If an automatic extension was not tried for it, it is
// in the cause of the loss that may follow. And Close returns the first.
type Middleware func(next Handler) Handler

// PanicError is what becomes of a panic of a middleware on a goroutine of the
// Locker's, on automatic extension and OpLost. Find it with errors.As. On
// OpLost it is joined with the cause of the loss.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // as debug.Stack formats it
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("redlock: a middleware panicked: %v", e.Value)
}

// WithMiddleware wraps every operation of the Locker. The first is the
// outermost, and the option may be given several times:
//
//	WithMiddleware(a, b), WithMiddleware(c)
//
//	a before ─ b before ─ c before ─ operation ─ c after ─ b after ─ a after
//
// The chain is built once, by New or Open. Without middleware an operation
// costs nothing for it.
func WithMiddleware(middleware ...Middleware) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.middleware = append(slices.Clip(c.middleware), middleware...)
		return c
	})
}

// chain builds the handler of all operations; nil without middleware.
func chain(middleware []Middleware) Handler {
	if len(middleware) == 0 {
		return nil
	}
	handler := Handler(func(ctx context.Context, op *Op) error { return op.run(ctx, op) })
	for i := len(middleware) - 1; i >= 0; i-- {
		handler = guarded(middleware[i](handler))
	}
	return handler
}

// guarded is the handler of one middleware, whose panics do not leave it on the
// Locker's own goroutines.
func guarded(handler Handler) Handler {
	return func(ctx context.Context, op *Op) (err error) {
		if op.background {
			// op is the middleware's to spoil from here on.
			defer op.Lock.recovered(op.Kind, &err)
		}
		return handler(ctx, op)
	}
}

// recovered is deferred around a middleware.
func (l *Lock) recovered(kind Kind, err *error) {
	value := recover()
	if value == nil {
		return
	}
	panicked := &PanicError{Value: value, Stack: debug.Stack()}
	l.locker.panicked.CompareAndSwap(nil, panicked)
	*err = panicked
	if kind == OpLost {
		*err = errors.Join(panicked, l.ended())
	}
}
