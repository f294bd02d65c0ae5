package redlock_test

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/redis-kit/redlock"
)

type Profile struct{ Name string }

func update(context.Context) (Profile, error)       { return Profile{}, nil }
func processPayment(context.Context, string) error  { return nil }
func migrateBatch(ctx context.Context, _ int) error { return ctx.Err() }

func Example() {
	ctx := context.Background()

	locker, err := redlock.Open(ctx, []string{"redis://r1:6379", "redis://r2:6379", "redis://r3:6379"})
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	profile, err := redlock.With(ctx, locker, "user:123:profile", 30*time.Second,
		func(ctx context.Context) (Profile, error) { return update(ctx) })

	switch {
	case errors.Is(err, redlock.ErrNotAcquired): // others hold it
	case errors.Is(err, redlock.ErrNoQuorum): // too many nodes are down
	case errors.Is(err, redlock.ErrLost): // it ended while update ran
	case err == nil:
		log.Println(profile.Name)
	}
}

func ExampleLocker_Acquire() {
	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://r1:6379"})
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	lock, err := locker.Acquire(ctx, "payment:order:456", 10*time.Second)
	if errors.Is(err, redlock.ErrNotAcquired) {
		return // others hold it
	} else if err != nil {
		log.Fatal(err) // says which node answered what
	}
	defer lock.Release(ctx)

	if err := processPayment(lock.Context(), "456"); err != nil {
		log.Println(err, context.Cause(lock.Context()))
	}
}

func ExampleLock_AutoExtend() {
	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://r1:6379"})
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	lock, err := locker.Acquire(ctx, "data-migration", 30*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx) // stops the extension too

	// Extend whenever less than 5 s remain.
	if err := lock.AutoExtend(5 * time.Second); err != nil {
		log.Fatal(err)
	}
	for batch := range 100 {
		if err := migrateBatch(lock.Context(), batch); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleWithRetry() {
	ctx := context.Background()

	locker, err := redlock.Open(ctx, []string{"redis://r1:6379", "redis://r2:6379", "redis://r3:6379"},
		redlock.WithRetry(redlock.FixedRetry(200*time.Millisecond, 100*time.Millisecond, 5)),
		redlock.WithGrace(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	// One lock may differ: wait for as long as ctx allows, hold for a minute at most.
	err = redlock.Do(ctx, locker, "report", 20*time.Second, makeReport,
		redlock.WithRetry(redlock.ExponentialRetry(50*time.Millisecond, 2*time.Second)),
		redlock.WithMaxHold(time.Minute))
	if err != nil {
		log.Println(err)
	}
}

func makeReport(context.Context) error { return nil }
