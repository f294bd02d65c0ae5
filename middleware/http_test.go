package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/internal/testkit/syncbuf"
	"github.com/redis-kit/redlock/middleware"
)

// key is the key of all requests, unless a test is about keys. No answer may
// contain it.
const key = "secret:42"

func fixed(*http.Request) (string, error) { return key, nil }

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })

// site is an http.Server with its client.
type site struct {
	*httptest.Server
	t   testing.TB
	log syncbuf.Buffer // of the server's errors
}

func serve(t testing.TB, h http.Handler) *site {
	s := &site{t: t, Server: httptest.NewUnstartedServer(h)}
	s.Config.ErrorLog = log.New(&s.log, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// quiet fails the test if the server had something to complain about.
func (s *site) quiet() {
	s.t.Helper()
	s.Close()
	require.Empty(s.t, s.log.String())
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (s *site) do(method, path string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, nil)
	require.NoError(s.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := s.Client().Do(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func (s *site) get() answer {
	s.t.Helper()
	return s.do("GET", "/")
}

// is compares an answer with what HTTP is to say.
func (a answer) is(t testing.TB, status int, retryAfter, detail string) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, retryAfter, a.header.Get("Retry-After"))
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
	var have map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &have))
	want := map[string]any{"status": float64(status), "detail": detail}
	if title := http.StatusText(status); title != "" {
		want["title"] = title
	}
	require.Equal(t, want, have)
	require.NotContains(t, a.body, "127.0.0.1", "no addresses")
	require.NotContains(t, a.body, key)
}

const (
	keyless  = "The request does not say what to lock."
	locked   = "Another request holds the lock. This one was not served."
	unclear  = "The lock cannot be decided at present. The request was not served."
	closing  = "The service is shutting down. The request was not served."
	lost     = "The lock was lost while the request was served. It may have been served in part."
	tooLate  = "The time for the request was over. It was not served."
	unserved = "The request could not be served."
)

// waitPolicy tries again every 5 ms until ctx ends, and tells of the first
// attempt that failed.
func waitPolicy() (policy redlock.RetryPolicy, waiting <-chan struct{}) {
	failed := make(chan struct{})
	once := sync.OnceFunc(func() { close(failed) })
	next := redlock.FixedRetry(5*ms, 0, -1)
	return func() backoff.BackOff { once(); return next() }, failed
}

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

func TestRequestsWithoutAKey(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	_, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)
	failed := errors.New("at 127.0.0.1")
	keyOf := func(r *http.Request) (string, error) {
		if r.URL.Path == "/error" {
			return key, failed // the error counts
		}
		return strings.TrimPrefix(r.URL.Path, "/"), nil
	}
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, held := redlock.FromContext(r.Context())
		assert.Equal(t, r.URL.Path != "/", held)
		_, _ = io.WriteString(w, "ok")
	})

	s := serve(t, middleware.HTTP(l, time.Minute, keyOf)(plain))
	s.get().is(t, http.StatusBadRequest, "", keyless)
	s.do("GET", "/error").is(t, http.StatusBadRequest, "", keyless)
	require.Equal(t, "ok", s.do("GET", "/some").body)
	s.quiet()

	s = serve(t, middleware.HTTP(l, time.Minute, keyOf, middleware.WithOptionalKey())(plain))
	require.Equal(t, "ok", s.get().body)
	s.do("GET", "/error").is(t, http.StatusBadRequest, "", keyless)
	s.do("GET", "/"+key).is(t, http.StatusLocked, "5", locked)
	require.Equal(t, "ok", s.do("GET", "/some").body)
	s.quiet()

	var seen error
	handler := middleware.HTTP(l, time.Minute, keyOf, middleware.WithRenderer(func(_ http.ResponseWriter, _ *http.Request, p middleware.Problem) {
		seen = p.Err
	}))(plain)
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/error", nil))
	require.ErrorIs(t, seen, middleware.ErrKey)
	require.ErrorIs(t, seen, failed)
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	require.Equal(t, middleware.ErrKey, seen)
}

