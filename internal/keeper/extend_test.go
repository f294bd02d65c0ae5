package keeper

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
)

// A grant sets the keys for a window only. An extension by hand that asks for less than
// the ttl does not end the tries to extend them to it.
func TestAShortExtensionDoesNotCompleteAGrant(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		var healthy atomic.Bool
		b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
			return memnode.Fault{NotRun: op == memnode.Extend && !healthy.Load()}
		})
		h := b.hold("k", HoldOptions{TTL: time.Minute, Until: b.clock.Now().Add(300 * ms), ExtendNow: true})
		time.Sleep(10 * ms) // the first try has failed
		healthy.Store(true)
		_, ok := h.Extend(t.Context(), 320*ms, time.Second)
		require.True(t, ok)
		time.Sleep(200 * ms)
		require.Greater(t, time.Until(h.Until()), 50*time.Second)
	})
}
