package redlock_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/redis-kit/redlock"
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
