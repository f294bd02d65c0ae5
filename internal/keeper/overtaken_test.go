package keeper

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// An extension that the end of its hold overtakes is no fault of the nodes'.
func TestAnExtensionThatTheEndOvertakesBlamesNoNode(t *testing.T) {
	t.Run("before it is sent", func(t *testing.T) {
		run(t, 3, func(t *testing.T, b *bench) {
			h := b.hold("k", HoldOptions{})
			require.True(t, h.End(errReleased))
			tally, extended := h.Extend(t.Context(), ttl, time.Second)
			require.False(t, extended)
			for _, r := range tally.Replies {
				if r.Vote != quorum.Awaited {
					require.ErrorIs(t, r.Err, node.ErrUnasked)
				}
			}
			require.Equal(t, quorum.Unreachable, tally.Verdict())
		})
	})
	t.Run("while it is under way", func(t *testing.T) {
		run(t, 3, func(t *testing.T, b *bench) {
			tallies := make(chan *quorum.Tally, 1)
			b.through(func(h *Hold) error {
				tally, _ := h.ExtendDue(ttl)
				tallies <- tally
				return nil
			})
			b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
				if op == memnode.Extend {
					return memnode.Fault{Reply: 20 * ms}
				}
				return memnode.Fault{}
			})
			h := b.hold("k", HoldOptions{})
			h.Auto(200 * ms)
			time.Sleep(validity - 200*ms + 10*ms)
			synctest.Wait()
			require.True(t, h.End(errReleased))
			for _, n := range b.config.Nodes.All() {
				n.Abandon(h.claim)
			}
			for _, r := range (<-tallies).Replies {
				require.Equal(t, quorum.Awaited, r.Vote)
			}
			time.Sleep(ttl)
		})
	})
}
