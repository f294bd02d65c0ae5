package waitqueue

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// On nodes with a channel per key, a release grants the key to a waiter at once, in order.
func TestChannelsPerKeyGrantInOrder(t *testing.T) {
	for name, nodes := range map[string][]int{"all": {0, 1, 2}, "one of three": {1}} {
		t.Run(name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.perKey(nodes...)
				w.hold("k")
				a, b := w.process("a", 0), w.process("b", 0)
				waiters := w.enter(a, b)
				time.Sleep(50 * ms)
				w.release("k")
				g := a.got(waiters[0], ms)
				a.Return("k", g)
				b.Return("k", b.got(waiters[1], ms))
				require.Equal(t, []string{"a", "b"}, w.log)
			})
		})
	}
}

// The subscription to a key's channel makes the candidate for that key join that node again:
// pushes that it sent before were lost. It concerns no other key.
func TestASubscriptionHasItsKeyJoinAgain(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		w.hold("other")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 20 * ms })
		p.enter("other", ttl, node.ClaimOptions{})
		time.Sleep(100 * ms)
		before := [2]int{len(p.joins(0)), len(p.joins(1))}
		p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(70 * ms)
		require.Equal(t, []string{"redlock:" + p.nonce}, p.subscriptions(1))
		require.Equal(t, []string{node.KeyChannel("other", p.nonce), node.KeyChannel("k", p.nonce)}, p.subscriptions(0))
		require.Equal(t, before[0]+2, len(p.joins(0)), "at once, and when it has subscribed")
		require.Equal(t, before[1]+1, len(p.joins(1)))
	})
}

// A waiter whose subscription has moved joins again as soon as it has subscribed elsewhere: the
// server that has the slot now may have dropped its entry, as it had no subscriber.
func TestAMovedSubscriptionJoinsAgain(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 2 * ms })
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(2*usualWindow + usualWindow/4)
		joins := len(p.joins(0))
		p.change(func(l *link) { l.end() })
		time.Sleep(5 * ms)
		require.Len(t, p.subscriptions(0), 2)
		require.Greater(t, len(p.joins(0)), joins)
		w.release("k")
		p.Return("k", p.got(waiter, 5*ms))
	})
}

// A process that waits for a key again soon needs neither a new subscription nor a second join.
// Later the subscription has ended.
func TestAHotKeyStaysSubscribed(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 2 * ms })
		wait := func() {
			w.hold("k")
			waiter := p.enter("k", ttl, node.ClaimOptions{})
			time.Sleep(10 * ms)
			w.release("k")
			p.Return("k", p.got(waiter, 5*ms))
		}
		wait()
		for range 5 {
			time.Sleep(keyIdleTimeout - 100*ms)
			joins := len(p.joins(0))
			wait()
			require.Len(t, p.joins(0), joins+1)
			require.Len(t, p.subscriptions(0), 1)
		}
		time.Sleep(keyIdleTimeout + 10*ms)
		require.Zero(t, p.openChannels())
		wait()
		require.Len(t, p.subscriptions(0), 2)
	})
}

// Waits that begin while the key's last subscription ends have a new one, after it.
func TestSubscriptionsToOneChannelDoNotOverlap(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 20 * ms })
		p.enter("k", ttl, node.ClaimOptions{}).Leave()
		time.Sleep(keyIdleTimeout + ms) // it ends, which takes 10 ms
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(100 * ms)
		require.Len(t, p.subscriptions(0), 2)
		w.release("k")
		p.Return("k", p.got(waiter, 50*ms))
	})
}

// Idle subscriptions are bounded.
func TestIdleSubscriptionsAreBounded(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		p := w.process("p", 0)
		for i := range maxIdleKeys + 10 {
			p.enter(fmt.Sprint("k", i), ttl, node.ClaimOptions{}).Leave()
		}
		synctest.Wait()
		require.LessOrEqual(t, p.openChannels(), maxIdleKeys)
	})
}

// Where the only node cannot push, as a Cluster of version 6, there is no candidate: the callers
// poll, and one is told which node and why. The node is asked again later.
func TestANodeThatCannotPushIsPolled(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.refusal = node.NoPush(errors.New("SSUBSCRIBE: unknown command")) })
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(10 * ms)
		require.False(t, p.Contended("k"), "attempts go on")
		require.False(t, p.Enabled("k"))
		require.Nil(t, p.candidate("k"))
		require.EqualError(t, waiter.Failure(), "node n0: SSUBSCRIBE: unknown command")
		require.NoError(t, waiter.Failure(), "once")
		require.Len(t, p.subscriptions(0), 1)
		require.LessOrEqual(t, len(p.joins(0)), 1, "none but the first")

		p.change(func(l *link) { l.refusal = nil })
		time.Sleep(noPushTime)
		require.True(t, p.Contended("k"), "it is asked again")
		time.Sleep(10 * ms)
		w.release("k")
		p.Return("k", p.got(waiter, ms))
	})
}

// A node of three that cannot push is left out: it is not joined, and the others grant the key.
func TestANodeOfThreeThatCannotPushIsLeftOut(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.perKey(2)
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.refusal = node.NoPush(errors.New("unknown command")) }, 2)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(noPushTime / 2)
		require.True(t, p.Contended("k"))
		require.NoError(t, waiter.Failure())
		require.LessOrEqual(t, len(p.joins(2)), 1, "while it was not known")
		p.change(func(l *link) { l.refusal = nil }, 2)
		time.Sleep(noPushTime)
		require.Greater(t, len(p.joins(2)), 1, "it is asked again")
		w.release("k", 0, 1)
		p.Return("k", p.got(waiter, ms))
	})
}

// A server that answers joins and no subscriptions is told of. The waiter joins it all the same.
func TestAnUnansweredSubscriptionIsToldOf(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.refusal = node.NotConnected(errors.New("refused")) })
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(time.Second)
		require.NoError(t, waiter.Failure(), "a server that is down may be able to push when it is back")
		p.change(func(l *link) { l.refusal = errors.New("SSUBSCRIBE: no reply within 5s") })
		time.Sleep(2 * time.Second)
		require.EqualError(t, waiter.Failure(), "node n0: SSUBSCRIBE: no reply within 5s")
		require.False(t, p.Contended("k"), "attempts go on")
		w.release("k")
		p.Return("k", p.got(waiter, usualWindow))
	})
}

// While a slot is migrated no join is answered, and attempts go on, which need the key alone. When
// it has moved the candidate is granted the key again.
func TestAttemptsGoOnWhileASlotMoves(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		w.perKey(0)
		w.hold("k")
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(10 * ms)
		require.True(t, p.Contended("k"))
		p.change(func(l *link) { l.migrates = true })
		time.Sleep(2 * usualWindow)
		require.False(t, p.Contended("k"))
		require.NoError(t, waiter.Failure(), "it passes")
		p.change(func(l *link) { l.migrates = false; l.end() })
		time.Sleep(10 * ms)
		require.True(t, p.Contended("k"))
		w.release("k")
		p.Return("k", p.got(waiter, ms))
	})
}

// openChannels returns the number of keys for which the process has subscriptions.
func (p *process) openChannels() int {
	p.listener.mu.Lock()
	defer p.listener.mu.Unlock()
	return len(p.listener.forKeys)
}
