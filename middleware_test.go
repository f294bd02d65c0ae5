package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// recorder is a middleware that notes what it sees.
type recorder struct {
	mu  sync.Mutex // guards what follows
	ops []redlock.Op
	err []error
}

func (r *recorder) middleware(next redlock.Handler) redlock.Handler {
	return func(ctx context.Context, op *redlock.Op) error {
		err := next(ctx, op)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops, r.err = append(r.ops, *op), append(r.err, err)
		return err
	}
}

func (r *recorder) find(kind redlock.Kind) (op redlock.Op, n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, o := range r.ops {
		if o.Kind == kind {
			op, err = o, r.err[i]
			n++
		}
	}
	return op, n, err
}

// waits returns the number of acquisitions by how they waited.
func (r *recorder) waits() map[redlock.WaitKind]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds := make(map[redlock.WaitKind]int)
	for _, op := range r.ops {
		if op.Kind == redlock.OpAcquire {
			kinds[op.Wait]++
		}
	}
	return kinds
}

func TestMiddlewareSeesEveryOperation(t *testing.T) {
	ns := start(t, 3)
	var r recorder
	l := ns.open(redlock.WithMiddleware(r.middleware))
	_, err := ns.servers[1].Do("SET", "k", "another", "PX", "200")
	require.NoError(t, err)
	_, err = ns.servers[2].Do("SET", "k", "another", "PX", "200")
	require.NoError(t, err)
	var token string
	err = redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		token = lock.Token()
		first := lock.Until()
		eventually.True(t, "extended", func() bool {
			_, n, _ := r.find(redlock.OpExtend) // the extension that completes a grant is part of the acquisition
			return n > 0 && lock.Until().Sub(first) > 500*ms
		})
		return errWork
	}, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
	require.Equal(t, errWork, err)

	op, n, err := r.find(redlock.OpAcquire)
	require.NoError(t, err)
	require.Equal(t, 1, n, "the whole wait is one operation")
	require.Equal(t, []string{"k"}, op.Keys)
	require.Equal(t, time.Second, op.TTL)
	require.Equal(t, token, op.Lock.Token())
	require.Equal(t, 1, op.Attempts, "from then on the queues are asked")
	require.GreaterOrEqual(t, op.Waited, 50*ms)
	require.Len(t, op.Tries, op.Attempts)
	require.Len(t, op.Tries[0].Votes, 3)
	require.ErrorContains(t, op.Tries[0].Votes[1].Err, "another owner")
	require.Equal(t, ns.proxies[1].Addr(), op.Tries[0].Votes[1].Node)
	require.False(t, op.Lock.Until().IsZero())

	_, n, err = r.find(redlock.OpHold)
	require.Equal(t, errWork, err)
	require.Equal(t, 1, n)
	op, n, err = r.find(redlock.OpExtend)
	require.NoError(t, err)
	require.Positive(t, n)
	require.Len(t, op.Tries, 1)
	_, n, err = r.find(redlock.OpRelease)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, n, _ = r.find(redlock.OpLost)
	require.Zero(t, n)
}

