package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/middleware"
)

// openExample returns a Locker over one node in memory, in place of r1, r2 and r3.
func openExample(opts ...redlock.Option) (locker *redlock.Locker, closeAll func()) {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	locker, err = redlock.Open(context.Background(), []string{"redis://" + server.Addr()}, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return locker, func() { _ = locker.Close(); server.Close() }
}

func post(h http.Handler, path string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
	fmt.Print(w.Code, " ", w.Body)
}

func ExampleHTTP() {
	locker, closeAll := openExample()
	defer closeAll()

	locked := middleware.HTTP(locker, 30*time.Second, middleware.PathKey("account:", "id"))
	mux := http.NewServeMux()
	mux.Handle("POST /accounts/{id}/deposits", locked(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock, _ := redlock.FromContext(r.Context())
		fmt.Fprintln(w, "deposited under", lock.Key())
	})))

	post(mux, "/accounts/7/deposits")
	lock, err := locker.Acquire(context.Background(), "account:7", 30*time.Second) // another process
	if err != nil {
		log.Fatal(err)
	}
	post(mux, "/accounts/7/deposits")
	post(mux, "/accounts/8/deposits")
	_ = lock.Release(context.Background())
	// Output:
	// 200 deposited under account:7
	// 423 {"title":"Locked","status":423,"detail":"Another request holds the lock. This one was not served."}
	// 200 deposited under account:8
}

func ExampleWithRenderer() {
	locker, closeAll := openExample()
	defer closeAll()

	// The client learns little; the log has everything.
	locked := middleware.HTTP(locker, 30*time.Second, middleware.QueryKey("user:", "user"),
		middleware.WithStatus(http.StatusUnprocessableEntity, middleware.ErrKey),
		middleware.WithRenderer(func(w http.ResponseWriter, r *http.Request, p middleware.Problem) {
			if !errors.Is(p.Err, redlock.ErrNotAcquired) {
				fmt.Println("log:", p.Err)
			}
			p.Instance = r.URL.Path
			p.ServeHTTP(w, r)
		}))
	post(locked(http.NotFoundHandler()), "/profile?user=ann&user=bob")
	// Output:
	// log: redlock: the request has no key to lock: query parameter user: given 2 times: once is accepted
	// 422 {"title":"Unprocessable Entity","status":422,"detail":"The request does not say what to lock.","instance":"/profile"}
}

func ExampleWithLock() {
	locker, closeAll := openExample()
	defer closeAll()

	// Wait for up to about 2 s, as long as the client does, and serve for no
	// longer than a minute.
	locked := middleware.HTTP(locker, 30*time.Second, middleware.HeaderKey("payment:", "Idempotency-Key"),
		middleware.WithLock(
			redlock.WithRetry(redlock.FixedRetry(100*time.Millisecond, 50*time.Millisecond, 16)),
			redlock.WithMaxHold(time.Minute)))
	handler := locked(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "paid\n") }))

	r := httptest.NewRequest("POST", "/payments", nil)
	r.Header.Set("Idempotency-Key", "7f3c")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: paid
}

func ExampleHeaderKey() {
	key := middleware.HeaderKey("payment:", "Idempotency-Key")

	r := httptest.NewRequest("POST", "/payments", nil)
	fmt.Println(key(r))
	r.Header.Set("Idempotency-Key", "7f3c")
	fmt.Println(key(r))
	r.Header.Add("Idempotency-Key", "90b2")
	fmt.Println(key(r))
	// Output:
	//  <nil>
	// payment:7f3c <nil>
	//  header Idempotency-Key: given 2 times: once is accepted
}

func ExamplePathKey() {
	key := middleware.PathKey("order:", "id")

	mux := http.NewServeMux()
	mux.HandleFunc("PUT /orders/{id}", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(key(r)) })
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("PUT", "/orders/456", nil))
	// Output: order:456 <nil>
}

func ExampleQueryKey() {
	key := middleware.QueryKey("user:", "user")
	fmt.Println(key(httptest.NewRequest("GET", "/profile?user=ann", nil)))
	// Output: user:ann <nil>
}

func ExampleWithOptionalKey() {
	locker, closeAll := openExample()
	defer closeAll()

	locked := middleware.HTTP(locker, 30*time.Second, middleware.QueryKey("user:", "user"), middleware.WithOptionalKey())
	handler := locked(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := redlock.FromContext(r.Context())
		fmt.Fprintln(w, "under a lock:", ok)
	}))
	post(handler, "/profile?user=ann")
	post(handler, "/profile")
	// Output:
	// 200 under a lock: true
	// 200 under a lock: false
}

func ExampleWithStatus() {
	locker, closeAll := openExample()
	defer closeAll()

	locked := middleware.HTTP(locker, 30*time.Second, middleware.QueryKey("user:", "user"),
		middleware.WithStatus(http.StatusConflict, redlock.ErrNotAcquired))
	if _, err := locker.Acquire(context.Background(), "user:ann", 30*time.Second); err != nil { // another process
		log.Fatal(err)
	}
	post(locked(http.NotFoundHandler()), "/profile?user=ann")
	// Output: 409 {"title":"Conflict","status":409,"detail":"Another request holds the lock. This one was not served."}
}

func ExampleWithRetryAfter() {
	locker, closeAll := openExample()
	defer closeAll()

	locked := middleware.HTTP(locker, 30*time.Second, middleware.QueryKey("user:", "user"),
		middleware.WithRetryAfter(1500*time.Millisecond))
	if _, err := locker.Acquire(context.Background(), "user:ann", 30*time.Second); err != nil { // another process
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	locked(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/profile?user=ann", nil))
	fmt.Println(w.Code, w.Header().Get("Retry-After"))
	// Output: 423 2
}

func ExampleWithSlow() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "level" || a.Key == "msg" {
				return a
			}
			return slog.Attr{}
		},
	}))
	// An acquire is logged at INFO if it takes a nanosecond, so each of them is.
	locker, closeAll := openExample(redlock.WithMiddleware(middleware.Log(logger, middleware.WithSlow(1))))
	defer closeAll()

	err := redlock.Do(context.Background(), locker, "report", 30*time.Second, func(context.Context) error { return nil })
	fmt.Println(err)
	// Output:
	// level=INFO msg="lock acquired"
	// <nil>
}

func ExampleLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case "time", "duration", "until", "token": // never the same twice
				return slog.Attr{}
			}
			return a
		},
	}))
	locker, closeAll := openExample(redlock.WithMiddleware(middleware.Log(logger)))
	defer closeAll()

	err := redlock.Do(context.Background(), locker, "report", 30*time.Second, func(context.Context) error {
		return errors.New("no paper")
	})
	fmt.Println(err)
	// Output:
	// level=DEBUG msg="lock acquired" key=report ttl=30s attempts=1 waited=0s
	// level=DEBUG msg="work under lock ended" key=report ttl=30s error="no paper"
	// level=DEBUG msg="lock released" key=report ttl=30s
	// no paper
}