// patient has a request wait for as long as it takes, where it is to be served.
var patient = middleware.WithLock(redlock.WithRetry(redlock.FixedRetry(10*ms, 0, -1)))

// A lock that is lost in mid-request, with all nodes stopped, before the
// handler has written: whatever it goes on to do, the answer is a 503.
func TestALossBeforeTheHandlerWroteIs503(t *testing.T) {
	for name, then := range map[string]func(w http.ResponseWriter) error{
		"return":      func(http.ResponseWriter) error { return nil },
		"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusTeapot); return nil },
		"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("late")); return err },
		"Error":       func(w http.ResponseWriter) error { http.Error(w, "late", http.StatusTeapot); return nil },
		"ReadFrom": func(w http.ResponseWriter) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("late"))
			return err
		},
		"Flush": func(w http.ResponseWriter) error {
			w.(http.Flusher).Flush()
			return http.NewResponseController(w).Flush()
		},
		"Hijack": func(w http.ResponseWriter) error { _, _, err := w.(http.Hijacker).Hijack(); return err },
		"all": func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusTeapot)
			_, _, err := http.NewResponseController(w).Hijack()
			_, err2 := w.Write([]byte("late"))
			return errors.Join(err, err2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := redistest.StartN(t, 3)
			l := open(t, servers)
			handler := middleware.HTTP(l, short, fixed, patient)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "4")
				w.Header().Add("Set-Cookie", "a=b")
				w.Header().Set("X-Outer", "changed")
				w.WriteHeader(http.StatusEarlyHints) // is no answer yet
				pause(servers)
				<-r.Context().Done()
				assert.ErrorIs(t, context.Cause(r.Context()), redlock.ErrLost)
				if err := then(w); name != "return" && name != "WriteHeader" && name != "Error" {
					assert.ErrorIs(t, err, redlock.ErrLost)
				}
			}))
			s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Outer", "set")
				handler.ServeHTTP(w, r)
			}))
			a := s.get()
			resume(servers)
			a.is(t, http.StatusServiceUnavailable, "", lost)
			require.Equal(t, "set", a.header.Get("X-Outer"), "headers are as before the handler")
			require.Empty(t, a.header.Get("Set-Cookie"))
			s.quiet()
			eventually.True(t, "no key is left", func() bool { return empty(t, servers) })
		})
	}
}

// The same after it has written: its answer stands, and goes on.
func TestALossAfterTheHandlerWroteChangesNothing(t *testing.T) {
	for name, first := range map[string]func(w http.ResponseWriter) string{
		"WriteHeader": func(w http.ResponseWriter) string { w.WriteHeader(http.StatusAccepted); return "" },
		"Write": func(w http.ResponseWriter) string {
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write([]byte("first "))
			return "first "
		},
		"implicit": func(w http.ResponseWriter) string { _, _ = w.Write([]byte("first ")); return "first " },
		"ReadFrom": func(w http.ResponseWriter) string {
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("first ")})
			return "first "
		},
		"Flush": func(w http.ResponseWriter) string { w.(http.Flusher).Flush(); return "" },
		"Control": func(w http.ResponseWriter) string {
			assert.NoError(t, http.NewResponseController(w).Flush())
			return ""
		},
		"Hijack": func(w http.ResponseWriter) string {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nmine")
				assert.NoError(t, rw.Flush())
			}
			return "mine"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := redistest.StartN(t, 3)
			l := open(t, servers)
			wrote, done := "", make(chan struct{})
			s := serve(t, middleware.HTTP(l, short, fixed, patient)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				wrote = first(w)
				pause(servers)
				<-r.Context().Done()
				assert.ErrorIs(t, context.Cause(r.Context()), redlock.ErrLost)
				if name != "Hijack" {
					_, err := io.WriteString(w, "and on")
					assert.NoError(t, err)
					_, err = w.(io.ReaderFrom).ReadFrom(strings.NewReader(" and on"))
					assert.NoError(t, err)
					wrote += "and on and on"
				}
			})))
			a := s.get()
			require.NotEqual(t, http.StatusServiceUnavailable, a.status, a.body)
			<-done // of a hijacked connection the server does not wait for the end
			resume(servers)
			require.Equal(t, wrote, a.body)
			require.Empty(t, a.header.Get("Retry-After"))
			want := http.StatusAccepted
			if name == "implicit" || name == "ReadFrom" || name == "Flush" || name == "Control" {
				want = http.StatusOK
			}
			require.Equal(t, want, a.status)
			s.quiet()
		})
	}
}