func TestVotesTellRefusalsFromFailures(t *testing.T) {
	ns := start(t, 3)
	var r recorder
	l := ns.open(redlock.WithMiddleware(r.middleware))
	kinds := func(kind redlock.Kind) (kinds []redlock.VoteKind) {
		op, _, _ := r.find(kind)
		for _, v := range op.Tries[len(op.Tries)-1].Votes {
			require.Equal(t, v.Kind == redlock.VoteGranted, v.Err == nil)
			kinds = append(kinds, v.Kind)
		}
		return kinds
	}
	each := func(args ...string) {
		for _, s := range ns.servers {
			_, err := s.Do(args...)
			require.NoError(t, err)
		}
	}
	// Any two of the three may answer first, and the third may give any answer.
	const granted, refused, failed = redlock.VoteGranted, redlock.VoteRefused, redlock.VoteFailed

	each("SET", "owned", "another")
	_, err := l.TryAcquire(t.Context(), "owned", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.Subset(t, []redlock.VoteKind{refused, redlock.VoteSilent}, kinds(redlock.OpAcquire))

	lock, err := l.TryAcquire(t.Context(), "gone", time.Minute)
	require.NoError(t, err)
	require.Subset(t, []redlock.VoteKind{granted, redlock.VoteSilent}, kinds(redlock.OpAcquire))
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("gone", lock.Token()) == 3 })
	each("DEL", "gone")
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrLost)
	require.Subset(t, []redlock.VoteKind{refused, redlock.VoteSilent}, kinds(redlock.OpExtend))

	lock, err = l.TryAcquire(t.Context(), "taken", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("taken", lock.Token()) == 3 })
	each("SET", "taken", "another")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	require.Subset(t, []redlock.VoteKind{refused, redlock.VoteSilent}, kinds(redlock.OpRelease))

	lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool { return ns.holders("k", lock.Token()) == 3 })
	ns.servers[0].Kill()
	ns.servers[1].Kill()
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNoQuorum)
	require.Subset(t, []redlock.VoteKind{granted, failed, redlock.VoteSilent}, kinds(redlock.OpExtend))
	require.Equal(t, []redlock.VoteKind{failed, failed}, kinds(redlock.OpExtend)[:2])
	_, err = l.TryAcquire(t.Context(), "other", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.Equal(t, []redlock.VoteKind{failed, failed}, kinds(redlock.OpAcquire)[:2])
}

func TestMiddlewareIsToldOfALossOfManualLocksToo(t *testing.T) {
	ns := start(t, 3)
	var r recorder
	l := ns.open(redlock.WithMiddleware(r.middleware))
	lock, err := l.TryAcquire(t.Context(), "manual", 400*ms)
	require.NoError(t, err)
	<-lock.Context().Done()
	eventually.True(t, "told", func() bool { _, n, _ := r.find(redlock.OpLost); return n == 1 })
	op, _, err := r.find(redlock.OpLost)
	require.ErrorIs(t, err, redlock.ErrLost)
	require.Same(t, lock, op.Lock)
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	_, _, err = r.find(redlock.OpRelease)
	require.ErrorIs(t, err, redlock.ErrNotHeld)

	err = redlock.Do(t.Context(), l, "with", 400*ms, func(ctx context.Context) error { <-ctx.Done(); return nil }, redlock.WithoutAutoExtend())
	require.ErrorIs(t, err, redlock.ErrLost)
	_, _, err = r.find(redlock.OpHold)
	require.ErrorIs(t, err, redlock.ErrLost, "hold sees the loss too")
	eventually.True(t, "told", func() bool { _, n, _ := r.find(redlock.OpLost); return n == 2 })

	_, err = l.TryAcquire(t.Context(), "closed", time.Minute)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, _, err = r.find(redlock.OpLost)
	require.Equal(t, redlock.ErrClosed, err)
}

func TestMiddlewareMayRefuse(t *testing.T) {
	refusal := errors.New("not today")
	refuse := func(kind redlock.Kind) redlock.Option {
		return redlock.WithMiddleware(lockertest.On(kind, func(context.Context, *redlock.Op, redlock.Handler) error { return refusal }))
	}
	ns := start(t, 3)

	_, err := ns.open(refuse(redlock.OpAcquire)).TryAcquire(t.Context(), "k", time.Minute)
	require.Equal(t, refusal, err)
	require.True(t, ns.released())

	err = redlock.Do(t.Context(), ns.open(refuse(redlock.OpHold)), "k", time.Minute, func(context.Context) error {
		t.Error("fn ran")
		return nil
	})
	require.Equal(t, refusal, err)
	eventually.True(t, "released", ns.empty)

	lock, err := ns.open(refuse(redlock.OpExtend)).TryAcquire(t.Context(), "k", 300*ms)
	require.NoError(t, err)
	until := lock.Until()
	require.Equal(t, refusal, lock.Extend(t.Context(), 0))
	require.NoError(t, lock.AutoExtend(0))
	<-lock.Context().Done()
	require.Equal(t, until, lock.Until(), "automatic extension is refused too")
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrLost)
	require.ErrorIs(t, context.Cause(lock.Context()), refusal, "and the cause says so")

	lock, err = ns.open(refuse(redlock.OpRelease)).Acquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.Equal(t, refusal, lock.Release(t.Context()))
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrReleased, "a release cannot be refused")
	eventually.True(t, "released", ns.empty)
}

