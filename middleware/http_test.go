package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/middleware"
)

func TestARequestIsServedUnderItsLock(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	mux := http.NewServeMux()
	locked := middleware.HTTP(l, time.Minute, middleware.PathKey("account:", "id"))
	mux.Handle("POST /accounts/{id}/deposits", locked(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock, held := redlock.FromContext(r.Context())
		if assert.True(t, held) {
			assert.True(t, lock.Valid())
			assert.Equal(t, "account:7", lock.Key())
			assert.Greater(t, time.Until(lock.Until()), 50*time.Second, "the ttl that was asked for")
		}
		w.Header().Set("X-Mine", "set")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "done")
	})))
	s := serve(t, mux)
	a := s.do("POST", "/accounts/7/deposits")
	require.Equal(t, http.StatusCreated, a.status)
	require.Equal(t, "set", a.header.Get("X-Mine"))
	require.Equal(t, "done", a.body)
	eventually.True(t, "released", func() bool { return empty(t, servers) })
	s.quiet()
}

func TestAHandlerThatWritesNothingIsASuccess(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	a := s.get()
	require.Equal(t, http.StatusOK, a.status)
	require.Empty(t, a.body)
	s.quiet()
}

func TestHeldByOthersIs423AtOnce(t *testing.T) {
	servers := redistest.StartN(t, 3)
	// The Locker's own policy would wait for ever.
	l := open(t, servers, redlock.WithRetry(redlock.FixedRetry(ms, 0, -1)), redlock.WithNodeTimeout(eventually.Soon))
	other, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)
	for _, c := range []struct {
		ttl        time.Duration
		opts       []middleware.HTTPOption
		retryAfter string
	}{
		{ttl: redlock.MinTTL, retryAfter: "1"},
		{ttl: time.Second, retryAfter: "1"},
		{ttl: 1001 * ms, retryAfter: "2"},
		{ttl: 30 * time.Second, retryAfter: "5"},
		{ttl: 30 * time.Second, opts: []middleware.HTTPOption{middleware.WithRetryAfter(90*time.Second + 1)}, retryAfter: "91"},
		{ttl: 30 * time.Second, opts: []middleware.HTTPOption{middleware.WithRetryAfter(0)}},
	} {
		s := serve(t, middleware.HTTP(l, c.ttl, fixed, c.opts...)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("the handler ran")
		})))
		s.get().is(t, http.StatusLocked, c.retryAfter, locked)
		a := s.do("HEAD", "/")
		require.Equal(t, http.StatusLocked, a.status)
		require.Empty(t, a.body)
		s.quiet()
	}
	require.NoError(t, other.Release(t.Context()))
}

func TestNoQuorumIs503(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	s := serve(t, middleware.HTTP(l, short, fixed)(ok))
	eventually.True(t, "it is served", func() bool { return s.get().status == http.StatusOK })
	pause(servers[1:])
	s.get().is(t, http.StatusServiceUnavailable, "1", unclear)
	resume(servers)
	eventually.True(t, "it recovers", func() bool { return s.get().status == http.StatusOK })
	kill(servers[1:])
	s.get().is(t, http.StatusServiceUnavailable, "1", unclear)
	s.quiet()
}

func TestRequestsThatAreWaitedForTakeTurns(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	policy := redlock.ExponentialRetry(5*ms, 20*ms)
	n := 0 // guarded by the lock alone: the race detector watches
	s := serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithLock(redlock.WithRetry(policy)))(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n++ })))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { assert.Equal(t, http.StatusOK, s.get().status) })
	}
	all.Wait()
	require.Equal(t, 16, n)
	s.quiet()
}

func TestAClosedLockerIs503(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	_, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)
	policy, waiting := waitPolicy()
	s := serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithLock(redlock.WithRetry(policy)))(ok))
	var closed sync.WaitGroup
	defer closed.Wait() // before the server is stopped
	closed.Go(func() {
		<-waiting
		assert.NoError(t, l.Close())
	})
	s.get().is(t, http.StatusServiceUnavailable, "5", closing)
	s.get().is(t, http.StatusServiceUnavailable, "5", closing)
	s.quiet()
}

func TestNestingUnderOneKeyIs500(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	lock := middleware.HTTP(l, time.Minute, fixed)
	s := serve(t, lock(lock(ok)))
	s.get().is(t, http.StatusInternalServerError, "", unserved)
	s.quiet()
}