// While ReadFrom waits for the first byte nothing is written yet.
func TestALossWhileTheFirstByteIsWaitedFor(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	s := serve(t, middleware.HTTP(l, short, fixed, patient)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pause(servers)
		_, err := io.Copy(w, readerFunc(func(p []byte) (int, error) {
			<-r.Context().Done()
			return copy(p, "late"), io.EOF
		}))
		assert.ErrorIs(t, err, redlock.ErrLost)
	})))
	a := s.get()
	resume(servers)
	a.is(t, http.StatusServiceUnavailable, "", lost)
	s.quiet()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestALossThatAMiddlewareKeepsToItselfIs503(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers, redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if err := next(ctx, op); op.Kind != redlock.OpHold {
				return err
			}
			return nil
		}
	}))
	s := serve(t, middleware.HTTP(l, short, fixed, patient)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pause(servers)
		<-r.Context().Done()
		_, _ = w.Write([]byte("late"))
	})))
	a := s.get()
	resume(servers)
	a.is(t, http.StatusServiceUnavailable, "", lost)
	s.quiet()
}

func TestAHandlerMayReleaseItsLock(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock, _ := redlock.FromContext(r.Context())
		assert.NoError(t, lock.Release(r.Context()))
		_, err := io.WriteString(w, "released")
		assert.NoError(t, err)
	})))
	require.Equal(t, "released", s.get().body)
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

	// The client goes away: what is said to it is for the log.
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

	// It ends by something around HTTP: the client is still there.
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

func TestFlushPasses(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	for name, flush := range map[string]func(http.ResponseWriter){
		"Flusher":            func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"ResponseController": func(w http.ResponseWriter) { assert.NoError(t, http.NewResponseController(w).Flush()) },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "first\n")
				flush(w)
				<-seen // by the client, while the handler runs
				_, _ = io.WriteString(w, "second\n")
			})))
			resp, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			defer resp.Body.Close()
			body := bufio.NewReader(resp.Body)
			line, err := body.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "first\n", line)
			close(seen)
			rest, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, "second\n", string(rest))
			s.quiet()
		})
	}
}

func TestHijackPasses(t *testing.T) {
	for name, hijack := range map[string]func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error){
		"Hijacker": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { return w.(http.Hijacker).Hijack() },
		"ResponseController": func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			return http.NewResponseController(w).Hijack()
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, redistest.StartN(t, 1))
			s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := hijack(w)
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw")
				assert.NoError(t, rw.Flush())
			})))
			require.Equal(t, "raw", s.get().body)
			s.quiet()
		})
	}
}

func TestWhatTheServerCannotHijackHTTPDoesNotClaimTo(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	s := httptest.NewUnstartedServer(middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, can := w.(http.Hijacker)
		assert.False(t, can)
		_, _, err := http.NewResponseController(w).Hijack()
		assert.ErrorIs(t, err, http.ErrNotSupported)
		_, _ = io.WriteString(w, r.Proto)
		assert.NoError(t, http.NewResponseController(w).Flush())
	})))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0", string(body))
}

// A writer that can do nothing is not said to have written by a failed Flush.
func TestAFlushThatIsNotSupportedHasNotWritten(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	handler := middleware.HTTP(l, short, fixed, patient)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.ErrorIs(t, http.NewResponseController(w).Flush(), http.ErrNotSupported)
		pause(servers)
		<-r.Context().Done()
	}))
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	}))
	a := s.get()
	resume(servers)
	a.is(t, http.StatusServiceUnavailable, "", lost)
}

