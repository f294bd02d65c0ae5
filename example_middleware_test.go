package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/middleware"
	"github.com/redis-kit/redlock/otelhook"
)

// announce says when it is entered and left.
func announce(name string) redlock.Middleware {
	return func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			fmt.Println(name, "before", op.Kind)
			err := next(ctx, op)
			fmt.Println(name, "after", op.Kind)
			return err
		}
	}
}

func ExampleWithMiddleware() {
	locker, stop := openNodes( // a Locker over three nodes in memory
		redlock.WithMiddleware(announce("outer"), announce("middle")),
		redlock.WithMiddleware(announce("inner")))
	defer stop()

	err := redlock.Do(context.Background(), locker, "order:456", 30*time.Second, func(context.Context) error {
		fmt.Println("— the work —")
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// outer before acquire
	// middle before acquire
	// inner before acquire
	// inner after acquire
	// middle after acquire
	// outer after acquire
	// outer before hold
	// middle before hold
	// inner before hold
	// — the work —
	// inner after hold
	// middle after hold
	// outer after hold
	// outer before release
	// middle before release
	// inner before release
	// inner after release
	// middle after release
	// outer after release
}

// A middleware that refuses to lock anything but jobs.
func ExampleMiddleware() {
	jobsOnly := func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if op.Kind == redlock.OpAcquire && !strings.HasPrefix(op.Keys[0], "job:") {
				return fmt.Errorf("no lock on %q: keys must begin with %q", op.Keys[0], "job:")
			}
			return next(ctx, op)
		}
	}
	locker, stop := openNodes(redlock.WithMiddleware(jobsOnly))
	defer stop()
	ctx := context.Background()

	fmt.Println(redlock.Do(ctx, locker, "job:7", 30*time.Second, makeReport))
	fmt.Println(redlock.Do(ctx, locker, "user:7", 30*time.Second, makeReport))
	// Output:
	// <nil>
	// no lock on "user:7": keys must begin with "job:"
}

func ExamplePanicError() {
	faulty := func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if op.Kind == redlock.OpLost {
				panic("no such column") // on a goroutine of the Locker
			}
			return next(ctx, op)
		}
	}
	locker, stop := openNodes(redlock.WithMiddleware(faulty))
	defer stop()

	lock, err := locker.Acquire(context.Background(), "job", 500*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	<-lock.Context().Done() // nobody extends it

	var panicked *redlock.PanicError
	if errors.As(locker.Close(), &panicked) {
		fmt.Println(panicked.Value)
	}
	// Output: no such column
}

func Example_middleware() {
	ctx := context.Background()

	locker, err := redlock.Open(ctx, []string{"redis://r1:6379", "redis://r2:6379", "redis://r3:6379"},
		redlock.WithMiddleware(
			middleware.Log(slog.Default()), // acquired at debug, contention at info, loss and sick nodes at warn
			otelhook.New(),                 // spans and metrics, by the global OpenTelemetry providers
		))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	orders := middleware.HTTP(locker, 30*time.Second, middleware.HeaderKey("orders:", "Idempotency-Key"))
	http.Handle("POST /orders", orders(createOrder))
}

var createOrder = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
