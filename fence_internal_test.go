package redlock

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFloorsDoNotGoBackWithTheClock(t *testing.T) {
	var f fenceClock
	ahead := time.Now().Add(time.Hour).UnixMicro()
	f.last.Store(ahead) // the clock has been set back by an hour since
	require.Equal(t, ahead+1, f.next())
	require.Equal(t, ahead+2, f.next())
}

// A clock that is far off for a while leaves nothing behind in the process.
func TestAFloorIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fenceClock
		require.NoError(t, checkClock(time.Now()))
		before := f.next()
		require.Less(t, before, int64(maxFloor))
		time.Sleep(time.Until(time.UnixMicro(maxFloor)))
		require.EqualError(t, checkClock(time.Now()), "redlock: WithFence: the clock of this machine says 2112-09-17: must be before 2112-09-17")
		require.EqualValues(t, 1<<53, f.next(), "which the nodes refuse")
		require.Equal(t, before, f.last.Load())
	})
}

func TestNoTwoClaimsOfAProcessHaveTheSameFloor(t *testing.T) {
	const goroutines, each = 8, 1000
	var f fenceClock
	var all sync.WaitGroup
	var mu sync.Mutex // guards seen
	seen := make(map[int64]bool)
	for range goroutines {
		all.Go(func() {
			for range each {
				floor := f.next()
				mu.Lock()
				seen[floor] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Len(t, seen, goroutines*each)
}
