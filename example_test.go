package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"github.com/redis-kit/redlock"
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
