package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redis-kit/redlock"
)

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

// Any function that returns a new backoff.BackOff is a policy.
func ExampleRetryPolicy() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()
	ctx := context.Background()
	if _, err := locker.Acquire(ctx, "job", 30*time.Second); err != nil {
		log.Fatal(err)
	}

	// Two more attempts, 10 ms apart.
	twice := func() backoff.BackOff {
		return backoff.WithMaxRetries(backoff.NewConstantBackOff(10*time.Millisecond), 2)
	}
	_, err := locker.Acquire(ctx, "job", 30*time.Second, redlock.WithRetry(twice))
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired))
	// Output: true
}

func ExampleFixedRetry() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 30*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = lock.Release(ctx) })

	// Every 20 to 30 ms, until it is free or ctx ends.
	_, err = locker.Acquire(ctx, "job", 30*time.Second,
		redlock.WithRetry(redlock.FixedRetry(20*time.Millisecond, 10*time.Millisecond, -1)))
	fmt.Println(err)
	// Output: <nil>
}

func ExampleExponentialRetry() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()
	if _, err := locker.Acquire(ctx, "job", 30*time.Second); err != nil {
		log.Fatal(err)
	}

	// Until ctx ends: here it does first.
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err := locker.Acquire(ctx, "job", 30*time.Second,
		redlock.WithRetry(redlock.ExponentialRetry(10*time.Millisecond, time.Second)))
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired), errors.Is(err, context.DeadlineExceeded))
	// Output: true true
}

func ExampleNoRetry() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()
	if _, err := locker.Acquire(ctx, "job", 30*time.Second); err != nil {
		log.Fatal(err)
	}

	// Skip the work if another process holds the lock.
	err := redlock.Do(ctx, locker, "job", 30*time.Second, makeReport, redlock.WithRetry(redlock.NoRetry()))
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired))
	// Output: true
}

func ExampleWithGrace() {
	locker, stop := openNodes()
	defer stop()

	// No extension, so the lock ends. fn learns of it 1.5 s before.
	err := redlock.Do(context.Background(), locker, "ledger", 2*time.Second,
		func(ctx context.Context) error {
			lock, _ := redlock.FromContext(ctx)
			<-ctx.Done()
			fmt.Println("time left to stop in:", time.Now().Before(lock.Until()))
			return nil
		},
		redlock.WithoutAutoExtend(), redlock.WithGrace(1500*time.Millisecond))
	fmt.Println(errors.Is(err, redlock.ErrLost))
	// Output:
	// time left to stop in: true
	// true
}

func ExampleWithMaxHold() {
	locker, stop := openNodes()
	defer stop()

	// However often the lock is extended, it ends after 500 ms.
	err := redlock.Do(context.Background(), locker, "report", 10*time.Second,
		func(ctx context.Context) error {
			<-ctx.Done() // a function that would never end
			return context.Cause(ctx)
		},
		redlock.WithMaxHold(500*time.Millisecond))
	fmt.Println(errors.Is(err, redlock.ErrLost))
	// Output: true
}

func ExampleWithoutAutoExtend() {
	locker, stop := openNodes()
	defer stop()

	err := redlock.Do(context.Background(), locker, "report", 500*time.Millisecond,
		func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		},
		redlock.WithoutAutoExtend())
	fmt.Println(errors.Is(err, redlock.ErrLost))
	// Output: true
}

func ExampleWithExtendThreshold() {
	locker, stop := openNodes(redlock.WithExtendThreshold(900 * time.Millisecond))
	defer stop()

	// Extended whenever less than 900 ms remain: it outlasts its ttl.
	err := redlock.Do(context.Background(), locker, "report", time.Second, func(ctx context.Context) error {
		select {
		case <-time.After(1200 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	fmt.Println(err)
	// Output: <nil>
}

func ExampleWithLocalHandoff() {
	// Other processes have their turn after every release.
	locker, stop := openNodes(redlock.WithLocalHandoff(0))
	defer stop()
	fmt.Println(redlock.Do(context.Background(), locker, "report", 30*time.Second, makeReport))
	// Output: <nil>
}

func ExampleWithoutWaitQueue() {
	// For nodes whose user may not publish. The retry policy alone decides when to try again.
	locker, stop := openNodes(redlock.WithoutWaitQueue())
	defer stop()
	fmt.Println(redlock.Do(context.Background(), locker, "report", 30*time.Second, makeReport))
	// Output: <nil>
}

func ExampleWithKeyPrefix() {
	locker, stop := openNodes(redlock.WithKeyPrefix("shop:"))
	defer stop()

	lock, err := locker.Acquire(context.Background(), "order:456", 30*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lock.Key())
	// Output: shop:order:456
}

// Visits are counted under a lock per user, over nodes in other regions. The caller waits until
// the lock is acquired, and not until it is released.
func ExampleWithBackgroundRelease() {
	locker, stop := openNodes(redlock.WithBackgroundRelease())
	defer stop() // waits for the releases
	visits := 0
	for range 3 { // the same key again at once
		err := redlock.Do(context.Background(), locker, "user:123", 10*time.Second, func(context.Context) error {
			visits++
			return nil
		}, redlock.WithRetry(redlock.NoRetry()))
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(visits)
	// Output: 3
}

func ExampleWithMetadata() {
	locker, stop := openNodes(redlock.WithMetadata("host=web-1 pid=4711"))
	defer stop()
	ctx := context.Background()
	if _, err := locker.Acquire(ctx, "report", 30*time.Second); err != nil {
		log.Fatal(err)
	}

	_, err := locker.TryAcquire(ctx, "report", 30*time.Second)
	var refused *redlock.QuorumError
	if errors.As(err, &refused) {
		fmt.Println("held by", refused.Holder())
	}
	// Output: held by host=web-1 pid=4711
}

func ExampleWithNodeTimeout() {
	// Nodes on another continent, and clocks that are not kept well.
	locker, stop := openNodes(
		redlock.WithNodeTimeout(2*time.Second),
		redlock.WithDriftFactor(0.05))
	defer stop()

	lock, err := locker.Acquire(context.Background(), "job", 100*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Until(lock.Until()) < 95*time.Second) // 5 % and 2 ms less than the ttl
	// Output: true
}

func ExampleWithDriftFactor() {
	_, err := redlock.Open(context.Background(), []string{"redis://r1:6379"}, redlock.WithDriftFactor(0.5))
	fmt.Println(err)
	// Output: redlock: WithDriftFactor(0.5): must be between 0 and 0.1
}

// tokens gives out the passwords of an IAM user, and keeps each until it is about to expire.
var tokens interface {
	Token(ctx context.Context) (string, error)
}

// The endpoint of a hosted Cluster, whose passwords expire.
func ExampleWithCredentials() {
	locker, err := redlock.Open(context.Background(), []string{"rediss://locks.example.com:6379?cluster=true"},
		redlock.WithCredentials(func(ctx context.Context, addr string) (user, password string, err error) {
			password, err = tokens.Token(ctx)
			return "iam-user", password, err
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()
}
