package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/redis-kit/redlock"
)

// The code that docs/migration.md names; that of the other libraries is in the module
// benchmarks.

func restock(context.Context, string) error        { return nil }
func withdraw(context.Context, string, int) error  { return nil }
func depositTo(context.Context, string, int) error { return nil }

func Example_fromRedsync() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	err := redlock.Do(ctx, locker, "stock:42", 30*time.Second, func(ctx context.Context) error {
		return restock(ctx, "42") // extended for as long as it takes
	}, redlock.WithRetry(redlock.FixedRetry(50*time.Millisecond, 200*time.Millisecond, 31))) // redsync's default
	fmt.Println(err)
	// Output: <nil>
}

func Example_fromRedislock() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	err := redlock.Do(ctx, locker, "stock:42", 30*time.Second, func(ctx context.Context) error {
		return restock(ctx, "42") // extended for as long as it takes
	}, redlock.WithRetry(redlock.FixedRetry(200*time.Millisecond, 0, 3)))
	if errors.Is(err, redlock.ErrNotAcquired) {
		return // others hold it
	} else if err != nil {
		log.Fatal(err)
	}
}

func Example_fromRueidislock() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	err := redlock.Do(ctx, locker, "stock:42", 30*time.Second, func(ctx context.Context) error {
		return restock(ctx, "42")
	}, redlock.WithRetry(redlock.FixedRetry(time.Second, 0, -1))) // until ctx ends, as WithContext does
	fmt.Println(err)
	// Output: <nil>
}

func Example_fromNodeRedlock() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	_, err := redlock.WithAll(ctx, locker, []string{"account:ann", "account:bob"}, 30*time.Second,
		func(ctx context.Context) (struct{}, error) {
			if err := withdraw(ctx, "ann", 10); err != nil { // fails once ctx has ended
				return struct{}{}, err
			}
			return struct{}{}, depositTo(ctx, "bob", 10)
		},
		redlock.WithRetry(redlock.FixedRetry(100*time.Millisecond, 200*time.Millisecond, 10))) // its default
	fmt.Println(err)
	// Output: <nil>
}
