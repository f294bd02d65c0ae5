package keeper

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// The end of a hold waits for no lock, from its first moment on (invariant 2). In
// real time: to wait for a mutex does not let virtual time pass.
func TestANewHoldsDeadlineDoesNotWaitForTheKeeper(t *testing.T) {
	n := node.New(0, "n", &memnode.Backend{}, false)
	k := New(Config{Nodes: node.NewNodes(n), Clock: clock.New(0.01)})
	defer func() {
		k.Close(errClosed)
		require.NoError(t, n.Close(time.Second))
		k.Wait()
	}()
	h := new(Hold)
	bound, cancel := context.WithCancelCause(t.Context())
	h.Bind(cancel)
	claim := node.NewClaim([]string{"k"}, "token", 1)
	kept := make(chan bool)
	k.mu.Lock()
	go func() { kept <- h.Start(t.Context(), k, owner{}, claim, k.clock.Now(), HoldOptions{TTL: 50 * ms}) }()
	select {
	case <-bound.Done():
		require.ErrorIs(t, context.Cause(bound), errLost)
		require.True(t, claim.Ended())
	case <-time.After(20 * time.Second):
		t.Error("the hold did not end while the Keeper's mutex was held")
	}
	k.mu.Unlock()
	require.False(t, <-kept, "it has ended before it was kept: the claim is the caller's")
}

// The same for one that is kept, and for an extension of it.
func TestADeadlineDoesNotWaitForTheKeeper(t *testing.T) {
	n := node.New(0, "n", &memnode.Backend{}, false)
	k := New(Config{Nodes: node.NewNodes(n), Clock: clock.New(0.01)})
	defer func() {
		k.Close(errClosed)
		require.NoError(t, n.Close(time.Second))
		k.Wait()
	}()
	h := new(Hold)
	require.True(t, h.Start(t.Context(), k, owner{}, node.NewClaim([]string{"k"}, "token", 1), k.clock.Now(), HoldOptions{TTL: 200 * ms}))
	k.mu.Lock()
	defer k.mu.Unlock()
	require.True(t, h.advance(k.clock.Now().Add(250*ms)))
	select {
	case <-h.Context().Done():
		require.ErrorIs(t, context.Cause(h.Context()), errLost)
	case <-time.After(20 * time.Second):
		t.Error("the hold did not end while the Keeper's mutex was held")
	}
}

// arm may set the timer by a reading that is old by the time: the deadline has
// been moved, or the hold has ended.
func TestATimerThatIsSetTooEarlyIsSetAgain(t *testing.T) {
	run(t, 1, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		h.timer.Reset(10 * ms)
		at, _ := ended(h)
		require.Equal(t, start.Add(validity), at)
	})
}
