package redlock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis-kit/redlock"
)

func ExampleWithFence() {
	locker, stop := openNodes() // a Locker over three nodes in memory
	defer stop()

	var highest int64 // that the resource has seen
	write := func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		if lock.Fence() < highest {
			return errors.New("a later holder was here")
		}
		highest = lock.Fence()
		return nil
	}
	fmt.Println(redlock.Do(context.Background(), locker, "account:7", 30*time.Second, write, redlock.WithFence()))
	// Output: <nil>
}

// A write that reads nothing needs one statement.
func ExampleWithFence_update() {
	var (
		locker *redlock.Locker
		db     *sql.DB
		ctx    = context.Background()
	)

	err := redlock.Do(ctx, locker, "account:7", 30*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		return execOne(ctx, db, `UPDATE account SET fence = $1, owner = $2 WHERE id = 7 AND fence <= $1`, lock.Fence(), "Ada")
	}, redlock.WithFence())
	if errors.Is(err, errStale) {
		log.Println("the lock has passed on, and nothing was written:", err)
	}
}

func ExampleLock_Fence() {
	locker, stop := openNodes(redlock.WithFence()) // for all locks
	defer stop()
	ctx := context.Background()

	var fences []int64
	for range 2 {
		lock, err := locker.Acquire(ctx, "account:7", 30*time.Second)
		if err != nil {
			log.Fatal(err)
		}
		fences = append(fences, lock.Fence())
		if err := lock.Release(ctx); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(0 < fences[0], fences[0] < fences[1], fences[1] < 1<<53)
	// Output: true true true
}

func ExampleWithFenceRetention() {
	// The clocks of some clients are up to a week off.
	locker, stop := openNodes(redlock.WithFence(), redlock.WithFenceRetention(10*24*time.Hour))
	defer stop()

	lock, err := locker.Acquire(context.Background(), "account:7", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lock.Fence() > 0)

	// The counter of a lock must outlive it.
	_, err = locker.Acquire(context.Background(), "account:8", 11*24*time.Hour)
	fmt.Println(err)
	// Output:
	// true
	// redlock: acquire "account:8": ttl 264h0m0s: must not be above WithFenceRetention, 240h0m0s, for a lock with a fence
}

func ExampleWithRestartGuard() {
	urls, stop := startNodes(3)
	defer stop()
	ctx := context.Background()

	locker, err := redlock.Open(ctx, urls, redlock.WithRestartGuard(time.Minute, 5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	// Once, when the deployment is new.
	if err := locker.TrustNodes(ctx); err != nil {
		log.Fatal(err)
	}

	fmt.Println(redlock.Do(ctx, locker, "report", 30*time.Second, makeReport))
	_, err = locker.Acquire(ctx, "report", time.Hour)
	fmt.Println(err)
	// Output:
	// <nil>
	// redlock: acquire "report": ttl 1h0m0s: must not be above the longest of WithRestartGuard, 1m0s
}

func ExampleLocker_TrustNodes() {
	locker, stop := openNodes(redlock.WithRestartGuard(time.Minute, 5*time.Second))
	defer stop()
	ctx := context.Background()

	_, err := locker.TryAcquire(ctx, "job", 30*time.Second) // the nodes are new
	fmt.Println(errors.Is(err, redlock.ErrNoQuorum))

	fmt.Println(locker.TrustNodes(ctx))
	_, err = locker.TryAcquire(ctx, "job", 30*time.Second)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
	// <nil>
}

func ExampleQuarantineError() {
	urls, stop := startNodes(1)
	defer stop()
	locker, err := redlock.Open(context.Background(), urls, redlock.WithRestartGuard(time.Minute, 5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	_, err = locker.TryAcquire(context.Background(), "job", 30*time.Second)
	var failed *redlock.QuorumError
	if errors.As(err, &failed) {
		for _, node := range failed.Nodes {
			var quarantine *redlock.QuarantineError
			if errors.As(node, &quarantine) {
				fmt.Println("redis://"+node.Node == urls[0], time.Until(quarantine.Until) > time.Minute)
			}
		}
	}
	// Output: true true
}

var errStale = errors.New("a later holder was here")

// readAccount reads an account under a lock, and shows the database its fence.
func readAccount(ctx context.Context, db *sql.DB, id int64) (balance int64, err error) {
	lock, _ := redlock.FromContext(ctx)
	err = db.QueryRowContext(ctx,
		`UPDATE account SET fence = $1 WHERE id = $2 AND fence <= $1 RETURNING balance`,
		lock.Fence(), id).Scan(&balance)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, errStale
	}
	return balance, err
}

func writeAccount(ctx context.Context, db *sql.DB, id, balance int64) error {
	lock, _ := redlock.FromContext(ctx)
	return execOne(ctx, db,
		`UPDATE account SET fence = $1, balance = $2 WHERE id = $3 AND fence <= $1`,
		lock.Fence(), balance, id)
}

// execOne executes a statement that must change a row.
func execOne(ctx context.Context, db *sql.DB, query string, args ...any) error {
	result, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 0 {
		return errors.Join(err, errStale)
	}
	return nil
}

// A resource in SQL. The table needs a column fence BIGINT NOT NULL DEFAULT 0.
func ExampleWithFence_sql() {
	var (
		locker *redlock.Locker
		db     *sql.DB
		ctx    = context.Background()
	)

	err := redlock.Do(ctx, locker, "account:7", 30*time.Second, func(ctx context.Context) error {
		balance, err := readAccount(ctx, db, 7)
		if err != nil {
			return err
		}
		return writeAccount(ctx, db, 7, balance+10)
	}, redlock.WithFence())
	if errors.Is(err, errStale) {
		log.Println("the lock has passed on, and nothing was written:", err)
	}
}

// documents is a resource behind HTTP. What is kept here in memory must last as long as
// the documents do.
type documents struct {
	mu     sync.Mutex // guards fences
	fences map[string]int64
}

func (d *documents) put(w http.ResponseWriter, r *http.Request) {
	fence, err := strconv.ParseInt(r.Header.Get("Fence"), 10, 64)
	if err != nil || fence <= 0 {
		http.Error(w, "Fence: must be the fence of a lock", http.StatusPreconditionRequired)
		return
	}
	id := r.PathValue("id")
	d.mu.Lock() // until the document is stored
	defer d.mu.Unlock()
	if fence < d.fences[id] {
		http.Error(w, "Fence: a later holder was here", http.StatusPreconditionFailed)
		return
	}
	d.fences[id] = fence
	// … store the document
	w.WriteHeader(http.StatusNoContent)
}

func putDocument(ctx context.Context, url, text string) (status int, err error) {
	lock, _ := redlock.FromContext(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(text))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Fence", strconv.FormatInt(lock.Fence(), 10))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// A resource behind HTTP refuses a stale fence with 412.
func ExampleWithFence_http() {
	locker, stop := openNodes(redlock.WithFence())
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /documents/{id}", (&documents{fences: make(map[string]int64)}).put)
	server := httptest.NewServer(mux)
	defer server.Close()
	url := server.URL + "/documents/1"

	put := func(text string) {
		err := redlock.Do(context.Background(), locker, "document:1", 30*time.Second, func(ctx context.Context) error {
			status, err := putDocument(ctx, url, text)
			fmt.Println(text, status)
			return err
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	put("first")
	put("second")

	request := httptest.NewRequest(http.MethodPut, "/documents/1", strings.NewReader("late"))
	request.Header.Set("Fence", "1")
	late := httptest.NewRecorder()
	mux.ServeHTTP(late, request)
	fmt.Println("late", late.Code)
	// Output:
	// first 204
	// second 204
	// late 412
}

// saveReport writes the version of one holder. A late one is there, but not the latest.
func saveReport(dir string, fence int64, text []byte) error {
	version := filepath.Join(dir, fmt.Sprintf("%016d", fence)) // as names, the fences sort as numbers
	if err := os.WriteFile(version+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(version+".new", version)
}

func latestReport(dir string) ([]byte, error) {
	versions, err := filepath.Glob(filepath.Join(dir, strings.Repeat("[0-9]", 16))) // sorted
	if err != nil || len(versions) == 0 {
		return nil, errors.Join(err, os.ErrNotExist)
	}
	return os.ReadFile(versions[len(versions)-1])
}

// Files are not overwritten: each holder has its own, and the highest fence is read.
func ExampleWithFence_file() {
	dir, err := os.MkdirTemp("", "reports")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	locker, stop := openNodes(redlock.WithFence())
	defer stop()
	ctx := context.Background()

	paused, err := locker.Acquire(ctx, "report", 30*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	_ = paused.Release(ctx) // or it has expired, and its holder does not know
	err = redlock.Do(ctx, locker, "report", 30*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		return saveReport(dir, lock.Fence(), []byte("by the holder"))
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := saveReport(dir, paused.Fence(), []byte("too late")); err != nil {
		log.Fatal(err)
	}

	report, err := latestReport(dir)
	fmt.Println(string(report), err)
	// Output: by the holder <nil>
}
