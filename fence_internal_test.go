package redlock

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFloorsDoNotGoBackWithTheClock(t *testing.T) {
	var f floors
	ahead := time.Now().Add(time.Hour).UnixMicro()
	f.last.Store(ahead) // the clock has been set back by an hour since
	require.Equal(t, ahead+1, f.next())
	require.Equal(t, ahead+2, f.next())
}

func TestNoTwoClaimsOfAProcessHaveTheSameFloor(t *testing.T) {
	const goroutines, each = 8, 1000
	var f floors
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
