package redisnode_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// Twemproxy has no pub/sub, and runs a script on the server of its first key.
func TestTwemproxyLacksQueuesAndSpreadsKeys(t *testing.T) {
	servers := redistest.StartN(t, 2)
	one := redistest.StartTwemproxy(t, servers[0])
	found := missing(t, dialURL(t, one.URL()+"?protocol=2"), "lock:a")
	require.Len(t, found, 1, "%v", found)
	require.Equal(t, "SUBSCRIBE: the server closed the connection, as a proxy without it does", found[redisnode.Queue])

	two := redistest.StartTwemproxy(t, servers...)
	for _, r := range rehearse(t, dialURL(t, two.URL()+"?protocol=2"), "lock:a") {
		require.Contains(t, r.Results[redisnode.Queue].Err.Error(), "SUBSCRIBE: ")
		require.ErrorIs(t, r.Results[redisnode.SeveralKeys].Err, redisnode.ErrUnsafe)
		for _, f := range []redisnode.Feature{redisnode.Mutex, redisnode.Fence, redisnode.Guard} {
			require.NoError(t, r.Results[f].Err, f)
		}
	}
	tagged := missing(t, dialURL(t, two.URL()+"?protocol=2"), "{lock}")
	require.Len(t, tagged, 1, "the keys have a common tag: %v", tagged)
	for _, s := range servers {
		require.Empty(t, s.Keys(t))
	}
}