func TestMiddlewareMayAlterTheTTLAndTheContext(t *testing.T) {
	type key struct{}
	ns := start(t, 3)
	l := ns.open(redlock.WithMiddleware(
		lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			op.TTL = time.Hour
			return next(ctx, op)
		}),
		lockertest.On(redlock.OpExtend, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			op.TTL *= 2
			return next(ctx, op)
		}),
		lockertest.On(redlock.OpHold, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return next(context.WithValue(ctx, key{}, "from middleware"), op)
		})))
	err := redlock.Do(t.Context(), l, "k", time.Second, func(ctx context.Context) error {
		require.Equal(t, "from middleware", ctx.Value(key{}))
		lock, ok := redlock.FromContext(ctx)
		require.True(t, ok)
		require.Greater(t, time.Until(lock.Until()), 50*time.Minute)
		require.NoError(t, lock.Extend(ctx, 0))
		require.Greater(t, time.Until(lock.Until()), 110*time.Minute)
		return nil
	})
	require.NoError(t, err)

	l = ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		op.TTL = 0
		return next(ctx, op)
	})))
	_, err = l.TryAcquire(t.Context(), "k", time.Second)
	require.EqualError(t, err, `redlock: acquire "k": ttl 0s: must be from 10ms to 87600h0m0s`)
}

func TestMiddlewareThatMisusesAnAcquisitionLeaksNoLock(t *testing.T) {
	failed := errors.New("failed afterwards")
	ns := start(t, 3)
	for name, do := range map[string]func(ctx context.Context, op *redlock.Op, next redlock.Handler) error{
		"fails afterwards": func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), failed)
		},
		"calls next twice": func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			return errors.Join(next(ctx, op), next(ctx, op))
		},
		"does nothing": func(context.Context, *redlock.Op, redlock.Handler) error { return nil },
		"forges a lock": func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			op.Lock = &redlock.Lock{}
			return nil
		},
	} {
		lock, err := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, do))).TryAcquire(t.Context(), "k", time.Hour)
		require.Error(t, err, name)
		require.Nil(t, lock, name)
		eventually.True(t, name, ns.empty)
	}
}

func TestAMiddlewareThatDoesNothingIsAnError(t *testing.T) {
	ns := start(t, 3)
	nothing := func(context.Context, *redlock.Op, redlock.Handler) error { return nil }
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpHold, nothing), lockertest.On(redlock.OpExtend, nothing)))
	_, err := redlock.With(t.Context(), l, "k", time.Hour, func(context.Context) (int, error) {
		require.Fail(t, "it does not run")
		return 1, nil
	})
	require.EqualError(t, err, `redlock: hold "k": a middleware returned nil without calling next`)
	lock, err := l.Acquire(t.Context(), "k", time.Hour)
	require.NoError(t, err)
	require.EqualError(t, lock.Extend(t.Context(), 0), `redlock: extend "k": a middleware returned nil without calling next`)
}

// The middleware's ttl counts from then on, and decides when the lock is extended.
func TestALockWhoseTTLAMiddlewareCutIsKept(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		op.TTL = time.Second
		return next(ctx, op)
	})))
	err := redlock.Do(t.Context(), l, "k", time.Hour, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		first := lock.Until()
		eventually.True(t, "extended twice", func() bool { return lock.Until().Sub(first) > time.Second || ctx.Err() != nil })
		return context.Cause(ctx)
	})
	require.NoError(t, err)
}

// silentError returns its text only once its channel is closed.
type silentError chan struct{}

func (e silentError) Error() string { <-e; return "at last" }