func TestDeadlinesPass(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	var wrote error
	done := make(chan struct{})
	s := serve(t, middleware.HTTP(l, time.Minute, fixed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		control := http.NewResponseController(w)
		assert.NoError(t, control.SetReadDeadline(time.Now().Add(time.Hour)))
		assert.NoError(t, control.EnableFullDuplex())
		assert.NoError(t, control.SetWriteDeadline(time.Now().Add(-time.Second)))
		_, _ = io.WriteString(w, "too late")
		wrote = control.Flush()
	})))
	_, err := s.Client().Get(s.URL)
	require.Error(t, err)
	<-done
	var timeout net.Error
	require.ErrorAs(t, wrote, &timeout)
	require.True(t, timeout.Timeout())
}

func TestEveryStatusCanBeReplaced(t *testing.T) {
	servers := redistest.StartN(t, 1)
	keyOf := func(r *http.Request) (string, error) { return strings.TrimPrefix(r.URL.Path, "/"), nil }
	opts := []middleware.HTTPOption{
		middleware.WithStatus(599, redlock.ErrNotAcquired), // a later one counts
		middleware.WithStatus(510),
		middleware.WithStatus(511, middleware.ErrKey),
		middleware.WithStatus(512, redlock.ErrNotAcquired),
		middleware.WithStatus(513, redlock.ErrNoQuorum, redlock.ErrClosed),
		middleware.WithStatus(514, redlock.ErrLost),
	}
	l := open(t, servers)
	_, err := open(t, servers).TryAcquire(t.Context(), "held", time.Minute)
	require.NoError(t, err)
	lock := middleware.HTTP(l, short, keyOf, opts...)
	mux := http.NewServeMux()
	mux.Handle("/", lock(ok))
	served := middleware.HTTP(l, short, keyOf, append(opts, patient)...)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/lost":
			pause(servers)
			<-r.Context().Done()
		case "/nested":
			lock(ok).ServeHTTP(w, r)
		}
	}))
	mux.Handle("/lost", served)
	mux.Handle("/nested", served)
	s := serve(t, mux)
	s.get().is(t, 511, "", keyless)
	s.do("GET", "/held").is(t, 512, "1", locked)
	s.do("GET", "/nested").is(t, 510, "", unserved)
	s.do("GET", "/lost").is(t, 514, "", lost)
	s.do("GET", "/undecided").is(t, 513, "1", unclear)
	resume(servers)
	require.NoError(t, l.Close())
	s.do("GET", "/closed").is(t, 513, "1", closing)
	s.quiet()
}

func TestTheRendererCanBeReplaced(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	_, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)

	s := serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithRenderer(func(w http.ResponseWriter, r *http.Request, p middleware.Problem) {
		assert.ErrorIs(t, p.Err, redlock.ErrNotAcquired)
		assert.ErrorContains(t, p.Err, servers[0].Addr(), "the server's log may know more than the client")
		assert.Equal(t, "/here", r.URL.Path)
		assert.Equal(t, "5", w.Header().Get("Retry-After"))
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, p.Title+": "+p.Detail)
	}))(ok))
	a := s.do("GET", "/here")
	require.Equal(t, http.StatusTeapot, a.status)
	require.Equal(t, "text/plain", a.header.Get("Content-Type"))
	require.Equal(t, "Locked: "+locked, a.body)
	s.quiet()

	s = serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithRenderer(func(w http.ResponseWriter, r *http.Request, p middleware.Problem) {
		p.Type, p.Instance = "https://example.com/locked", r.URL.Path
		p.ServeHTTP(w, r)
	}))(ok))
	a = s.do("GET", "/here")
	require.Equal(t, http.StatusLocked, a.status)
	require.JSONEq(t, `{"type":"https://example.com/locked","title":"Locked","status":423,"detail":"`+locked+`","instance":"/here"}`, a.body)
	s.quiet()

	s = serve(t, middleware.HTTP(l, time.Minute, fixed, middleware.WithRenderer(func(http.ResponseWriter, *http.Request, middleware.Problem) {}))(ok))
	a = s.get()
	require.Equal(t, http.StatusLocked, a.status, "not a silent 200")
	require.Empty(t, a.body)
	s.quiet()

	// A panic of the renderer is the server's too.
	handler := middleware.HTTP(l, time.Minute, fixed, middleware.WithRenderer(func(http.ResponseWriter, *http.Request, middleware.Problem) { panic("mine") }))(ok)
	require.PanicsWithValue(t, "mine", func() { handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) })
}

