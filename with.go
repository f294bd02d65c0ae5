package redlock

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// With acquires the lock on key, as [Locker.Acquire] does, runs fn, keeps the lock
// extended until fn returns, and releases it.
//
// fn's ctx is a child of ctx. If the lock is lost it ends too, with a cause that
// matches [ErrLost], before another process can own the lock (see the conditions
// in the package documentation). fn should then return: nothing it does from then
// on is protected. If the caller's ctx ends, the lock stays extended until fn
// returns. Inside fn, [FromContext] returns the lock.
//
// With returns fn's value and fn's error. If the lock was lost before fn returned,
// With returns fn's value and an error that matches [ErrLost] and fn's error. An
// error of the release never replaces them. If the lock cannot be acquired, fn does
// not run, and With returns Acquire's error.
//
// If fn panics or calls [runtime.Goexit], the lock is released and the panic or
// exit continues.
func With[T any](ctx context.Context, l *Locker, key string, ttl time.Duration, fn func(context.Context) (T, error), opts ...LockOption) (T, error) {
	return with(ctx, l, []string{key}, ttl, fn, opts)
}

// WithAll is [With] for several keys: it acquires all of them or none, as
// [Locker.AcquireAll] does.
func WithAll[T any](ctx context.Context, l *Locker, keys []string, ttl time.Duration, fn func(context.Context) (T, error), opts ...LockOption) (T, error) {
	return with(ctx, l, keys, ttl, fn, opts)
}

// Do is [With] for a function that returns only an error.
func Do(ctx context.Context, l *Locker, key string, ttl time.Duration, fn func(context.Context) error, opts ...LockOption) error {
	if fn == nil {
		return l.noFunction(key)
	}
	_, err := With(ctx, l, key, ttl, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

// FromContext returns the lock that ctx belongs to: that of the innermost [With], or
// the [Lock] whose [Lock.Context] is ctx or a parent of it. It reports false if there is none.
func FromContext(ctx context.Context) (*Lock, bool) {
	lock, ok := ctx.Value(lockKey{}).(*Lock)
	return lock, ok
}

// lockKey is the key of the innermost lock in a ctx.
type lockKey struct{}

func with[T any](ctx context.Context, l *Locker, keys []string, ttl time.Duration, fn func(context.Context) (T, error), opts []LockOption) (value T, err error) {
	if fn == nil {
		return value, l.noFunction(keys...)
	}
	lock, err := l.acquire(ctx, request{keys: slices.Clone(keys), ttl: ttl, waits: true, auto: true}, opts)
	if err != nil {
		return value, err
	}
	// Deferred without recover: a panic keeps its stack, and Goexit passes.
	defer lock.Release(ctx)
	if !lock.config.manual {
		lock.hold.Auto(lock.config.thresholdOf(lock.ttl))
	}
	fnCtx, cancel := context.WithCancelCause(context.WithValue(ctx, lockKey{}, lock))
	lock.hold.Bind(cancel) // the end of the hold ends fnCtx
	if l.chain != nil {
		return holdThrough(fnCtx, lock, fn)
	}
	value, err = fn(fnCtx)
	return value, lostBefore(lock, err)
}

// holdThrough runs fn inside the middleware.
func holdThrough[T any](fnCtx context.Context, lock *Lock, fn func(context.Context) (T, error)) (T, error) {
	var run outcome[T]
	op := lock.op(OpHold, lock.ttl, func(ctx context.Context, _ *Op) (err error) {
		run.begin()
		var value T
		defer func() { run.end(value) }() // also if fn panics, and a middleware recovers
		value, err = fn(ctx)
		return lostBefore(lock, err)
	})
	err := lock.through(fnCtx, op)
	value, begun, running := run.take()
	switch {
	case err != nil:
	case !begun:
		err = lock.notRun(op)
	case running:
		err = opErrorf("hold", op.Keys, "a middleware returned nil before next had returned: fn is still running")
	}
	return value, err
}

func (l *Locker) noFunction(keys ...string) error {
	return opErrorf("hold", l.prefix(slices.Clone(keys)), "fn is nil: must be a function")
}

// outcome carries fn's value past the middleware. A middleware that returns before next does
// leaves fn running when With returns ([Middleware] promises an error for that). So fn's
// value is written and read under a mutex.
type outcome[T any] struct {
	mu      sync.Mutex // guards what follows
	value   T          // of the latest call of fn
	begun   bool       // fn was called
	running int        // calls of fn that have not returned
}

func (o *outcome[T]) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = true
	o.running++
}

func (o *outcome[T]) end(value T) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.value = value
	o.running--
}

func (o *outcome[T]) take() (value T, begun, running bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.value, o.begun, o.running > 0
}

// lostBefore returns fn's error, joined with the loss if the lock was lost before fn
// returned.
func lostBefore(lock *Lock, err error) error {
	if lock.Valid() {
		return err
	}
	lost := lock.cause()
	switch {
	case errors.Is(lost, ErrReleased) && !errors.Is(lost, ErrLost):
		return err // fn released it itself
	case !errors.Is(lost, ErrLost): // the Locker was closed
		lost = &opError{op: "hold", keys: lock.claim.Keys, what: ErrLost, why: lost}
	}
	if err == nil || errors.Is(lost, err) {
		return lost
	}
	return errors.Join(err, lost)
}
