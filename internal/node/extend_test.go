package node_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// cluster is a deployment whose keys move from one server to another. One Backend is both.
type cluster struct {
	*memnode.Backend
	server atomic.Value // of string: the server that has all keys
}

func (c *cluster) Server([]string) string { return c.server.Load().(string) }

func runCluster(t *testing.T, test func(t *testing.T, n *node.Node, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Backend: &memnode.Backend{}}
		c.server.Store("old")
		n := node.New(0, "n", c, false)
		defer func() {
			c.Resume()
			n.Close(time.Hour)
			synctest.Wait()
		}()
		test(t, n, c)
	})
}

// split is a deployment with a server for each key, one of which hangs.
type split struct {
	*memnode.Backend
	hung string
}

func (s *split) Server(keys []string) string { return keys[0] }

func (s *split) Do(ctx context.Context, batch []node.Command) error {
	if batch[0].Claim.Keys[0] == s.hung {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Backend.Do(ctx, batch)
}

func TestAServerThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := node.New(0, "n", &split{new(memnode.Backend), "k0"}, false)
		hung := make(memnode.Replies, 100)
		for range 100 {
			n.Acquire(claim(0), time.Hour, hung)
			n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: claim(0), TTL: time.Hour, Handler: hung})
		}
		time.Sleep(10 * time.Second)
		n.Acquire(claim(0), time.Hour, hung) // the first look at the silence
		time.Sleep(time.Second)
		acquired, extended := make(memnode.Replies, 1), make(memnode.Replies, 1)
		n.Acquire(claim(1), time.Hour, acquired)
		n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: claim(2), TTL: time.Hour, Handler: extended})
		synctest.Wait()
		fine := len(acquired) == 1 && (<-acquired).Vote == quorum.Granted && len(extended) == 1
		hangs := len(hung) == 0
		go func() {
			for range hung {
			}
		}()
		err := n.Close(time.Second)
		synctest.Wait()
		close(hung)
		require.True(t, fine)
		require.True(t, hangs)
		require.Error(t, err)
	})
}

// A master fails while extensions wait for it, and another takes over.
func TestExtensionsFollowTheirKeysToAnotherServer(t *testing.T) {
	runCluster(t, func(t *testing.T, n *node.Node, c *cluster) {
		const claims = 5
		var held []*node.Claim
		slots := make([]node.PendingExtension, claims)
		for i := range claims {
			held = append(held, claim(i))
			require.Equal(t, quorum.Granted, acquire(n, held[i], time.Hour).Vote)
		}
		extendAll := func() (handlers []memnode.Replies) {
			for i, a := range held {
				v := make(memnode.Replies, 1)
				due := time.Now().Add(time.Duration(claims-i) * time.Second)
				n.Extend(node.Extension{Pending: &slots[i], Claim: a, TTL: time.Hour, Due: due, Handler: v})
				handlers = append(handlers, v)
			}
			return handlers
		}
		c.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Refuse: true} })
		require.ErrorIs(t, acquire(n, claim(100), time.Hour).Err, node.ErrNotConnected)
		replaced := extendAll()
		synctest.Wait()
		c.server.Store("new")
		c.Faults(nil)
		last := extendAll()
		for i, v := range last {
			require.Equal(t, quorum.Granted, (<-v).Vote, "claim %d", i)
		}
		time.Sleep(time.Second)
		for i, v := range replaced {
			require.Empty(t, v, "claim %d: what was replaced is not sent", i)
			require.Empty(t, last[i], "claim %d: it is sent once", i)
		}
	})
}

// The old master hangs, and its connection stands.
func TestAnExtensionDoesNotWaitForAServerThatHadItsKeys(t *testing.T) {
	runCluster(t, func(t *testing.T, n *node.Node, c *cluster) {
		a, hung := claim(1), claim(2)
		require.Equal(t, quorum.Granted, acquire(n, a, time.Hour).Vote)
		require.Equal(t, quorum.Granted, acquire(n, hung, time.Hour).Vote)
		c.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: time.Hour} })
		go extend(n, hung, time.Hour)
		synctest.Wait()
		c.Faults(nil)
		var slot node.PendingExtension
		ask := func() memnode.Replies {
			v := make(memnode.Replies, 1)
			n.Extend(node.Extension{Pending: &slot, Claim: a, TTL: time.Hour, Handler: v})
			return v
		}
		ask() // waits for the extension before it
		synctest.Wait()
		c.server.Store("new")
		before := time.Now()
		require.Equal(t, quorum.Granted, (<-ask()).Vote)
		require.Zero(t, time.Since(before))
	})
}

// A lock may be extended by hand many times while one node is away for hours.
func TestExtensionsDoNotPileUpInFrontOfANodeThatIsAway(t *testing.T) {
	for name, fault := range map[string]memnode.Fault{"down": {Refuse: true}, "hung": {Request: 10 * time.Hour}} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
				a := claim(1)
				require.Equal(t, quorum.Granted, acquire(n, a, 100*time.Hour).Vote)
				var sent atomic.Int64
				s.Faults(func(memnode.Op, int) memnode.Fault { return fault })
				const extensions = 3 * 3600
				var handlers []memnode.Replies
				for range extensions {
					v := make(memnode.Replies, 1)
					n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: a, TTL: time.Hour, Due: time.Now().Add(time.Minute), Handler: v})
					handlers = append(handlers, v)
					time.Sleep(time.Second)
				}
				told := 0
				for _, v := range handlers {
					told += len(v)
				}
				require.Greater(t, told, extensions-2500, "what is overdue is dropped, and its handler told")
				s.Faults(func(op memnode.Op, commands int) memnode.Fault {
					if op == memnode.Extend {
						sent.Add(int64(commands))
					}
					return memnode.Fault{}
				})
				time.Sleep(10 * time.Hour)
				require.Less(t, sent.Load(), int64(2500))
				for _, v := range handlers {
					require.Len(t, v, 1)
				}
			})
		})
	}
}

func TestExtendTellsEachOutcomeApart(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		ours, gone, taken := claim(1), claim(2), claim(3)
		for _, a := range []*node.Claim{ours, gone, taken} {
			acquire(n, a, time.Second)
		}
		s.Set("k2", "", 0)
		s.Set("k3", "another", time.Hour)
		var replies []quorum.Reply
		for _, c := range []*node.Claim{ours, gone, taken} {
			replies = append(replies, extend(n, c, time.Hour))
		}
		require.Equal(t, quorum.Granted, replies[0].Vote)
		require.Equal(t, quorum.Refused, replies[1].Vote, "a key that was set again is no vote")
		require.ErrorContains(t, replies[1].Err, "key was missing")
		require.Equal(t, quorum.Refused, replies[2].Vote)
		require.ErrorContains(t, replies[2].Err, "another owner")
		owner, _ := s.Get("k2")
		require.Equal(t, gone.Token, owner, "but it is set")
	})
}
