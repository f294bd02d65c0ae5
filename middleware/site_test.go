package middleware_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/syncbuf"
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

// quiet fails the test if the server has logged an error.
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

// is compares an answer with the one that HTTP must give.
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

// waitPolicy returns a policy that tries again every 5 ms until ctx ends, and a channel
// that is closed when the first attempt has failed.
func waitPolicy() (policy redlock.RetryPolicy, waiting <-chan struct{}) {
	failed := make(chan struct{})
	once := sync.OnceFunc(func() { close(failed) })
	next := redlock.FixedRetry(5*ms, 0, -1)
	return func() backoff.BackOff { once(); return next() }, failed
}
