package redlock_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// waitLog notes how the acquires of a Locker ended, and why no queue served them.
type waitLog struct {
	mu    sync.Mutex
	kinds []redlock.WaitKind
	errs  []error // that are not nil
}

func (w *waitLog) middleware() redlock.Option {
	return redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		err := next(ctx, op)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.kinds = append(w.kinds, op.Wait)
		if op.QueueErr != nil {
			w.errs = append(w.errs, op.QueueErr)
		}
		return err
	}))
}

// take returns what was noted since the last call.
func (w *waitLog) take() ([]redlock.WaitKind, []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kinds, errs := w.kinds, w.errs
	w.kinds, w.errs = nil, nil
	return kinds, errs
}

// soon returns a ctx that a wait that hangs runs into, and no other.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	t.Cleanup(cancel)
	return ctx
}

// within waits for k, which another Locker holds and releases once the wait has begun.
func within(t *testing.T, l, holder *redlock.Locker, opts ...redlock.LockOption) {
	t.Helper()
	ctx := soon(t)
	held, err := holder.Acquire(ctx, "k", time.Minute, untilFree)
	require.NoError(t, err)
	released := make(chan error, 1)
	time.AfterFunc(200*ms, func() { released <- held.Release(ctx) })
	lock, err := l.Acquire(ctx, "k", time.Minute, opts...)
	require.NoError(t, err)
	require.NoError(t, <-released)
	require.NoError(t, lock.Release(ctx))
}

// byQueue has a wait end by a grant alone: there is no other attempt.
var byQueue = redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1))
