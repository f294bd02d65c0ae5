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

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/middleware"
	"github.com/redis-kit/redlock/otelhook"
)

type Profile struct{ Name string }

func update(context.Context) (Profile, error)       { return Profile{Name: "Ada"}, nil }
func processPayment(context.Context, string) error  { return nil }
func makeReport(context.Context) error              { return nil }
func migrateBatch(ctx context.Context, _ int) error { return ctx.Err() }

// openNodes returns a Locker over three nodes in memory, for examples that run.
func openNodes(opts ...redlock.Option) (locker *redlock.Locker, stop func()) {
	urls, stopNodes := startNodes(3)
	locker, err := redlock.Open(context.Background(), urls, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return locker, func() { _ = locker.Close(); stopNodes() }
}

func startNodes(n int) (urls []string, stop func()) {
	var nodes []*miniredis.Miniredis
	for range n {
		node, err := miniredis.Run()
		if err != nil {
			log.Fatal(err)
		}
		node.Server().SetPreHook(tellRun)
		nodes, urls = append(nodes, node), append(urls, "redis://"+node.Addr())
	}
	return urls, func() {
		for _, node := range nodes {
			node.Close()
		}
	}
}

// tellRun answers INFO, which WithRestartGuard needs, for a node in memory.
func tellRun(client *server.Peer, command string, args ...string) bool {
	if command == "INFO" {
		client.WriteBulk("run_id:1\r\nmaster_replid2:0\r\n")
		return true
	}
	return false
}

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
	case err == nil:
		log.Println("updated", profile.Name)
	case errors.Is(err, redlock.ErrLost):
		log.Println("lock lost during update, which may be half done:", err)
	case errors.Is(err, redlock.ErrNotAcquired):
		log.Println("another process holds the lock:", err)
	case errors.Is(err, redlock.ErrNoQuorum):
		log.Println("too many nodes are down:", err) // says what each node answered
	default:
		log.Println("update failed:", err)
	}
}

func ExampleWith() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()

	profile, err := redlock.With(context.Background(), locker, "user:123:profile", 30*time.Second,
		func(ctx context.Context) (Profile, error) { return update(ctx) })
	fmt.Println(profile.Name, err)
	// Output: Ada <nil>
}

func ExampleWithAll() {
	locker, stop := openNodes()
	defer stop()

	// Two transfers in opposite directions cannot block each other: each gets
	// both accounts or none.
	balance, err := redlock.WithAll(context.Background(), locker, []string{"account:bob", "account:ann"}, 30*time.Second,
		func(ctx context.Context) (int, error) {
			lock, _ := redlock.FromContext(ctx)
			fmt.Println("transfer under", lock.Keys())
			return 42, nil
		})
	fmt.Println(balance, err)
	// Output:
	// transfer under [account:ann account:bob]
	// 42 <nil>
}

func ExampleDo() {
	locker, stop := openNodes()
	defer stop()

	err := redlock.Do(context.Background(), locker, "report", 30*time.Second, func(ctx context.Context) error {
		return errors.New("no paper")
	})
	fmt.Println(err)
	// Output: no paper
}

func ExampleCampaign() {
	locker, stop := openNodes()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background()) // as of signal.NotifyContext
	defer cancel()

	err := redlock.Campaign(ctx, locker, "scheduler", 10*time.Second, func(ctx context.Context) error {
		fmt.Println("leading")
		for batch := range 3 { // or until ctx ends: leadership was lost, or the process is to stop
			if err := migrateBatch(ctx, batch); err != nil {
				return err
			}
		}
		return nil // resigns; the next one leads
	})
	fmt.Println(err)
	// Output:
	// leading
	// <nil>
}

func ExampleFromContext() {
	locker, stop := openNodes()
	defer stop()

	// Far down in the program, only the ctx is there.
	work := func(ctx context.Context) error {
		lock, ok := redlock.FromContext(ctx)
		if !ok {
			return errors.New("not under a lock")
		}
		fmt.Println(lock.Key(), lock.Valid(), time.Until(lock.Until()) > 20*time.Second)
		return nil
	}
	fmt.Println(work(context.Background()))
	fmt.Println(redlock.Do(context.Background(), locker, "report", 30*time.Second, work))
	// Output:
	// not under a lock
	// report true true
	// <nil>
}

func ExampleOpen() {
	urls, stop := startNodes(3) // in memory
	defer stop()
	ctx := context.Background()

	locker, err := redlock.Open(ctx, append(urls, "redis://localhost:1")) // no server listens on the fourth
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
	for _, url := range append(urls, "redis://localhost:1") { // no server listens on the fourth
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
	locker, err := redlock.Open(context.Background(), append(urls, "redis://127.0.0.1:1")) // no server is there
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
	<-lock.Context().Done() // it is not extended
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

	// The function lets the lock end when its work is no longer of use.
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
	<-lock.Context().Done() // it is not extended

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
