package waitqueue

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

func about(metadata string) node.ClaimOptions { return node.ClaimOptions{Metadata: metadata} }

func TestAGrantHasTheMetadataOfItsWaiter(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 32)
		first, second := p.enter("k", ttl, about("one")), p.enter("k", ttl, about("two"))
		time.Sleep(ms)
		first.Leave()
		time.Sleep(ms)
		w.release("k")
		claim := p.got(second, time.Second).Claim
		time.Sleep(ms) // a quorum may be two of the three
		require.Equal(t, "two", node.Metadata(claim.Token))
		for _, owner := range w.owners("k") {
			require.Equal(t, claim.Token, owner)
		}
		p.Return("k", Grant{Claim: claim})
	})
}

// The next waiter of the process may have other metadata. The process keeps its place in the
// nodes' queues all the same.
func TestAProcessKeepsItsPlaceWhenItsFirstWaiterLeaves(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p, other := w.process("p", 32), w.process("other", 32)
		first, second := p.enter("k", ttl, about("one")), p.enter("k", ttl, about("two"))
		time.Sleep(100 * ms)
		later := other.enter("k", ttl, about("three"))
		time.Sleep(100 * ms)
		first.Leave()
		time.Sleep(ms)
		w.release("k")
		p.Return("k", p.got(second, time.Second))
		other.Return("k", other.got(later, time.Second))
	})
}

func TestAKeyIsPassedOnOnlyToTheSameMetadata(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 32)
		held := node.NewClaim([]string{"k"}, node.Tag("held", "one"), 3)
		held.Ask(about("one"))
		for _, s := range w.stores {
			s.Set("k", held.Token, time.Hour)
		}
		p.Hold("k", held)
		same, different := p.enter("k", ttl, about("one")), p.enter("k", ttl, about("two"))
		require.Same(t, same, p.Next("k", held, ttl))
		same.Pass(Grant{Claim: held, Until: 1 << 60, Handed: true})
		p.got(same, ms)
		require.Nil(t, p.Next("k", held, ttl), "the key has the metadata of the holder before")
		w.release("k")
		grant := p.got(different, time.Second)
		require.Equal(t, "two", node.Metadata(grant.Claim.Token))
		p.Return("k", grant)
	})
}

// told returns the key's owners on the nodes, as far as the process knows them.
func (p *process) told(key string) (owners []string) {
	for _, r := range p.Replies(key, errors.New("held here")) {
		owners = append(owners, r.Owner)
	}
	return owners
}

func TestAWaiterKnowsWhichOwnerHoldsTheKey(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 32)
		require.Equal(t, []string{"", "", ""}, p.told("k"), "there is no waiter")
		w.hold("k")
		for i, s := range w.stores {
			s.Faults(func(op memnode.Op, _ int) memnode.Fault {
				return memnode.Fault{Request: 150 * ms, LoseRequest: op == memnode.Join && i == 2}
			})
		}
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(200 * ms)
		for range 20 { // also while the answers to the next calls are on their way
			time.Sleep(50 * ms)
			require.Equal(t, []string{"holder", "holder", ""}, p.told("k"))
		}
		waiter.Leave()
		require.Equal(t, []string{"", "", ""}, p.told("k"), "no waiter is left")

		held := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", held)
		require.Equal(t, []string{"held", "held", "held"}, p.told("k"), "its own")
		p.Released("k", held)
	})
}

func TestMetadataSaysNothingOfAge(t *testing.T) {
	c := &candidate{order: 1000, claim: node.NewClaim([]string{"k"}, "M-rs", 1)}
	require.True(t, c.isYoungerThan(node.Tag("Z-rr", "host=b")))
	require.True(t, c.isYoungerThan(node.Tag("A-rs", "host=b")))
	require.False(t, c.isYoungerThan(node.Tag("Z-rs", "host=b")))
	require.False(t, c.isYoungerThan(node.Tag("A-rt", "host=b")))
	require.False(t, c.isYoungerThan("A.aG-9"), "no order, but metadata that looks like one")
}
