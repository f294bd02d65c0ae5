package main

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"github.com/redis-kit/redlock"
)

// The code of other libraries that docs/migration.md names. It is compiled, and
// not run.

func restock(context.Context, string) error { return nil }

func Example_redsync() {
	ctx := context.Background()
	rs := redsync.New(
		goredis.NewPool(redis.NewClient(&redis.Options{Addr: "r1:6379"})),
		goredis.NewPool(redis.NewClient(&redis.Options{Addr: "r2:6379"})),
		goredis.NewPool(redis.NewClient(&redis.Options{Addr: "r3:6379"})))

	mutex := rs.NewMutex("stock:42", redsync.WithExpiry(30*time.Second))
	if err := mutex.LockContext(ctx); err != nil {
		log.Fatal(err)
	}
	defer mutex.UnlockContext(ctx)
	err := restock(ctx, "42") // mutex.ExtendContext(ctx) where it takes longer than 30 s
	if err != nil {
		log.Println(err)
	}
}

func Example_redislock() {
	ctx := context.Background()
	locker := redislock.New(redis.NewClient(&redis.Options{Addr: "r1:6379"}))

	lock, err := locker.Obtain(ctx, "stock:42", 30*time.Second, &redislock.Options{
		RetryStrategy: redislock.LimitRetry(redislock.LinearBackoff(200*time.Millisecond), 3),
	})
	if errors.Is(err, redislock.ErrNotObtained) {
		return // others hold it
	} else if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)
	err = restock(ctx, "42") // lock.Refresh(ctx, 30*time.Second, nil) where it takes longer
	if err != nil {
		log.Println(err)
	}
}

func Example_rueidislock() {
	ctx := context.Background()
	locker, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption: rueidis.ClientOption{InitAddress: []string{"r1:6379"}},
		KeyMajority:  1,
		KeyValidity:  30 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	held, cancel, err := locker.WithContext(ctx, "stock:42")
	if err != nil {
		log.Fatal(err)
	}
	defer cancel()
	err = restock(held, "42")
	if err != nil {
		log.Println(err)
	}
}

// both takes both locks: the step of a migration where the old and the new lock cannot
// exclude each other.
func both(ctx context.Context, old rueidislock.Locker, locker *redlock.Locker) error {
	held, cancel, err := old.WithContext(ctx, "stock:42") // the old lock first, in every process
	if err != nil {
		return err
	}
	defer cancel()
	return redlock.Do(held, locker, "stock:42", 30*time.Second, func(ctx context.Context) error {
		return restock(ctx, "42")
	})
}

func Example_both() {
	if err := both(context.Background(), nil, nil); err != nil {
		log.Println(err)
	}
}
