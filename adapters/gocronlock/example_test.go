package gocronlock_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-co-op/gocron/v2"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/adapters/gocronlock"
)

func Example() {
	node, err := miniredis.Run() // in memory; three real ones outside of an example
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	locker, err := redlock.Open(context.Background(), []string{"redis://" + node.Addr()}, redlock.WithKeyPrefix("cron:"))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	// Every instance of the program does this.
	scheduler, err := gocron.NewScheduler(
		gocron.WithDistributedLocker(gocronlock.New(locker, 30*time.Second, 5*time.Second)))
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan string)
	_, err = scheduler.NewJob(
		gocron.DurationJob(time.Minute), // every minute, on all instances together
		gocron.NewTask(func() { done <- "report made" }),
		gocron.WithName("report"),
		gocron.WithStartAt(gocron.WithStartImmediately()))
	if err != nil {
		log.Fatal(err)
	}
	scheduler.Start()
	fmt.Println(<-done)
	if err := scheduler.Shutdown(); err != nil {
		log.Fatal(err)
	}
	// Output: report made
}