func TestWithLockReachesTheLock(t *testing.T) {
	l := open(t, redistest.StartN(t, 1))
	s := serve(t, middleware.HTTP(l, time.Hour, fixed, middleware.WithLock(redlock.WithMaxHold(short)), middleware.WithLock(redlock.WithoutAutoExtend()))(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
	s.get().is(t, http.StatusServiceUnavailable, "", lost)
	s.quiet()
}

func TestOptionsAreNotSharedBetweenUses(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers)
	_, err := open(t, servers).TryAcquire(t.Context(), key, time.Minute)
	require.NoError(t, err)
	common := []middleware.HTTPOption{middleware.WithStatus(409, redlock.ErrNotAcquired), middleware.WithLock()}
	var a, b answer
	first := serve(t, middleware.HTTP(l, time.Minute, fixed, append(common[:2:2], middleware.WithStatus(410, redlock.ErrNotAcquired))...)(ok))
	second := serve(t, middleware.HTTP(l, time.Minute, fixed, append(common[:2:2], middleware.WithStatus(411, redlock.ErrNotAcquired))...)(ok))
	a, b = first.get(), second.get()
	require.Equal(t, []int{410, 411}, []int{a.status, b.status})
}

func TestARequestCannotLockANameThatTheLibraryUses(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers, redlock.WithKeyPrefix("redlock:"))
	unreached := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is served") })
	s := serve(t, middleware.HTTP(l, time.Minute, middleware.HeaderKey("orders:", "Idempotency-Key"))(unreached))
	for _, value := range []string{"7:waiters", "7:waiting", "7:fence"} {
		s.do("GET", "/", "Idempotency-Key", value).is(t, http.StatusBadRequest, "", keyless)
	}
	s.quiet()
	// A function of the user's own, and a name that only the prefix of the Locker completes.
	var refused error
	s = serve(t, middleware.HTTP(l, time.Minute, func(*http.Request) (string, error) { return "guard", nil },
		middleware.WithRenderer(func(w http.ResponseWriter, r *http.Request, p middleware.Problem) {
			refused = p.Err
			p.ServeHTTP(w, r)
		}))(unreached))
	s.get().is(t, http.StatusBadRequest, "", keyless)
	s.quiet()
	require.ErrorIs(t, refused, middleware.ErrKey)
	require.ErrorContains(t, refused, `acquire "redlock:guard": the library uses this name`)
	require.True(t, empty(t, servers))
}

