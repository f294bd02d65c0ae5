package redlock_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/alicebob/miniredis/v2"

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
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://" + server.Addr()},
		redlock.WithMiddleware(announce("outer"), announce("middle")),
		redlock.WithMiddleware(announce("inner")))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	err = redlock.Do(ctx, locker, "order:456", 30*time.Second, func(context.Context) error {
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
