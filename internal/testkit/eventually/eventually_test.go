package eventually_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

func TestItWaitsNoLongerThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		eventually.True(t, "a second is over", func() bool { return time.Since(began) >= time.Second })
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestATimeoutFailsTheTestWithTheDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		failed := &failing{TB: t}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			eventually.True(failed, "pigs fly", func() bool { return false }, func() string { return "they walk" })
		}()
		<-ended
		require.Equal(t, []string{"they walk", "waited for 30s without success: pigs fly"}, failed.said)
		require.InDelta(t, eventually.Soon, time.Since(began), float64(10*time.Millisecond))
	})
}

// failing records the messages with which it is failed.
type failing struct {
	testing.TB
	said []string
}

func (f *failing) Log(args ...any) { f.said = append(f.said, fmt.Sprint(args...)) }

func (f *failing) Fatalf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
	runtime.Goexit()
}
