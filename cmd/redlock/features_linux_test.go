package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestDoctorSaysWhatWorksThroughTwemproxy(t *testing.T) {
	servers := redistest.StartN(t, 2, safe...)
	one := redistest.StartTwemproxy(t, servers[0])
	rows, out := tables(t, one.URL()+"?protocol=2", "lock:a")
	require.Equal(t, []string{one.Addr() + " yes yes no yes yes yes"}, rows, out)

	two := redistest.StartTwemproxy(t, servers...)
	code, found, d := consult(t, two.URL()+"?protocol=2", "lock:a")
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["several-keys-missing "+two.Addr()])
	require.Contains(t, text(d, "several-keys-missing"), "two owners can have one key: ")
	for _, s := range servers {
		require.Empty(t, s.Keys(t), "it leaves nothing behind")
	}
}
