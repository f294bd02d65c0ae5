package redlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/middleware"
	"github.com/redis-kit/redlock/redlocktest"
)

// The snippets of docs/guide.md.

var (
	errBusy        = errors.New("busy: try again later")
	errUnavailable = errors.New("unavailable: try again later")
	errChanged     = errors.New("the order was changed by another process")
)

// Orders stands for a table in a database.
type Orders struct {
	mu   sync.Mutex // guards rows
	rows map[string]Order
}

// Order is a row with a version, which every change increments.
type Order struct {
	ID      string
	Shipped bool
	Version int
}

// Load returns an order.
func (o *Orders) Load(_ context.Context, id string) (Order, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rows[id], nil
}

// Save stands for: UPDATE orders SET … WHERE id = $1 AND version = $2.
func (o *Orders) Save(ctx context.Context, order Order) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows[order.ID].Version != order.Version {
		return errChanged
	}
	order.Version++
	o.rows[order.ID] = order
	return ctx.Err()
}

func printLabel(_ context.Context, order Order) error {
	fmt.Println("label for", order.ID)
	return nil
}

// ship ships an order, unless that has been done.
func ship(ctx context.Context, locker *redlock.Locker, orders *Orders, id string) error {
	err := redlock.Do(ctx, locker, "order:"+id, 30*time.Second, func(ctx context.Context) error {
		order, err := orders.Load(ctx, id) // under the lock: what was read before may be old
		if err != nil || order.Shipped {
			return err
		}
		if err := printLabel(ctx, order); err != nil {
			return err
		}
		order.Shipped = true
		return orders.Save(ctx, order) // fails if the version has changed since Load
	})
	switch {
	case errors.Is(err, redlock.ErrLost):
		return fmt.Errorf("ship %s: perhaps half done: %w", id, err)
	case errors.Is(err, redlock.ErrNotAcquired):
		return errBusy
	case errors.Is(err, redlock.ErrNoQuorum):
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return err
}

func Example_businessLogic() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()
	orders := &Orders{rows: map[string]Order{"7": {ID: "7"}}}
	ctx := context.Background()

	fmt.Println(ship(ctx, locker, orders, "7"))
	fmt.Println(ship(ctx, locker, orders, "7"))
	// Output:
	// label for 7
	// <nil>
	// <nil>
}

func Example_httpHandler() {
	locker, stop := openNodes()
	defer stop()

	locked := middleware.HTTP(locker, 30*time.Second, middleware.PathKey("order:", "id"),
		middleware.WithLock(redlock.WithRetry(redlock.FixedRetry(100*time.Millisecond, 50*time.Millisecond, 10))))
	mux := http.NewServeMux()
	mux.Handle("POST /orders/{id}/shipment", locked(http.HandlerFunc(createShipment)))
}

func createShipment(http.ResponseWriter, *http.Request) {}

// Runs stands for a table of the runs that were completed.
type Runs struct {
	mu   sync.Mutex // guards done
	done map[time.Time]bool
}

// Done reports whether the run of a day was completed.
func (r *Runs) Done(_ context.Context, day time.Time) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[day], nil
}

// Complete notes that the run of a day was completed.
func (r *Runs) Complete(ctx context.Context, day time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[day] = true
	return ctx.Err()
}

func makeInvoices(context.Context, time.Time) error {
	fmt.Println("making invoices")
	return nil
}

// invoice is called by the cron of every process.
func invoice(ctx context.Context, locker *redlock.Locker, runs *Runs, day time.Time) error {
	err := redlock.Do(ctx, locker, "cron:invoices", 30*time.Second, func(ctx context.Context) error {
		done, err := runs.Done(ctx, day)
		if err != nil || done {
			return err // the process that was first has finished already
		}
		if err := makeInvoices(ctx, day); err != nil {
			return err
		}
		return runs.Complete(ctx, day)
	}, redlock.WithRetry(redlock.NoRetry()), redlock.WithMaxHold(time.Hour))
	if errors.Is(err, redlock.ErrNotAcquired) {
		return nil // another process is at it
	}
	return err
}

func Example_cronJob() {
	locker, stop := openNodes()
	defer stop()
	runs := &Runs{done: make(map[time.Time]bool)}
	ctx, day := context.Background(), time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)

	fmt.Println(invoice(ctx, locker, runs, day))
	fmt.Println(invoice(ctx, locker, runs, day))
	// Output:
	// making invoices
	// <nil>
	// <nil>
}

func Example_leaderElection() {
	locker, stop := openNodes()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	lead := func(ctx context.Context) error {
		fmt.Println("leading")
		return nil
	}
	err := redlock.Campaign(ctx, locker, "leader:billing", 15*time.Second, lead,
		redlock.WithGrace(2*time.Second)) // time to stop in
	fmt.Println(err)
	// Output:
	// leading
	// <nil>
}

func move(context.Context, string, string) error { return nil }

func Example_severalKeys() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	_, err := redlock.WithAll(ctx, locker, []string{"account:ann", "account:bob"}, 30*time.Second,
		func(ctx context.Context) (struct{}, error) {
			return struct{}{}, move(ctx, "ann", "bob")
		})
	fmt.Println(err)
	// Output: <nil>
}

func Example_hashTags() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	lock, err := locker.AcquireAll(ctx, []string{"{order:7}:stock", "{order:7}:payment"}, 30*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)
	fmt.Println(len(lock.Keys()))
	// Output: 2
}

func Example_waiting() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	// Wait for up to 10 s, whatever the ttl is. The work has as long as it needs.
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	lock, err := locker.Acquire(waiting, "report", 30*time.Second,
		redlock.WithRetry(redlock.ExponentialRetry(50*time.Millisecond, 2*time.Second)))
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Release(ctx)
	if err := lock.AutoExtend(0); err != nil {
		log.Fatal(err)
	}
	err = makeReport(lock.Context()) // ends with the lock, not with waiting
	fmt.Println(err)
	// Output: <nil>
}

func sendPayment(context.Context, string) error { return nil }

func Example_contextRules() {
	locker, stop := openNodes()
	defer stop()
	ctx := context.Background()

	err := redlock.Do(ctx, locker, "payment:456", 30*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		for batch := range 3 {
			if err := migrateBatch(ctx, batch); err != nil { // every call gets this ctx
				return err
			}
		}
		if !lock.Valid() { // before what cannot be taken back
			return redlock.ErrLost
		}
		return sendPayment(ctx, "456")
	})
	fmt.Println(err)
	// Output: <nil>
}

func TestShippingIsRefusedWhileAnotherProcessShips(t *testing.T) {
	nodes := redlocktest.Start(t, 3, redlock.WithRetry(redlock.NoRetry()))
	nodes.Steal("order:7") // another process has it

	require.ErrorIs(t, ship(t.Context(), nodes.Locker(), &Orders{}, "7"), errBusy)
}

func TestTheWorkStopsWhenTheLockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: the test does not wait for the ttl
		nodes := redlocktest.Start(t, 3)
		err := redlock.Do(t.Context(), nodes.Locker(), "order:7", 30*time.Second, func(ctx context.Context) error {
			nodes.Down(0, 1) // two of three: no lock can be extended
			<-ctx.Done()     // the end of validity
			return context.Cause(ctx)
		})
		require.ErrorIs(t, err, redlock.ErrLost)
	})
}

func restock(context.Context, string) error { return nil }

func withdraw(context.Context, string, int) error { return nil }

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
