package middleware_test

import (
	"errors"
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

func TestARequestCannotLockANameThatTheLibraryUses(t *testing.T) {
	servers := redistest.StartN(t, 1)
	l := open(t, servers, redlock.WithKeyPrefix("redlock:"))
	unreached := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is served") })
	s := serve(t, middleware.HTTP(l, time.Minute, middleware.HeaderKey("orders:", "Idempotency-Key"))(unreached))
	for _, value := range []string{"7:redlock:queue", "{7}:redlock:fence", "7:redlock.waiters"} {
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
		{name: "the library's queue", key: middleware.HeaderKey("idem:", "Idempotency-Key"), headers: []string{"{7f}:redlock:queue"}, err: "header Idempotency-Key: the library uses this name: a key must not contain \":redlock:\" or \":redlock.\", nor be \"redlock:guard\""},
		{name: "the library's counter", key: middleware.PathKey("{order}:", "id"), path: "/orders/7:redlock.fence", err: "path value id: the library uses this name: a key must not contain \":redlock:\" or \":redlock.\", nor be \"redlock:guard\""},
		{name: "the library's marker", key: middleware.QueryKey("redlock:", "user"), path: "/?user=guard", err: "query parameter user: the library uses this name: a key must not contain \":redlock:\" or \":redlock.\", nor be \"redlock:guard\""},
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
