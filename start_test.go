package redlock_test

import (
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/redistest"
)

// rueidis returns a client for one server even when it could not dial it.
func TestNewStartsWithAClientWhoseServerIsDown(t *testing.T) {
	servers := redistest.StartN(t, 3)
	servers[2].Kill()
	var clients []rueidis.Client
	for i, s := range servers {
		client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true}))
		require.Equal(t, i == 2, err != nil)
		require.NotNil(t, client)
		defer client.Close()
		clients = append(clients, client)
	}
	l, err := redlock.New(clients)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err, "two of three are enough")
	require.NoError(t, lock.Release(t.Context()))

	servers[2].Restart()
	servers[0].Kill()
	eventually.True(t, "the third takes part", func() bool {
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		return err == nil
	})
	require.NoError(t, lock.Release(t.Context()))
}
