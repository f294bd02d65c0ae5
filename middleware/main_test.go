package middleware_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// soon is for what must happen at some time: generous, so that a loaded machine
// does not fail it.
const soon = 20 * time.Second

// open is a Locker over the servers, closed at the end of the test.
func open(t testing.TB, servers []*redistest.Server, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL())
	}
	l, err := redlock.Open(t.Context(), urls, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// short is the ttl of locks that are to be lost: so long that a loaded machine
// can take them.
const short = time.Second

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, soon, 2*ms, what)
}

func empty(t testing.TB, servers []*redistest.Server) bool {
	for _, s := range servers {
		if len(s.Keys(t)) > 0 {
			return false
		}
	}
	return true
}

func pause(servers []*redistest.Server) {
	for _, s := range servers {
		s.Pause()
	}
}

func resume(servers []*redistest.Server) {
	for _, s := range servers {
		s.Resume()
	}
}

func kill(servers []*redistest.Server) {
	for _, s := range servers {
		s.Kill()
	}
}