func TestKeyFunctions(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		name    string
		key     func(*http.Request) (string, error)
		path    string
		headers []string
		want    string
		err     string
	}{
		{name: "header", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{"7f"}, want: "idem:7f"},
		{name: "header in lower case", key: middleware.HeaderKey("idem:", "idempotency-key"), headers: []string{"7f"}, want: "idem:7f"},
		{name: "no prefix", key: middleware.HeaderKey("", "Idempotency-Key"), headers: []string{"7f"}, want: "7f"},
		{name: "no header", key: middleware.HeaderKey("idem:", "Idempotency-Key")},
		{name: "empty header", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{""}},
		{name: "longest header", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{long}, want: "idem:" + long},
		{name: "too long a header", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{long + "x"}, err: "header Idempotency-Key: 256 bytes: at most 255 are accepted"},
		{name: "two headers", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{"7f", "7f"}, err: "header Idempotency-Key: given 2 times: once is accepted"},
		{name: "the library's queue", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{"7f:waiters"}, err: "header Idempotency-Key: the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard"},
		{name: "the library's counter", key: middleware.PathKey("{order}:", "id"), path: "/orders/7:fence", err: "path value id: the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard"},
		{name: "the library's marker", key: middleware.QueryKey("redlock:", "user"), path: "/?user=guard", err: "query parameter user: the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard"},
		{name: "path", key: middleware.PathKey("order:", "id"), path: "/orders/7", want: "order:7"},
		{name: "path, escaped", key: middleware.PathKey("order:", "id"), path: "/orders/a%2Fb", want: "order:a/b"},
		{name: "no such path value", key: middleware.PathKey("order:", "name"), path: "/orders/7"},
		{name: "too long a path value", key: middleware.PathKey("order:", "id"), path: "/orders/x" + long, err: "path value id: 256 bytes: at most 255 are accepted"},
		{name: "query", key: middleware.QueryKey("user:", "user"), path: "/?user=a%20b&x=y", want: "user:a b"},
		{name: "no query", key: middleware.QueryKey("user:", "user")},
		{name: "empty parameter", key: middleware.QueryKey("user:", "user"), path: "/?user="},
		{name: "two parameters", key: middleware.QueryKey("user:", "user"), path: "/?user=a&user=b", err: "query parameter user: given 2 times: once is accepted"},
		{name: "malformed query", key: middleware.QueryKey("user:", "user"), path: "/?user=a&x=%zz", err: `query: invalid URL escape "%zz"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have string
			var err error
			mux := http.NewServeMux()
			get := func(_ http.ResponseWriter, r *http.Request) { have, err = c.key(r) }
			mux.HandleFunc("/orders/{id}", get)
			mux.HandleFunc("/", get)
			if c.path == "" {
				c.path = "/"
			}
			req := httptest.NewRequest("GET", c.path, nil)
			for _, h := range c.headers {
				req.Header.Add("Idempotency-Key", h)
			}
			mux.ServeHTTP(httptest.NewRecorder(), req)
			if c.err != "" {
				require.EqualError(t, err, c.err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, c.want, have)
		})
	}
}

func TestHTTPRefusesBadInput(t *testing.T) {
	var l redlock.Locker // only looked at
	for says, bad := range map[string]func(){
		"redlock: middleware.HTTP: locker is nil: must be a *redlock.Locker":        func() { middleware.HTTP(nil, time.Minute, fixed) },
		"redlock: middleware.HTTP: ttl 0s: must be from 10ms to 87600h0m0s":         func() { middleware.HTTP(&l, 0, fixed) },
		"redlock: middleware.HTTP: ttl 9.999999ms: must be from 10ms to 87600h0m0s": func() { middleware.HTTP(&l, redlock.MinTTL-1, fixed) },
		"redlock: middleware.HTTP: key is nil: must be a function":                  func() { middleware.HTTP(&l, time.Minute, nil) },
		"redlock: middleware.HTTP: option 0 is nil":                                 func() { middleware.HTTP(&l, time.Minute, fixed, nil) },
		"redlock: middleware.HTTP: the handler is nil: must be an http.Handler":     func() { middleware.HTTP(&l, time.Minute, fixed)(nil) },
		"redlock: middleware.WithLock: option 1 is nil":                             func() { middleware.WithLock(redlock.WithMaxHold(1), nil) },
		"redlock: middleware.WithStatus(199): must be between 200 and 599":          func() { middleware.WithStatus(199, redlock.ErrLost) },
		"redlock: middleware.WithStatus(600): must be between 200 and 599":          func() { middleware.WithStatus(600) },
		"redlock: middleware.WithStatus(500): error 0 is nil":                       func() { middleware.WithStatus(500, nil) },
		"redlock: middleware.WithRetryAfter(-1ns): must not be negative":            func() { middleware.WithRetryAfter(-1) },
		"redlock: middleware.WithRenderer: render is nil: must be a function":       func() { middleware.WithRenderer(nil) },
		"redlock: middleware.HeaderKey: name is empty":                              func() { middleware.HeaderKey("a:", "") },
		"redlock: middleware.PathKey: name is empty":                                func() { middleware.PathKey("a:", "") },
		"redlock: middleware.QueryKey: name is empty":                               func() { middleware.QueryKey("a:", "") },
	} {
		require.PanicsWithValue(t, says, bad)
	}
	require.Panics(t, func() { middleware.HTTP(&l, time.Minute, fixed)(http.HandlerFunc(nil)) })
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
