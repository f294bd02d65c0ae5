package node

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redistest"
)

func TestALineThatBrokeIsTriedAtOnceAndThenHasARespite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l line
		begin := func() try {
			call, err := l.begin()
			require.NoError(t, err)
			return call
		}
		refused := func() {
			_, err := l.begin()
			require.ErrorIs(t, err, ErrNotRun)
			require.ErrorIs(t, err, io.EOF)
			require.EqualError(t, err, "not connected: EOF")
		}
		underWay := []try{begin(), begin(), begin()}
		for _, call := range underWay {
			call.heard(io.EOF)
		}
		begin().heard(nil) // it has dialled anew
		begin().heard(io.EOF)
		begin().heard(io.EOF) // nobody is there
		refused()
		time.Sleep(firstRespite)
		for _, respite := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			underWay := []try{begin(), begin()}
			for _, call := range underWay {
				call.heard(io.EOF)
			}
			time.Sleep(respite*time.Millisecond - 1)
			refused()
			time.Sleep(time.Nanosecond)
		}
		// An answer ends the respite of a call that was under way beside it.
		one, other := begin(), begin()
		one.heard(io.EOF)
		other.heard(nil)
		begin().heard(io.EOF)
		begin() // as at first

		dial := &net.OpError{Op: "dial", Err: io.EOF}
		begin().heard(dial)
		_, err := l.begin()
		require.ErrorIs(t, err, dial, "a failed dial says it at once")
	})
}

func TestCallsThatEndWithoutTheirServerSayNothingOfTheLine(t *testing.T) {
	var l line
	for range 3 {
		call, err := l.begin()
		require.NoError(t, err)
		call.heard(context.Canceled)
	}
	require.Zero(t, l.failures)
}

func TestWhateverAServerAnswersTheLineIsInOrder(t *testing.T) {
	server := redistest.Start(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(t, err)
	defer client.Close()
	var l line
	for _, command := range [][]string{{"GET", "nil"}, {"NONSENSE"}, {"EVALSHA", "0", "0"}, {"PING"}} {
		call, err := l.begin()
		require.NoError(t, err)
		call.heard(client.Do(t.Context(), client.B().Arbitrary(command...).Build()).NonRedisError())
		require.Zero(t, l.failures, command)
		// An earlier failure is forgotten.
		l.failures = 1
		call, err = l.begin()
		require.NoError(t, err)
		call.heard(client.Do(t.Context(), client.B().Arbitrary(command...).Build()).NonRedisError())
		require.Zero(t, l.failures, command)
	}
}

// counted is a store whose dials are counted.
func counted(t *testing.T, server *redistest.Server, user, password string) (*Redis, *atomic.Int64) {
	dials := new(atomic.Int64)
	client, _ := rueidis.NewClient(rueidis.ClientOption{ // which is there even if the server is not
		InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		Username: user, Password: password,
		DialCtxFn: func(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			dials.Add(1)
			return dialer.DialContext(ctx, "tcp", addr)
		},
	})
	t.Cleanup(client.Close)
	return Wrap(client), dials
}

func take(t *testing.T, s *Redis) error {
	_, err := s.Acquire(t.Context(), []string{"k"}, "ours", time.Minute)
	return err
}

// What a server says instead of shaking hands is no answer either.
func TestAServerThatIsAwayIsNotDialledForEachCall(t *testing.T) {
	for _, name := range []string{"killed", "wrong password"} {
		t.Run(name, func(t *testing.T) {
			server, user, password := redistest.Start(t), "", ""
			if name == "wrong password" {
				user, password = "nobody", "wrong"
			}
			s, dials := counted(t, server, user, password)
			if name == "killed" {
				require.NoError(t, take(t, s))
				server.Kill()
			}
			dials.Store(0)
			start := time.Now()
			for range 1000 {
				require.Error(t, take(t, s))
			}
			// A dial for each respite, and two before the first.
			require.LessOrEqual(t, dials.Load(), int64(time.Since(start)/firstRespite)+2)
			require.ErrorIs(t, take(t, s), ErrNotRun)
			release := []Deletion{{Claim: &Claim{Keys: []string{"k"}, Token: "ours"}}}
			s.Release(t.Context(), release)
			require.Error(t, release[0].Err)
			if name == "killed" {
				server.Restart()
				require.Eventually(t, func() bool { return take(t, s) == nil }, 10*time.Second, time.Millisecond)
			}
		})
	}
}
