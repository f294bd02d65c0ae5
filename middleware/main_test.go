package middleware_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// open returns a Locker over the servers, which is closed at the end of the test.
func open(t testing.TB, servers []*redistest.Server, opts ...redlock.Option) *redlock.Locker {
	t.Helper()
	return lockertest.Open(t, redistest.URLs(servers), opts...)
}

// short is the ttl of locks that are to be lost: so long that a loaded machine
// can take them.
const short = time.Second

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
