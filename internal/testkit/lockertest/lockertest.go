// Package lockertest provides Lockers and middleware for tests.
package lockertest

import (
	"context"
	"testing"

	"github.com/redis-kit/redlock"
)

// Open returns a Locker over the nodes, which is closed at the end of the test.
func Open(t testing.TB, urls []string, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	l, err := redlock.Open(context.Background(), urls, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // fails where the test has broken the nodes
	return l
}

// On returns a middleware for one kind of operation.
func On(kind redlock.Kind, do func(ctx context.Context, op *redlock.Op, next redlock.Handler) error) redlock.Middleware {
	return func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if op.Kind == kind {
				return do(ctx, op, next)
			}
			return next(ctx, op)
		}
	}
}
