package middleware_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/middleware"
)

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

// A Flush that the writer does not support does not count as a write.
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