func TestTheTextOfAnErrorDelaysNoCancellation(t *testing.T) {
	ns := start(t, 3)
	refused := make(silentError)
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpExtend, func(context.Context, *redlock.Op, redlock.Handler) error { return refused })))
	lock, err := l.Acquire(t.Context(), "k", 300*ms)
	require.NoError(t, err)
	require.NoError(t, lock.AutoExtend(0))
	eventually.True(t, "ended", func() bool { return lock.Context().Err() != nil })
	cause := context.Cause(lock.Context())
	require.ErrorIs(t, cause, redlock.ErrLost)
	require.ErrorIs(t, cause, refused)
	close(refused)
	require.ErrorContains(t, cause, "not extended: at last")
}

func TestAMiddlewareThatEndsTheLockersGoroutineEndsOneExtensionOnly(t *testing.T) {
	ns := start(t, 3)
	var times atomic.Int64
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpExtend, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		if times.Add(1) == 1 {
			runtime.Goexit()
		}
		return next(ctx, op)
	})))
	err := redlock.Do(t.Context(), l, "k", 2*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		first := lock.Until()
		eventually.True(t, "extended", func() bool { return lock.Until().After(first) || ctx.Err() != nil })
		return context.Cause(ctx)
	})
	require.NoError(t, err)
}

func TestAReleaseThatPanickedHasNotSucceeded(t *testing.T) {
	ns := start(t, 3)
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpRelease, func(context.Context, *redlock.Op, redlock.Handler) error { panic("mine") })))
	lock, err := l.Acquire(t.Context(), "k", time.Hour)
	require.NoError(t, err)
	require.PanicsWithValue(t, "mine", func() { _ = lock.Release(t.Context()) })
	require.ErrorContains(t, lock.Release(t.Context()), "redlock: release \"k\": no quorum of nodes: a middleware panicked")
	eventually.True(t, "released all the same", ns.empty)
}

func TestAPanickingMiddlewareWedgesNothing(t *testing.T) {
	ns := start(t, 3)
	for _, kind := range []redlock.Kind{redlock.OpAcquire, redlock.OpHold, redlock.OpRelease} {
		for _, after := range []bool{false, true} {
			var r recorder
			l := ns.open(redlock.WithMiddleware(r.middleware, lockertest.On(kind, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
				if after {
					_ = next(ctx, op)
				}
				panic("middleware")
			})))
			require.PanicsWithValue(t, "middleware", func() {
				_ = redlock.Do(t.Context(), l, "k", time.Hour, func(context.Context) error { return nil })
			}, "%v, after=%v", kind, after)
			eventually.True(t, fmt.Sprint(kind, " released"), ns.empty)
			require.NoError(t, l.Close())
		}
	}
	// On the Locker's side it must not end the process, nor keep a lock from ending.
	l := ns.open(redlock.WithMiddleware(
		lockertest.On(redlock.OpExtend, func(context.Context, *redlock.Op, redlock.Handler) error { panic("in extend") }),
		lockertest.On(redlock.OpLost, func(context.Context, *redlock.Op, redlock.Handler) error { panic("in lost") })))
	err := redlock.Do(t.Context(), l, "k", 200*ms, func(ctx context.Context) error { <-ctx.Done(); return nil })
	require.ErrorIs(t, err, redlock.ErrLost)
	require.ErrorContains(t, err, "in extend")
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }))
	require.Equal(t, "in extend", panicIn(t, l.Close()), "the first")
}

// panicIn returns the value of the PanicError in err, whose stack must show the place of
// the panic.
func panicIn(t *testing.T, err error) any {
	t.Helper()
	var panicked *redlock.PanicError
	require.ErrorAs(t, err, &panicked)
	require.Contains(t, string(panicked.Stack), "middleware_test.go")
	require.ErrorContains(t, err, fmt.Sprint("a middleware panicked: ", panicked.Value))
	return panicked.Value
}

