package redistest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheClockOfOneServerJumpsAndNoOther(t *testing.T) {
	servers := StartWithClocks(t, 2)
	s, other := servers[0], servers[1]
	mustDo(t, s, "SET", "minute", "v", "PX", "60000")
	s.SetClock(-time.Hour)
	mustDo(t, s, "SET", "now", "v", "PX", "1")
	require.Greater(t, mustDo(t, s, "PTTL", "minute"), int64(3_600_000))
	s.SetClock(time.Hour)
	require.Empty(t, s.Keys(t))
	now, err := other.time()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), now, time.Minute)

	s.Restart()
	now, err = s.time()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), now, time.Minute, "it outlives the process")
}

func TestAClockThatCannotBeBuiltFailsWithTheWayOut(t *testing.T) {
	t.Setenv("CC", "/nowhere/cc")
	message := fatal(t, func(t testing.TB) { StartWithClocks(t, 1) })
	require.Contains(t, message, "/nowhere/cc")
	require.Contains(t, message, "make deps")
}
