package redlocktest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/redlocktest"
)

// MakeReport is the function under test: it writes a page a second under a lock.
func MakeReport(ctx context.Context, locker *redlock.Locker) error {
	return redlock.Do(ctx, locker, "report", 30*time.Second, func(ctx context.Context) error {
		for range 100 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return errors.New("the report is incomplete")
			}
		}
		return nil
	})
}

func TestMakeReportStopsWhenItsLockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: the minute passes at once
		nodes := redlocktest.Start(t, 3)
		time.AfterFunc(time.Minute, func() { nodes.Steal("report") }) // in mid-work
		err := MakeReport(t.Context(), nodes.Locker())
		if !errors.Is(err, redlock.ErrLost) {
			t.Errorf("MakeReport returned %v", err)
		}
	})
}

func ExampleNew() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		locker := redlocktest.New(t, 3)
		fmt.Println(MakeReport(t.Context(), locker))
	})
	// Output: <nil>
}

func ExampleStart() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		go MakeReport(t.Context(), nodes.Locker())
		synctest.Wait() // until it works and waits for the time to pass
		fmt.Println("held:", nodes.Held("report"))
		time.Sleep(100 * time.Second)
		synctest.Wait()
		fmt.Println("held:", nodes.Held("report"))
	})
	// Output:
	// held: true
	// held: false
}

func ExampleNodes_Steal() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		err := redlock.Do(t.Context(), nodes.Locker(), "ledger", 30*time.Second, func(ctx context.Context) error {
			nodes.Steal("ledger")
			<-ctx.Done() // at the next extension
			return errors.New("half of the ledger is written")
		})
		fmt.Println("lost:", errors.Is(err, redlock.ErrLost))

		_, err = nodes.Locker().TryAcquire(t.Context(), "ledger", 30*time.Second)
		fmt.Println("held by another:", errors.Is(err, redlock.ErrNotAcquired))
	})
	// Output:
	// lost: true
	// held by another: true
}

func ExampleNodes_Down() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		nodes.Down(2)
		fmt.Println(MakeReport(t.Context(), nodes.Locker()))

		nodes.Down(1) // and one is no quorum
		err := MakeReport(t.Context(), nodes.Locker())
		fmt.Println("no quorum:", errors.Is(err, redlock.ErrNoQuorum))

		nodes.Up()
		time.Sleep(time.Second) // until the Locker has noticed
		fmt.Println(MakeReport(t.Context(), nodes.Locker()))
	})
	// Output:
	// <nil>
	// no quorum: true
	// <nil>
}

func ExampleNodes_Freeze() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		time.AfterFunc(time.Minute, func() { nodes.Freeze(0, 1) })
		began := time.Now()
		err := MakeReport(t.Context(), nodes.Locker())
		fmt.Println("lost:", errors.Is(err, redlock.ErrLost))
		fmt.Println("within a ttl:", time.Since(began) < 90*time.Second)
	})
	// Output:
	// lost: true
	// within a ttl: true
}

func ExampleNodes_NewLocker() {
	t := new(testing.T) // in a test, its own
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		other := nodes.NewLocker() // another process
		lock, err := other.Acquire(t.Context(), "report", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		err = MakeReport(t.Context(), nodes.Locker())
		fmt.Println("held by another:", errors.Is(err, redlock.ErrNotAcquired), nodes.Owner("report") == lock.Token())

		_ = lock.Release(t.Context())
		fmt.Println(MakeReport(t.Context(), nodes.Locker()))
	})
	// Output:
	// held by another: true true
	// <nil>
}
