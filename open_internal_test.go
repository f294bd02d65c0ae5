package redlock

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestANodeIsOneHoweverItsAddressIsWritten(t *testing.T) {
	for _, same := range [][]string{
		{"localhost:6379", "127.0.0.1:6379", "[::1]:6379", "[0:0:0:0:0:0:0:1]:6379", "LOCALHOST.:6379", ":6379", "0.0.0.0:6379", "[::ffff:127.0.0.1]:6379"},
		{"r1.example:6379", "R1.Example:6379", "r1.example.:6379"},
		{"[2001:db8::1]:6379", "[2001:DB8:0::1]:6379"},
	} {
		for _, addr := range same {
			require.Equal(t, site(same[0]), site(addr))
		}
	}
	distinct := make(sites)
	for i, addr := range []string{"localhost:1", "localhost:2", "127.0.0.2:1", "/tmp/a", "/tmp/A", "/tmp/a:1", "/tmp/A:1", "r1:1", "r2:1"} {
		_, _, ok := distinct.occupy(i, []string{addr}, "")
		require.True(t, ok, addr)
	}
	_, _, ok := distinct.occupy(9, []string{"[::1]:1"}, "a group that another's Sentinels watch too")
	require.True(t, ok)
	i, addr, ok := distinct.occupy(10, []string{"r3:1", "[::1]:2"}, "")
	require.False(t, ok)
	require.Equal(t, 1, i)
	require.Equal(t, "[::1]:2", addr)
	_, _, ok = distinct.occupy(11, []string{"r4:1", "R4:1"}, "")
	require.True(t, ok, "one's own address twice")
}