func TestWhatOtherMiddlewareSays(t *testing.T) {
	refusal := errors.New("refusal at 127.0.0.1")
	servers := redistest.StartN(t, 1)
	for _, kind := range []redlock.Kind{redlock.OpAcquire, redlock.OpHold} {
		l := open(t, servers, redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
			return func(ctx context.Context, op *redlock.Op) error {
				if op.Kind == kind {
					return refusal
				}
				return next(ctx, op)
			}
		}))
		s := serve(t, middleware.HTTP(l, time.Minute, fixed)(ok))
		s.get().is(t, http.StatusInternalServerError, "", unserved)
		s.quiet()
		s = serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithStatus(http.StatusTooManyRequests, refusal))(ok))
		s.get().is(t, http.StatusTooManyRequests, "", unserved)
		s.quiet()
	}

	// One that fails after the handler has written cannot unsay it.
	l := open(t, servers, redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if err := next(ctx, op); err != nil || op.Kind != redlock.OpHold {
				return err
			}
			return refusal
		}
	}))
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(ok))
	require.Equal(t, "ok", s.get().body)
	s.quiet()
}

func TestAClientThatGoesAwayEndsTheContextOfItsRequest(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	began, done := make(chan struct{}), make(chan struct{})
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		close(began)
		<-r.Context().Done()
		assert.Equal(t, context.Canceled, context.Cause(r.Context()))
		lock, _ := redlock.FromContext(r.Context())
		assert.True(t, lock.Valid(), "the lock is kept until the handler has returned")
	})))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	require.NoError(t, err)
	_, err = s.Client().Do(req)
	require.ErrorIs(t, err, context.Canceled)
	<-done
	eventually.True(t, "released", func() bool { return empty(t, servers) })
}

func TestARequestThatEndsWhileItWaits(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	other, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })

	// The client goes away: the answer is only for the log.
	policy, waiting := waitPolicy()
	handler := middleware.HTTP(l, time.Minute, fixed, middleware.WithLock(redlock.WithRetry(policy)),
		middleware.WithStatus(499, context.Canceled))(never)
	logged := make(chan int, 1)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		logged <- rec.Code
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-waiting
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	require.NoError(t, err)
	_, err = s.Client().Do(req)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 499, <-logged)

	// A handler around HTTP ends the ctx: the client is still there.
	policy, refused := waitPolicy()
	handler = middleware.HTTP(l, time.Minute, fixed, middleware.WithLock(redlock.WithRetry(policy)))(never)
	s = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		go func() {
			<-refused
			cancel()
		}()
		handler.ServeHTTP(w, r.WithContext(ctx))
	}))
	s.get().is(t, http.StatusLocked, "5", locked)

	// It had ended before: no node was asked who holds the lock.
	s = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 0)
		defer cancel()
		handler.ServeHTTP(w, r.WithContext(ctx))
	}))
	s.get().is(t, http.StatusServiceUnavailable, "5", tooLate)
	require.NoError(t, other.Release(t.Context()))
}

func TestTheFilesOfAFormAreRemoved(t *testing.T) {
	servers := redistest.StartN(t, 1)
	file := make(chan string, 1)
	s := serve(t, middleware.HTTP(open(t, servers), time.Hour, fixed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1))
		f, err := r.MultipartForm.File["upload"][0].Open()
		require.NoError(t, err)
		defer f.Close()
		file <- f.(*os.File).Name()
	})))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("upload", "large")
	require.NoError(t, err)
	_, err = part.Write(make([]byte, 11<<20)) // 10 MB stay in memory whatever is asked for
	require.NoError(t, err)
	require.NoError(t, form.Close())
	resp, err := s.Client().Post(s.URL, form.FormDataContentType(), &body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	name := <-file
	eventually.True(t, "removed", func() bool { _, err := os.Stat(name); return errors.Is(err, fs.ErrNotExist) })
}

func TestAPanicReleasesTheLockAndReachesTheServer(t *testing.T) {
	servers := redistest.StartN(t, 3)
	l := open(t, servers)
	for _, value := range []any{"mine", http.ErrAbortHandler} {
		handler := middleware.HTTP(l, time.Hour, fixed)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(value) }))
		require.PanicsWithValue(t, value, func() {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		})
		eventually.True(t, "released", func() bool { return empty(t, servers) })

		s := serve(t, handler)
		_, err := s.Client().Get(s.URL)
		require.ErrorIs(t, err, io.EOF, "the server drops the connection")
		s.Close()
		if value == http.ErrAbortHandler {
			require.Empty(t, s.log.String(), "and is silent, as without HTTP")
		} else {
			require.Contains(t, s.log.String(), "mine")
			require.Contains(t, s.log.String(), "http_test.go", "the stack is that of the panic")
		}
		eventually.True(t, "released", func() bool { return empty(t, servers) })
	}
}

// A response that is complete before the lock is released would let a client
// run into its own last request.
func TestAClientNeverMeetsItsOwnLastRequest(t *testing.T) {
	l := open(t, redistest.StartN(t, 3))
	var served atomic.Int64
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		_, _ = io.WriteString(w, "ok")
	})))
	for range 50 {
		require.Equal(t, http.StatusOK, s.get().status)
	}
	require.EqualValues(t, 50, served.Load())
	s.quiet()
}
