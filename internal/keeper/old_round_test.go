package keeper

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
)

// slowFirst has the first extension that a quorum gets answered late.
func (b *bench) slowFirst(fault memnode.Fault, nodes ...int) {
	seen := make([]int, len(b.stores))
	for _, i := range nodes {
		b.stores[i].Faults(func(op memnode.Op, _ int) memnode.Fault {
			if op != memnode.Extend {
				return memnode.Fault{}
			}
			if seen[i]++; seen[i] == 1 {
				return fault
			}
			return memnode.Fault{}
		})
	}
}

// The refusals of a round may come when a quorum has granted a later one: they are
// of a time from before that.
func TestALateRefusalOfAnOlderRoundChangesNothing(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", HoldOptions{})
		b.slowFirst(memnode.Fault{Reply: 80 * ms}, 0, 1)
		b.stores[0].Set("k", "another", time.Hour)
		b.stores[1].Set("k", "another", time.Hour)
		go h.Extend(t.Context(), ttl, time.Hour) // refused by two, as we learn in 80 ms
		synctest.Wait()
		time.Sleep(10 * ms)
		for _, s := range b.stores[:2] {
			s.Set("k", "token of k", ttl) // as if they had not been another's
		}
		time.Sleep(20 * ms)
		start := time.Now()
		_, ok := h.Extend(t.Context(), ttl, time.Hour)
		require.True(t, ok)
		at, _ := ended(h)
		require.Equal(t, start.Add(validity), at, "not with the refusals")
		require.Nil(t, b.loss.Load().Tally, "nor are they why it ended")
	})
}

// A quorum granted a round that had been given up: it is not why the hold
// ends, later.
func TestARoundThatWasCarriedLateIsNotWhyAHoldEnds(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		b.through(due)
		b.slowFirst(memnode.Fault{Reply: 70 * ms}, 0, 1, 2)
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		h.Auto(200 * ms) // the first try is at 95 ms, and given up at 145 ms
		time.Sleep(140 * ms)
		h.StopAuto()
		at, _ := ended(h)
		require.Equal(t, start.Add(95*ms+validity), at)
		require.Nil(t, b.loss.Load().Tally)
	})
}

// One that was granted too late is not hidden: it says which nodes
// were slow.
func TestARoundThatWasCarriedTooLateIsWhyAHoldEnds(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		start := time.Now()
		h := b.hold("k", HoldOptions{})
		b.slowFirst(memnode.Fault{Reply: 200 * ms}, 0, 1, 2) // just when it ends
		h.Auto(200 * ms)
		time.Sleep(140 * ms)
		b.mu.Lock()
		h.threshold = 0
		b.unschedule(h)
		round := h.round
		b.mu.Unlock()
		round.giveUp(45 * ms)
		at, _ := ended(h)
		require.Equal(t, start.Add(validity), at)
		require.NotNil(t, b.loss.Load().Tally)
	})
}
