package waitqueue

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

// A hold may end, and its Keeper report that, between Next and Restore.
func TestAWaiterThatWasTakenKeepsItsLocalQueue(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 1)
		claim := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", claim)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		p.Released("k", claim)
		other := p.enter("k", ttl, node.ClaimOptions{})
		require.Same(t, waiter.local, other.local)
		waiter.Restore()
		for range 2 { // other may have been granted before Restore
			select {
			case g := <-waiter.Grant():
				p.Return("k", g)
			case g := <-other.Grant():
				p.Return("k", g)
			case <-time.After(100 * ms):
				require.FailNow(t, "not granted")
			}
		}
		require.False(t, p.Contended("k"))
		require.Empty(t, p.local)
	})
}

// A Waiter that leaves while the key is passed to it returns the key.
func TestAKeyThatIsPassedToAWaiterThatLeavesIsNotLost(t *testing.T) {
	nodes := node.NewNodes(node.New(0, "n0", &memnode.Backend{}, true))
	defer func() { _ = nodes.All()[0].Close(time.Second) }()
	for range 2000 {
		p := New(clock.New(0.01), nodes, 1, nil)
		claim := node.NewClaim([]string{"k"}, "held", 1)
		p.Hold("k", claim)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		left := make(chan struct{})
		go func() { defer close(left); waiter.Leave() }()
		waiter.Pass(Grant{Claim: claim})
		<-left
		require.False(t, p.Contended("k"), "the key is still held")
		p.Close()
	}
}

// The same, made certain: a Leave in between would find w neither taken nor granted.
func TestAKeyIsPassedBeforeItsWaiterCanLeave(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		p := w.process("p", 1)
		claim := node.NewClaim([]string{"k"}, "held", 1)
		p.Hold("k", claim)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		waiter.grant <- Grant{} // makes Pass block in the middle
		go waiter.Pass(Grant{Claim: claim, Until: 1 << 60})
		synctest.Wait()
		free := p.mu.TryLock()
		if free {
			p.mu.Unlock()
		}
		<-waiter.grant
		p.Return("k", <-waiter.grant)
		require.False(t, free)
	})
}

func TestAWaiterThatLeavesIsPassedOver(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, b, a)
		waiters[0].Leave()
		w.release("k")
		synctest.Wait()
		waiters[2].Leave() // granted, but the grant has not been received
		time.Sleep(ms)
		g := b.got(waiters[1], 10*ms)
		b.Return("k", g)
		time.Sleep(ms)
		require.Equal(t, make([]string, 3), w.owners("k"))
		require.Empty(t, a.local)
	})
}
