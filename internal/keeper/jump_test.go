package keeper

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
)

// A suspended machine: the wall clock has run on, the monotonic one has not.
func TestTheWallClockEndsAHoldSoonerAndNeverLater(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{TTL: time.Minute})
		h.Auto(40 * time.Second)
		synctest.Wait() // no other goroutine looks at the clocks, whose wall clock is right
		now := time.Now()
		require.Equal(t, b.clock.Now(), b.clock.Observe(now, now.Round(0).Add(-time.Hour)), "set back: nothing changes")
		require.NoError(t, h.Context().Err())
		b.clock.Observe(now, now.Round(0).Add(-time.Hour+time.Minute))
		require.False(t, h.Valid(), "ahead: validity has passed, at once for every caller")
		at, cause := ended(h)
		require.LessOrEqual(t, at.Sub(now), tick, "and within a tick for its context")
		require.ErrorIs(t, cause, errLost)
	})
}

func TestALossSaysWhichJumpItWas(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{TTL: time.Minute})
		time.Sleep(time.Second)
		synctest.Wait()
		now := time.Now()
		b.clock.Observe(now, now.Round(0).Add(time.Hour))
		ended(h)
		loss := b.loss.Load()
		require.Equal(t, &clock.Jump{By: time.Hour, At: now}, loss.Jump)
		require.Equal(t, now, loss.Until, "not an hour before the lock was taken")
		require.Equal(t, now, h.Until())
	})
	run(t, 3, func(t *testing.T, b *bench) {
		now := time.Now()
		b.clock.Observe(now, now.Round(0).Add(time.Hour))
		ended(b.hold("k", HoldOptions{}))
		require.Nil(t, b.loss.Load().Jump, "it was over before")
	})
}
