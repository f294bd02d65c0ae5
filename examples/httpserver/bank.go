package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/examples/internal/memory"
	"github.com/redis-kit/redlock/middleware"
)

const (
	ttl = 2 * time.Second
	// bookTime and payTime are the times that other services take.
	bookTime = 5 * time.Millisecond
	payTime  = 3 * time.Second
)

type bank struct {
	log      *slog.Logger
	locker   *redlock.Locker
	patience time.Duration
	nodes    []*memory.Node // nil with -nodes

	accounts sync.Map // of *account, by name
	receipts sync.Map // of receipt, by Idempotency-Key
}

// account has no mutex: a goroutine that uses it holds the lock on its name.
type account struct{ balance int }

type receipt struct {
	Payment string `json:"payment"`
	Status  string `json:"status"`
}

func (b *bank) handler() http.Handler {
	mux := http.NewServeMux()

	// Deposits to one account take turns, each waiting for its own.
	turns := middleware.HTTP(b.locker, ttl, middleware.PathKey("account:", "name"),
		middleware.WithLock(redlock.WithRetry(b.retry)))
	mux.Handle("POST /accounts/{name}/deposits", turns(http.HandlerFunc(b.deposit)))

	// A payment is made once. A client that repeats the request gets the receipt of the first.
	once := middleware.HTTP(b.locker, ttl, middleware.HeaderKey("payment:", "Idempotency-Key"))
	mux.Handle("POST /payments", once(http.HandlerFunc(b.pay)))

	if b.nodes != nil {
		mux.HandleFunc("DELETE /nodes", b.killNodes)
	}
	return mux
}

// retry tries again until patience is over: soon at first, then less often, so that many
// waiting requests do not keep the nodes busy with refusals.
func (b *bank) retry() backoff.BackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(10*time.Millisecond),
		backoff.WithMaxInterval(500*time.Millisecond),
		backoff.WithMaxElapsedTime(b.patience))
}

func (b *bank) deposit(w http.ResponseWriter, r *http.Request) {
	amount, err := strconv.Atoi(r.URL.Query().Get("amount"))
	if err != nil || amount <= 0 {
		http.Error(w, "amount: must be a whole number above 0", http.StatusBadRequest)
		return
	}
	name := r.PathValue("name")
	found, _ := b.accounts.LoadOrStore(name, &account{})
	a := found.(*account)
	before := a.balance
	if pause(r.Context(), bookTime) != nil {
		return // the lock was lost, and HTTP answers, or the client has gone
	}
	a.balance = before + amount
	reply(w, struct {
		Account string `json:"account"`
		Balance int    `json:"balance"`
	}{name, a.balance})
}

func (b *bank) pay(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if paid, ok := b.receipts.Load(key); ok {
		reply(w, paid)
		return
	}
	b.log.InfoContext(r.Context(), "paying", "payment", key)
	if err := pause(r.Context(), payTime); err != nil {
		b.log.WarnContext(r.Context(), "payment abandoned", "payment", key, "error", err)
		return
	}
	paid := receipt{Payment: key, Status: "paid"}
	b.receipts.Store(key, paid)
	reply(w, paid)
}

// killNodes leaves one of three: no quorum.
func (b *bank) killNodes(w http.ResponseWriter, _ *http.Request) {
	for _, n := range b.nodes[1:] {
		n.Stop()
	}
	w.WriteHeader(http.StatusNoContent)
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the client may have gone
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
