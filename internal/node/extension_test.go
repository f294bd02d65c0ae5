package node_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/sim"
)

// cluster is a deployment whose keys move from one server to another, both of
// which are in the store.
type cluster struct {
	*sim.Store
	server atomic.Value // of string: the one that has all keys
}

func (c *cluster) Server([]string) string { return c.server.Load().(string) }

func runCluster(t *testing.T, test func(t *testing.T, n *node.Node, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Store: &sim.Store{}}
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

// split is a deployment of a server for each key, one of which hangs.
type split struct {
	*sim.Store
	hung string
}

func (s *split) Server(keys []string) string { return keys[0] }

func (s *split) Do(ctx context.Context, batch []node.Command) error {
	if batch[0].Claim.Keys[0] == s.hung {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.Do(ctx, batch)
}

func TestAServerThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := node.New(0, "n", &split{new(sim.Store), "k0"}, false)
		hung := make(sim.Voter, 100)
		for range 100 {
			n.Acquire(claim(0), time.Hour, hung)
			n.Extend(node.Extension{Slot: new(node.Slot), Claim: claim(0), TTL: time.Hour, Voter: hung})
		}
		time.Sleep(10 * time.Second)
		n.Acquire(claim(0), time.Hour, hung) // the first look at the silence
		time.Sleep(time.Second)
		acquired, extended := make(sim.Voter, 1), make(sim.Voter, 1)
		n.Acquire(claim(1), time.Hour, acquired)
		n.Extend(node.Extension{Slot: new(node.Slot), Claim: claim(2), TTL: time.Hour, Voter: extended})
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
		slots := make([]node.Slot, claims)
		for i := range claims {
			held = append(held, claim(i))
			require.Equal(t, quorum.Granted, acquire(n, held[i], time.Hour).Vote)
		}
		extendAll := func() (voters []sim.Voter) {
			for i, a := range held {
				v := make(sim.Voter, 1)
				due := time.Now().Add(time.Duration(claims-i) * time.Second)
				n.Extend(node.Extension{Slot: &slots[i], Claim: a, TTL: time.Hour, Due: due, Voter: v})
				voters = append(voters, v)
			}
			return voters
		}
		c.Faults(func(sim.Op, int) sim.Fault { return sim.Fault{Refuse: true} })
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

// The old master hangs, and has not broken off.
func TestAnExtensionDoesNotWaitForAServerThatHadItsKeys(t *testing.T) {
	runCluster(t, func(t *testing.T, n *node.Node, c *cluster) {
		a, hung := claim(1), claim(2)
		require.Equal(t, quorum.Granted, acquire(n, a, time.Hour).Vote)
		require.Equal(t, quorum.Granted, acquire(n, hung, time.Hour).Vote)
		c.Faults(func(sim.Op, int) sim.Fault { return sim.Fault{Request: time.Hour} })
		go extend(n, hung, time.Hour)
		synctest.Wait()
		c.Faults(nil)
		var slot node.Slot
		ask := func() sim.Voter {
			v := make(sim.Voter, 1)
			n.Extend(node.Extension{Slot: &slot, Claim: a, TTL: time.Hour, Voter: v})
			return v
		}
		ask() // waits for the one before
		synctest.Wait()
		c.server.Store("new")
		before := time.Now()
		require.Equal(t, quorum.Granted, (<-ask()).Vote)
		require.Zero(t, time.Since(before))
	})
}

// A lock may be extended by hand again and again while one node is away for
// hours.
func TestExtensionsDoNotPileUpInFrontOfANodeThatIsAway(t *testing.T) {
	for name, fault := range map[string]sim.Fault{"down": {Refuse: true}, "hung": {Request: 10 * time.Hour}} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node.Node, s *sim.Store) {
				a := claim(1)
				require.Equal(t, quorum.Granted, acquire(n, a, 100*time.Hour).Vote)
				var sent atomic.Int64
				s.Faults(func(sim.Op, int) sim.Fault { return fault })
				const extensions = 3 * 3600
				var voters []sim.Voter
				for range extensions {
					v := make(sim.Voter, 1)
					n.Extend(node.Extension{Slot: new(node.Slot), Claim: a, TTL: time.Hour, Due: time.Now().Add(time.Minute), Voter: v})
					voters = append(voters, v)
					time.Sleep(time.Second)
				}
				told := 0
				for _, v := range voters {
					told += len(v)
				}
				require.Greater(t, told, extensions-2500, "what is overdue is dropped, and its voter told")
				s.Faults(func(op sim.Op, commands int) sim.Fault {
					if op == sim.Extend {
						sent.Add(int64(commands))
					}
					return sim.Fault{}
				})
				time.Sleep(10 * time.Hour)
				require.Less(t, sent.Load(), int64(2500))
				for _, v := range voters {
					require.Len(t, v, 1)
				}
			})
		})
	}
}