func TestAPanicOnTheLockersGoroutineCanBeSeen(t *testing.T) {
	ns := start(t, 3)
	panics := func(kind redlock.Kind, after bool) redlock.Middleware {
		return lockertest.On(kind, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			if after {
				_ = next(ctx, op)
			} else {
				*op = redlock.Op{} // a middleware must not; the process does not end
			}
			panic(kind)
		})
	}
	t.Run("by those further out", func(t *testing.T) {
		var r recorder
		told := func(kind redlock.Kind) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, err := range r.err {
				var panicked *redlock.PanicError
				if errors.As(err, &panicked) && panicked.Value == kind {
					return err
				}
			}
			return nil
		}
		l := ns.open(redlock.WithMiddleware(r.middleware, panics(redlock.OpExtend, true), panics(redlock.OpLost, true)))
		lock, err := l.TryAcquire(t.Context(), "k", time.Second)
		require.NoError(t, err)
		first := lock.Until()
		require.NoError(t, lock.AutoExtend(0))
		eventually.True(t, "extended all the same", func() bool { return lock.Until().After(first) && told(redlock.OpExtend) != nil })
		panicIn(t, told(redlock.OpExtend))
		lock.StopAutoExtend()
		eventually.True(t, "told", func() bool { return told(redlock.OpLost) != nil })
		panicIn(t, told(redlock.OpLost))
		require.ErrorIs(t, told(redlock.OpLost), redlock.ErrLost, "and the cause")
		require.Equal(t, redlock.OpExtend, panicIn(t, l.Close()), "the first")
	})
	t.Run("in the cause of a loss", func(t *testing.T) {
		l := ns.open(redlock.WithMiddleware(panics(redlock.OpExtend, false)))
		err := redlock.Do(t.Context(), l, "lost", 200*ms, func(ctx context.Context) error { <-ctx.Done(); return nil })
		require.ErrorIs(t, err, redlock.ErrLost)
		require.Equal(t, redlock.OpExtend, panicIn(t, err))
	})
	t.Run("from Close", func(t *testing.T) {
		l := ns.open(redlock.WithMiddleware(panics(redlock.OpLost, false)))
		_, err := l.TryAcquire(t.Context(), "closed", time.Minute)
		require.NoError(t, err)
		require.Equal(t, redlock.OpLost, panicIn(t, l.Close()), "though Close itself ended the lock")
		require.NoError(t, l.Close(), "once")
	})
}

func TestABlockingMiddlewareDelaysNoCancellation(t *testing.T) {
	ns := start(t, 3)
	unblock := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(unblock) }) }
	defer free()
	l := ns.open(redlock.WithMiddleware(lockertest.On(redlock.OpExtend, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		if op.Keys[0] == "blocked" {
			<-unblock
		}
		return next(ctx, op)
	})))
	err := redlock.Do(t.Context(), l, "other", 2*time.Second, func(ctx context.Context) error {
		other, _ := redlock.FromContext(ctx)
		first := other.Until()
		blocked, err := l.TryAcquire(t.Context(), "blocked", 300*ms)
		require.NoError(t, err)
		require.NoError(t, blocked.AutoExtend(0))
		until := blocked.Until()
		<-blocked.Context().Done()
		require.Equal(t, until, blocked.Until())
		eventually.True(t, "another lock is extended", func() bool { return other.Until().Sub(first) > time.Second })
		return context.Cause(ctx)
	})
	require.NoError(t, err)
	free()
}

func TestKindsHaveNames(t *testing.T) {
	require.Equal(t, "acquire hold extend release lost Kind(0) Kind(9)", fmt.Sprint(redlock.OpAcquire, " ", redlock.OpHold, " ", redlock.OpExtend, " ", redlock.OpRelease, " ", redlock.OpLost, " ", redlock.Kind(0), " ", redlock.Kind(9)))
}

func TestANilMiddlewareIsRefused(t *testing.T) {
	ns := start(t, 1)
	c, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{ns.servers[0].Addr()}}))
	require.NoError(t, err)
	defer c.Close()
	_, err = redlock.New([]rueidis.Client{c}, redlock.WithMiddleware((&recorder{}).middleware, nil))
	require.EqualError(t, err, "redlock: WithMiddleware: middleware 1 is nil: must be a Middleware")
}
