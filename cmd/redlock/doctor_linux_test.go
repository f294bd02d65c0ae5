package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestDoctorFindsTheClockThatIsOff(t *testing.T) {
	servers := redistest.StartWithClocks(t, 3, safe...)
	servers[1].SetClock(time.Minute)
	code, found, d := consult(t, list(servers))
	require.Zero(t, code)
	require.Equal(t, map[string]severity{"clock " + servers[1].Addr(): warning}, found)
	require.InDelta(t, 60_000, d.Servers[1].Clock.Offset, 1000)
	require.InDelta(t, 0, d.Servers[0].Clock.Offset, 1000)
}
