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
			h := b.hold("k", Terms{})
			require.True(t, h.End(errReleased))
			ballot, extended := h.Extend(t.Context(), ttl, time.Second)
			require.False(t, extended)
			for _, r := range ballot.Replies {
				if r.Vote != quorum.Pending {
					require.ErrorIs(t, r.Err, node.ErrUnasked)
				}
			}
			require.Equal(t, quorum.Unreachable, ballot.Verdict())
		})
	})
	t.Run("while it is under way", func(t *testing.T) {
		run(t, 3, func(t *testing.T, b *bench) {
			ballots := make(chan *quorum.Ballot, 1)
			b.through(func(h *Hold) error {
				ballot, _ := h.ExtendDue(ttl)
				ballots <- ballot
				return nil
			})
			b.faults(func(_ int, op memnode.Op, _ int) memnode.Fault {
				if op == memnode.Extend {
					return memnode.Fault{Reply: 20 * ms}
				}
				return memnode.Fault{}
			})
			h := b.hold("k", Terms{})
			h.Auto(200 * ms)
			time.Sleep(validity - 200*ms + 10*ms)
			synctest.Wait()
			require.True(t, h.End(errReleased))
			for _, n := range b.config.Nodes.All() {
				n.Abandon(h.claim)
			}
			for _, r := range (<-ballots).Replies {
				require.Equal(t, quorum.Pending, r.Vote)
			}
			time.Sleep(ttl)
		})
	})
}
