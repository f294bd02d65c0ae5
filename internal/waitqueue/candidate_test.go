package waitqueue

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// A join whose answer does not come may renew a grant that is not heard of either.
func TestANodeThatOwesAnAnswerIsNotJoined(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 2 * time.Second }, 2)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(30 * time.Second)
		t.Logf("joins: %d at a near node, %d at a node that takes 2 s", len(p.joins(0)), len(p.joins(2)))
		require.Greater(t, len(p.joins(0)), 115)
		require.Less(t, len(p.joins(2)), 50)
		require.Greater(t, len(p.joins(2)), 15)
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// A node owes no answer to a join that was sent to the others only, however many there were.
func TestANodeThatWasNotAskedOwesNothing(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		c := p.candidate("k")
		for range 10 * joinWindow {
			synctest.Wait()
			p.mu.Lock()
			c.join(1 << 0)
			p.unlock()
		}
		before := len(p.joins(2))
		time.Sleep(10 * time.Second)
		require.Greater(t, len(p.joins(2)), before+35)
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// However many processes wait, and whatever the nodes do, all processes keep joining.
func TestManyProcessesKeepJoining(t *testing.T) {
	const crowd = 120
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		var processes []*process
		for i := range crowd {
			p := w.process(fmt.Sprint("p", i), 0)
			p.change(func(l *link) { l.trip = 20 * ms })
			processes = append(processes, p)
		}
		waiters := w.enter(processes...)
		joinsOn := func(nodes ...int) {
			t.Helper()
			time.Sleep(longestHeartbeat + time.Second)
			for _, p := range processes {
				for _, i := range nodes {
					joins := p.joins(i)
					require.Less(t, time.Since(joins[len(joins)-1].at), longestHeartbeat+500*ms, "%s, node %d", p.name, i)
				}
			}
		}
		joinsOn(0, 1, 2)
		w.stores[1].Pause()
		w.stores[2].Pause()
		time.Sleep(10 * time.Second)
		joinsOn(0) // the node that answers
		w.stores[1].Resume()
		w.stores[2].Resume()
		joinsOn(0, 1, 2)
		w.stores[1].Down()
		w.stores[2].Down()
		time.Sleep(10 * time.Second)
		joinsOn(0)
		w.stores[1].Up()
		w.stores[2].Up()
		time.Sleep(time.Second)
		joinsOn(0, 1, 2)
		for _, waiter := range waiters {
			waiter.Leave()
		}
	})
}

// A push is a vote only with the nonce that the claim gave this node, and for a join that
// was sent.
func TestAPushThatANodeCannotHaveMadeIsNoVote(t *testing.T) {
	for _, floor := range []int64{0, 1000} {
		t.Run(fmt.Sprint("floor=", floor), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				p := w.process("p", 0)
				p.floor = func() int64 { return floor + 1 }
				waiter := p.enter("k", ttl, node.ClaimOptions{Floor: floor})
				time.Sleep(1100 * ms) // between two joins
				c := p.candidate("k")
				p.mu.Lock()
				number, token := c.number, c.claim.Token
				nonces := []string{c.states[0].nonce, c.states[1].nonce, c.states[2].nonce}
				p.mu.Unlock()
				right := int64(0)
				if floor > 0 {
					right = floor + 5
				}
				for name, forge := range map[string]func(i int, push *node.Push){
					"no nonce":                func(_ int, push *node.Push) { push.Nonce = "" },
					"the nonce of another":    func(i int, push *node.Push) { push.Nonce = nonces[(i+1)%3] },
					"a call that is to come":  func(_ int, push *node.Push) { push.Number++ },
					"a number below 0":        func(_ int, push *node.Push) { push.Number = -1 },
					"a fence that is none":    func(_ int, push *node.Push) { push.Fence = node.MaxFence },
					"a fence below 0":         func(_ int, push *node.Push) { push.Fence = -1 },
					"a fence below the floor": func(_ int, push *node.Push) { push.Fence = 500 },
					"the token of another":    func(_ int, push *node.Push) { push.Token += "x" },
				} {
					for i := range w.stores {
						push := node.Push{Token: token, Nonce: nonces[i], Number: number, Fence: right}
						forge(i, &push)
						p.heard(i, push)
					}
					require.Empty(t, waiter.Grant(), name)
					p.mu.Lock()
					for _, s := range c.states {
						require.Zero(t, s.vote, name)
					}
					p.mu.Unlock()
				}
				for i := range 2 {
					p.heard(i, node.Push{Token: token, Nonce: nonces[i], Number: number, Fence: right})
				}
				p.Return("k", p.got(waiter, ms))
			})
		})
	}
}

// A grant to a claim that was given up is no vote for the next claim.
func TestAPushOfACallBeforeTheClaimsFirstIsNoVote(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(time.Second)
		c := p.candidate("k")
		p.mu.Lock()
		c.renew()
		c.joinAll()
		before, token, nonces := c.base, c.claim.Token, []string{c.states[0].nonce, c.states[1].nonce, c.states[2].nonce}
		p.unlock()
		require.Positive(t, before)
		for i := range w.stores {
			p.heard(i, node.Push{Token: token, Nonce: nonces[i], Number: before})
		}
		require.Empty(t, waiter.Grant())
		w.release("k")
		p.Return("k", p.got(waiter, 10*ms))
	})
}

// A node tells the second candidate in its queue to join again: its grant would count from
// its last join.
func TestACandidateThatIsToldToJoinAgainDoes(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		var processes []*process
		for i := range 12 {
			processes = append(processes, w.process(fmt.Sprint("p", i), 0))
		}
		waiters := w.enter(processes...)
		time.Sleep(20 * time.Second)
		last := processes[11]
		c := last.candidate("k")
		for { // until its last join is old enough, and its next is not due
			last.mu.Lock()
			old := last.clock.Now().Sub(c.states[0].lastJoin)
			last.mu.Unlock()
			if old > usualWindow && old < 2*usualWindow {
				break
			}
			time.Sleep(10 * ms)
		}
		again := func(i int) {
			last.mu.Lock()
			push := node.Push{Token: c.claim.Token, Nonce: c.states[i].nonce}
			last.mu.Unlock()
			last.heard(i, push)
			synctest.Wait()
		}
		count := func() (n []int) { return []int{len(last.joins(0)), len(last.joins(1)), len(last.joins(2))} }
		before := count()
		again(1)
		require.Equal(t, []int{before[0], before[1] + 1, before[2]}, count(), "that node alone")
		time.Sleep(usualWindow/2 - ms)
		again(1)
		require.Equal(t, []int{before[0], before[1] + 1, before[2]}, count(), "the candidate has just joined")
		for _, waiter := range waiters {
			waiter.Leave()
		}
	})
}

// The candidate was made for the first waiter, which leaves.
func TestAWaiterGetsACandidateOfItsOwnTerms(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.floor = func() int64 { return 1000 }
		first, second := p.enter("k", ttl, node.ClaimOptions{}), p.enter("k", ttl, node.ClaimOptions{Floor: 1000})
		time.Sleep(ms)
		first.Leave()
		w.release("k")
		g := p.got(second, 10*ms)
		require.True(t, g.Claim.Fenced())
		require.Len(t, g.Fences, 3)
		p.Return("k", g)
	})
}
