package node_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestANodeCountsAReplyThatNamesTheClaimAsAGrant(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		a := claim(1)
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{LoseReply: true} })
		require.Equal(t, quorum.Failed, acquire(n, a, time.Minute).Vote)
		s.Faults(nil)
		time.Sleep(10 * time.Second)
		reply := ask(func(v node.Voter) { n.AcquireAgain(a, time.Hour, v) })
		require.Equal(t, quorum.Reply{Vote: quorum.Granted}, reply)
		time.Sleep(51 * time.Second)
		require.Zero(t, s.Len(), "it lives from the first ask on")
		a.End()
		n.Abandon(a)
	})
}

// Two calls for one claim may be under way when it ends, and run before its release, after
// it, or one before and one after.
func TestAnAttemptThatWasAskedTwiceLeavesNothingInWhateverOrder(t *testing.T) {
	delays := []time.Duration{0, 15 * ms, 40 * ms, 90 * ms}
	for _, first := range delays {
		for _, second := range delays {
			for _, release := range []time.Duration{0, 20 * ms, 60 * ms} {
				for _, reply := range []time.Duration{0, 30 * ms} {
					for _, giveUp := range []time.Duration{2 * ms, 20 * ms, 50 * ms, 200 * ms} {
						for _, extended := range []bool{false, true} {
							name := fmt.Sprintf("first %v, second %v, release %v, reply %v, given up after %v, extended %v", first, second, release, reply, giveUp, extended)
							run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
								var asks atomic.Int32
								s.Faults(func(op memnode.Op, _ int) memnode.Fault {
									switch op {
									case memnode.Acquire:
										return memnode.Fault{Request: []time.Duration{first, second}[asks.Add(1)-1], Reply: reply}
									case memnode.Extend:
										return memnode.Fault{Request: 10 * ms, Reply: reply}
									}
									return memnode.Fault{Request: release, Reply: reply}
								})
								a := claim(1)
								go acquire(n, a, time.Hour)
								time.Sleep(ms)
								go ask(func(v node.Voter) { n.AcquireAgain(a, time.Hour, v) })
								if extended {
									go extend(n, a, time.Hour)
								}
								time.Sleep(giveUp)
								a.End()
								n.Abandon(a)
								time.Sleep(time.Minute)
								require.Zero(t, s.Len(), name)
							})
						}
					}
				}
			}
		}
	}
}
