package waitqueue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// A vote counts from the join whose number it carries, however late the push.
func TestALatePushIsNoLongerVote(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		began := p.clock.Now()
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(100 * ms)
		w.release("k")
		g := p.got(waiter, ms)
		require.Equal(t, began.Add(p.clock.Validity(usualWindow)), g.Until)
		p.Return("k", g)

		// All pushes are late: the grant has ended when the candidate learns of it.
		w.hold("k")
		for _, s := range w.stores {
			s.Pushes(func() (time.Duration, bool) { return 2 * time.Second, false })
		}
		waiter = p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(ms)
		w.cut() // it does not learn of the grant by asking
		w.release("k")
		select {
		case g := <-waiter.Grant():
			require.FailNow(t, "granted", "until %v at %v", g.Until, p.clock.Now())
		case <-time.After(3 * time.Second):
		}
		w.heal()
		p.Return("k", p.got(waiter, time.Second))
	})
}

func TestAGrantIsValidForAsLongAsAQuorumIs(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.cut(0, 1)
		p := w.process("p", 0)
		began := p.clock.Now()
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		w.release("k", 2)
		time.Sleep(ms)
		w.cut(2) // the heartbeat reaches this node, and gets its vote
		w.stores[2].Pushes(func() (time.Duration, bool) { return 0, true })
		time.Sleep(usualWindow/2 + ms)
		w.release("k", 0)
		require.Equal(t, began.Add(p.clock.Validity(usualWindow)), p.got(waiter, ms).Until)
	})
}

// A vote is void if the answer to a later join does not confirm it.
func TestAVoteThatANodeNoLongerHoldsIsVoid(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.stores[2].Set("k", "yet another", time.Hour) // no owner has a quorum
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(ms)
		w.release("k", 0) // one vote
		time.Sleep(ms)
		w.stores[0].Set("k", "another", time.Hour) // as after a restart
		time.Sleep(20 * ms)                        // the candidate has asked again
		w.release("k", 1)
		select {
		case <-waiter.Grant():
			require.FailNow(t, "granted", "%q", w.owners("k"))
		case <-time.After(2 * ms):
		}
		w.release("k", 2)
		p.Return("k", p.got(waiter, 2*ms))
	})
}
