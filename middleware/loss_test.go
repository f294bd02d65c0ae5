package middleware_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/middleware"
)

// patient makes a request wait without a limit.
var patient = middleware.WithLock(redlock.WithRetry(redlock.FixedRetry(10*ms, 0, -1)))

// A lock that is lost in mid-request, with all nodes stopped, before the handler has
// written: whatever the handler does then, the answer is a 503.
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
