package waitqueue

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// Where grants take longer than a window, the window grows. But each token has only one
// window: a node keeps the number of the join that was made last, and the window of the join
// that arrived last.
func TestTheWindowGrowsUnderANewTokenOnly(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 600 * ms })
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(100 * ms)
		w.release("k")
		p.Return("k", p.got(waiter, 10*time.Second))
		windows := p.oneWindowPerToken()
		require.Greater(t, len(windows), 1)
		require.Greater(t, windows[len(windows)-1], windows[0])
	})
	run(t, 3, func(t *testing.T, w *world) { // under random faults
		random := rand.New(rand.NewPCG(1, 2))
		var processes []*process
		ends := time.Now().Add(2 * time.Minute)
		done := make(chan struct{})
		for i := range 4 {
			p := w.process(fmt.Sprint("p", i), 0)
			processes = append(processes, p)
			go func() {
				for time.Now().Before(ends) {
					waiter, err := p.Enter("k", 30*time.Second, node.ClaimOptions{})
					if err != nil {
						time.Sleep(100 * ms)
						continue
					}
					select {
					case g := <-waiter.Grant():
						time.Sleep(50 * ms)
						p.Return("k", g)
					case <-time.After(10 * time.Second):
						waiter.Leave()
					}
				}
				done <- struct{}{}
			}()
		}
		for time.Now().Before(ends) {
			p := processes[random.IntN(len(processes))]
			p.change(func(l *link) {
				l.trip = time.Duration(random.IntN(1000)) * ms / 2
				if random.IntN(2) == 0 {
					l.trip = ms
				}
				l.cut, l.deaf = random.IntN(5) == 0, random.IntN(5) == 0
			}, random.IntN(3))
			time.Sleep(time.Duration(random.IntN(1000)) * ms)
		}
		for _, p := range processes {
			p.change(func(l *link) { l.cut, l.deaf, l.trip = false, false, ms })
		}
		for range processes {
			<-done
		}
		different := make(map[time.Duration]bool)
		for _, p := range processes {
			for _, window := range p.oneWindowPerToken() {
				different[window] = true
			}
		}
		require.Greater(t, len(different), 3)
	})
}

// oneWindowPerToken checks all joins of a process, and returns their windows, one per token,
// in the order of the first joins.
func (p *process) oneWindowPerToken() (windows []time.Duration) {
	byToken := make(map[string]time.Duration)
	nonces := make(map[string]string) // the claim and the node of each nonce
	for i := range p.links {
		numbers := make(map[string]bool)
		for _, j := range p.joins(i) {
			window, known := byToken[j.token]
			if !known {
				windows, window = append(windows, j.Window), j.Window
				byToken[j.token] = window
			}
			require.Equal(p.world.t, window, j.Window, "two windows under one token")
			number := fmt.Sprint(j.token, j.Number)
			require.False(p.world.t, numbers[number], "two joins with one number")
			numbers[number] = true
			of := fmt.Sprint(j.token, " on node ", i)
			if before, used := nonces[j.nonce]; used {
				require.Equal(p.world.t, before, of, "a nonce is of one claim and node")
			}
			nonces[j.nonce] = of
		}
	}
	return windows
}

// A grant that ends before the lock can be extended is of no use.
func TestATTLForWhichTheNodesAreTooFarIsNotQueued(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		p.change(func(l *link) { l.trip = 30 * ms })
		early := p.enter("k", 60*ms, node.ClaimOptions{}) // nothing is known of the nodes yet
		long := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(200 * ms)
		_, err := p.Enter("k", 60*ms, node.ClaimOptions{})
		require.ErrorContains(t, err, "not queued: a grant for the ttl 60ms would be valid for 57.4ms, and three round trips to the nodes take 90ms: use a longer ttl")
		require.True(t, p.Contended("k")) // removes the first waiter, for which the nodes are too far away
		require.ErrorContains(t, early.Far(), "use a longer ttl")
		w.release("k")
		p.Return("k", p.got(long, 2*time.Second))
		early.Leave()
		require.NoError(t, long.Far())
		require.Empty(t, p.local)
	})
}

// No candidate joins a node that seems to be too far away, so no join shows that it is near
// again.
func TestANodeThatHasHungDoesNotSeemFarForLong(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 0)
		w.stores[1].Pause()
		w.stores[2].Pause()
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		time.Sleep(2 * time.Minute)
		w.stores[1].Resume()
		w.stores[2].Resume()
		time.Sleep(forgotten + longestRest*usualWindow)
		waiter.Leave()
		again, err := p.Enter("k", ttl, node.ClaimOptions{})
		require.NoError(t, err)
		p.Return("k", p.got(again, time.Second))
	})
}
