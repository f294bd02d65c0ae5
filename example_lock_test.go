package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock"
)

func ExampleOpen() {
	urls, stop := startNodes(3) // in memory
	defer stop()
	ctx := context.Background()

	locker, err := redlock.Open(ctx, append(urls, "redis://localhost:1")) // nobody listens on the fourth
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	fmt.Println(redlock.Do(ctx, locker, "report", 30*time.Second, makeReport))
	// Output: <nil>
}

func ExampleNew() {
	urls, stop := startNodes(3) // in memory
	defer stop()

	var clients []rueidis.Client
	for _, url := range append(urls, "redis://localhost:1") { // nobody listens on the fourth
		option, err := rueidis.ParseURL(url)
		if err != nil {
			log.Fatal(err)
		}
		option.ForceSingleClient = true // one server
		client, err := rueidis.NewClient(redlock.Tune(option))
		if client == nil {
			log.Fatal(err)
		}
		if err != nil {
			fmt.Println("one node is down, and may come back")
		}
		defer client.Close() // after the Locker
		clients = append(clients, client)
	}
	locker, err := redlock.New(clients)
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	fmt.Println(redlock.Do(context.Background(), locker, "report", 30*time.Second, makeReport))
	// Output:
	// one node is down, and may come back
	// <nil>
}

func ExampleTune() {
	// A Sentinel group whose Sentinels have a password of their own.
	option := redlock.Tune(rueidis.ClientOption{
		InitAddress: []string{"s1:26379", "s2:26379", "s3:26379"},
		Username:    "redlock", Password: "…",
		Sentinel: rueidis.SentinelOption{MasterSet: "mymaster", Password: "…"},
	})
	fmt.Println(option.AlwaysPipelining, option.Dialer.Timeout, option.Sentinel.TopologyRefreshInterval)
	// Output: true 1s 5s
}

func ExampleLock() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lock.Key(), len(lock.Token()) > 26, lock.Valid(), lock.Until().After(time.Now()))
	fmt.Println(lock.Release(ctx), lock.Valid())
	// Output:
	// job true true true
	// <nil> false
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

func ExampleLocker_TryAcquire() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()
	ctx := context.Background()

	lock, err := locker.TryAcquire(ctx, "job", 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	_, err = locker.TryAcquire(ctx, "job", 10*time.Second)
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired))

	if err := lock.Release(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = locker.TryAcquire(ctx, "job", 10*time.Second)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

func ExampleLocker_AcquireAll() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.AcquireAll(ctx, []string{"b", "a", "b"}, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)

	fmt.Println(lock.Keys())
	_, err = locker.TryAcquireAll(ctx, []string{"b", "c"}, 10*time.Second) // c stays free
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired))
	// Output:
	// [a b]
	// true
}

func ExampleLocker_TryAcquireAll() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	both := []string{"account:ann", "account:bob"}
	lock, err := locker.TryAcquireAll(ctx, both, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)

	_, err = locker.TryAcquireAll(ctx, both, 10*time.Second)
	fmt.Println(errors.Is(err, redlock.ErrNotAcquired))
	// Output: true
}

func ExampleLocker_Ping() {
	urls, stop := startNodes(2)
	defer stop()
	locker, err := redlock.Open(context.Background(), append(urls, "redis://127.0.0.1:1")) // nobody is there
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	http.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if _, err := locker.Ping(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})

	nodes, err := locker.Ping(context.Background())
	for _, node := range nodes {
		fmt.Println(node.Err == nil)
	}
	fmt.Println(err)
	// Output:
	// true
	// true
	// false
	// <nil>
}

func ExampleLocker_Close() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(locker.Close())
	fmt.Println(context.Cause(lock.Context()))
	_, err = locker.Acquire(ctx, "job", 10*time.Second)
	fmt.Println(errors.Is(err, redlock.ErrClosed))
	// Output:
	// <nil>
	// redlock: locker closed
	// true
}

func ExampleLock_Context() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 500*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	<-lock.Context().Done() // nobody extends it
	fmt.Println(errors.Is(context.Cause(lock.Context()), redlock.ErrLost), lock.Valid())
	// Output: true false
}

func ExampleLock_Extend() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)

	if err := lock.Extend(ctx, time.Minute); err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Until(lock.Until()) > 30*time.Second)
	// Output: true
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

func ExampleLock_StopAutoExtend() {
	locker, stop := openNodes()
	defer stop()

	// The function lets the lock end when its work is of no use any more.
	err := redlock.Do(context.Background(), locker, "job", 500*time.Millisecond, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		lock.StopAutoExtend()
		<-ctx.Done()
		return nil
	})
	fmt.Println(errors.Is(err, redlock.ErrLost))
	// Output: true
}

func ExampleLock_Release() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.Acquire(ctx, "job", 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lock.Release(ctx))
	fmt.Println(lock.Release(ctx)) // again: does nothing
	fmt.Println(context.Cause(lock.Context()))
	fmt.Println(errors.Is(lock.Extend(ctx, 0), redlock.ErrNotHeld))
	// Output:
	// <nil>
	// <nil>
	// redlock: lock released
	// true
}

func ExampleQuorumError() {
	urls, stop := startNodes(1) // in memory
	defer stop()
	ctx := context.Background()

	locker, err := redlock.Open(ctx, urls)
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()
	if _, err := locker.Acquire(ctx, "job", 10*time.Second); err != nil {
		log.Fatal(err)
	}

	_, err = locker.TryAcquire(ctx, "job", 10*time.Second)
	var q *redlock.QuorumError
	if errors.As(err, &q) {
		fmt.Printf("%s %q: %d of %d nodes granted, %d needed\n", q.Op, q.Keys, q.Got, q.Total, q.Need)
		for _, node := range q.Nodes {
			fmt.Println("redis://"+node.Node == urls[0], node.Err)
		}
	}
	// Output:
	// acquire ["job"]: 0 of 1 nodes granted, 1 needed
	// true held by another owner
}

func ExampleHeldError() {
	urls, stop := startNodes(1)
	defer stop()
	ctx := context.Background()

	locker, err := redlock.Open(ctx, urls, redlock.WithMetadata("host=web-1 pid=4711"))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()
	if _, err := locker.Acquire(ctx, "job", 10*time.Second); err != nil {
		log.Fatal(err)
	}

	_, err = locker.TryAcquire(ctx, "job", 10*time.Second)
	var refused *redlock.QuorumError
	if !errors.As(err, &refused) {
		log.Fatal(err)
	}
	for _, node := range refused.Nodes {
		var held *redlock.HeldError
		fmt.Println(errors.As(node.Err, &held), node.Err)
	}
	// Output: true held by another owner: host=web-1 pid=4711
}

func Example_nested() {
	locker, stop := openNodes()
	defer stop()

	err := redlock.Do(context.Background(), locker, "job", 30*time.Second, func(ctx context.Context) error {
		_, err := locker.Acquire(ctx, "job", 30*time.Second) // would wait for itself
		fmt.Println(errors.Is(err, redlock.ErrAlreadyHeld))
		return nil
	})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
