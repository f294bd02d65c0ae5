package middleware_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/middleware"
)

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
