package waitqueue

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFirstComeFirstServed(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint("nodes=", n), func(t *testing.T) {
			run(t, n, func(t *testing.T, w *world) {
				w.hold("k")
				a, b, c := w.process("a", 0), w.process("b", 0), w.process("c", 0)
				order := []*process{b, a, c}
				waiters := w.enter(order...)
				w.release("k")
				for i, p := range order {
					began := time.Now()
					p.Return("k", p.got(waiters[i], 20*ms))
					require.Less(t, time.Since(began), 2*ms, "by a push")
				}
				time.Sleep(ms)
				require.Equal(t, make([]string, n), w.owners("k"))
				for _, p := range order {
					require.Empty(t, p.local)
					require.Empty(t, p.candidates)
				}
			})
		})
	}
}

// Each process goes to the end of the nodes' queues after its turn, however many of its
// goroutines wait.
func TestProcessesTakeTurns(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, a, a, b, b)
		w.release("k")
		for _, i := range []int{0, 3, 1, 4, 2} {
			p := waiters[i].queue
			select {
			case g := <-waiters[i].Grant():
				time.Sleep(2 * ms)
				p.Return("k", g)
			case <-time.After(time.Second):
				require.FailNow(t, "out of turn", "%d", i)
			}
		}
	})
}

func TestAProcessThatCrashesWhileItWaitsDelaysNoOther(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		dead, p := w.process("dead", 0), w.process("p", 0)
		waiters := w.enter(dead, p)
		dead.crash()
		w.release("k")
		began := time.Now()
		p.Return("k", p.got(waiters[1], time.Second))
		require.Less(t, time.Since(began), 2*ms, "pushes to it are lost")
	})
}

// Its connections stay open: only the window ends its turn.
func TestAProcessThatIsStoppedWhenItIsGrantedDelaysOthersByAWindow(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		stopped, p := w.process("stopped", 0), w.process("p", 0)
		waiters := w.enter(stopped, p)
		stopped.gate.stop() // it neither sends nor receives
		w.release("k")
		began := time.Now()
		p.Return("k", p.got(waiters[1], time.Second))
		require.InDelta(t, usualWindow, time.Since(began), float64(10*ms))
		stopped.gate.resume()
		stopped.Return("k", stopped.got(waiters[0], time.Second))
		require.Equal(t, []string{"p", "stopped"}, w.log)
	})
}

// The process dies after it has received the grant, before it has extended it.
func TestAProcessThatCrashesWhenItIsGrantedDelaysOthersByAWindow(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		dead, p := w.process("dead", 0), w.process("p", 0)
		waiters := w.enter(dead, p)
		w.release("k")
		dead.got(waiters[0], 10*ms)
		dead.crash()
		began := time.Now()
		p.Return("k", p.got(waiters[1], time.Second))
		require.InDelta(t, usualWindow, time.Since(began), float64(10*ms))
	})
}

func TestAHolderThatCrashesDelaysTheNextByItsTTL(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		for _, s := range w.stores {
			s.Set("k", "dead", 3*time.Second)
		}
		began := time.Now()
		p := w.process("p", 0)
		p.Return("k", p.got(p.enter("k", ttl, node.ClaimOptions{}), time.Minute))
		require.InDelta(t, 3*time.Second, time.Since(began), float64(10*ms))
	})
}

// Clusters keep no queues.
func TestWhereFewNodesHaveQueuesThereIsNoCandidate(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.processOver("p", 1, 1)
		waiter := p.enter("k", ttl, node.ClaimOptions{})
		require.Nil(t, waiter.local.candidate)
		require.False(t, p.Contended("k"), "attempts are needed")
		held := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", held)
		require.True(t, p.Contended("k"))
		require.Same(t, waiter, p.Next("k", held, ttl))
		waiter.Pass(Grant{Claim: held, Until: 1 << 60})
		p.Return("k", p.got(waiter, ms))

		most := w.processOver("most", 0, 2)
		most.Return("k", most.got(most.enter("k", ttl, node.ClaimOptions{}), ms))
		time.Sleep(ms)
		require.Equal(t, []string{"", "", ""}, w.owners("k"))
	})
}

func TestNodesThatHangOrForgetDoNotStopTheOthers(t *testing.T) {
	run(t, 5, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		w.stores[0].Pause()
		waiters := w.enter(a, b)
		w.stores[1].Wipe() // it has lost its queue and the key
		time.Sleep(ms)
		for i := 2; i < 5; i++ {
			w.release("k", i)
		}
		began := time.Now()
		a.Return("k", a.got(waiters[0], time.Second))
		b.Return("k", b.got(waiters[1], time.Second))
		require.Less(t, time.Since(began), 100*ms)
	})
}
