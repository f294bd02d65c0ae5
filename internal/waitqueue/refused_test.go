package waitqueue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// refusing is a node that does not let its user wait.
type refusing struct {
	*memnode.Backend
	join, listen error // nil: allowed
}

func (r *refusing) Do(ctx context.Context, batch []node.Command) error {
	for i := range batch {
		if batch[i].Kind == node.Join && r.join != nil {
			batch[i].Err = r.join
		} else if err := r.Backend.Do(ctx, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *refusing) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	if r.listen != nil {
		return r.listen
	}
	return r.Backend.Listen(ctx, channel, ready, heard)
}

// overRefusing runs a test with a waiter for a key that another owner holds on three nodes.
func overRefusing(t *testing.T, refuse func(i int, r *refusing), test func(t *testing.T, q *Queue, w *Waiter)) {
	synctest.Test(t, func(t *testing.T) {
		var nodes []*node.Node
		held := node.NewClaim([]string{"k"}, "another", 3)
		for i := range 3 {
			r := &refusing{Backend: &memnode.Backend{}}
			batch := []node.Command{{Kind: node.Acquire, Claim: held, TTL: time.Hour}}
			require.NoError(t, r.Do(t.Context(), batch))
			require.Equal(t, node.Done, batch[0].Outcome)
			refuse(i, r)
			nodes = append(nodes, node.New(i, fmt.Sprint("n", i), r, true))
		}
		all := node.NewNodes(nodes...)
		q := New(clock.New(0.01), all, 0, nil)
		w := q.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(time.Second)
		test(t, q, w)
		w.Leave()
		q.Close()
		for _, n := range all.All() {
			_ = n.Close(time.Second)
		}
	})
}

var errDenied = errors.New("NOPERM no")

// A node that denies a join has not run it, as one that is down. But it does not come back.
func TestANodeThatDeniesJoinsKeepsNoQueue(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		denied bool
	}{
		"denied": {node.NotRun(node.Denied(errDenied)), true},
		"down":   {node.NotRun(errDenied), false},
	} {
		for nodes := 1; nodes <= 2; nodes++ {
			t.Run(fmt.Sprint(name, " on ", nodes), func(t *testing.T) {
				overRefusing(t, func(i int, r *refusing) {
					if i < nodes {
						r.join = c.err
					}
				}, func(t *testing.T, q *Queue, w *Waiter) {
					failed := c.denied && nodes == 2
					require.Equal(t, !failed, q.Contended("k"), "attempts are pointless while the queue works")
					if err := w.Failure(); failed {
						require.ErrorIs(t, err, errDenied)
					} else {
						require.NoError(t, err)
					}
				})
			})
		}
	}
}

func TestAQueueSaysOnceThatNoGrantsArePushed(t *testing.T) {
	for name, c := range map[string]struct {
		nodes int
		err   error
		told  bool
	}{
		"by one of three": {1, errDenied, false},
		"by two of three": {2, errDenied, true},
		"two are down":    {2, node.NotConnected(errDenied), false},
	} {
		t.Run(name, func(t *testing.T) {
			overRefusing(t, func(i int, r *refusing) {
				if i < c.nodes {
					r.listen = c.err
				}
			}, func(t *testing.T, q *Queue, w *Waiter) {
				require.True(t, q.Contended("k"), "the candidate goes on: a join tells it of a grant too")
				err := w.Failure()
				if !c.told {
					require.NoError(t, err)
					return
				}
				require.EqualError(t, err, "SUBSCRIBE: NOPERM no (grants are not pushed: waits poll the queues)")
				require.NoError(t, w.Failure())
			})
		})
	}
}
