package waiting

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ms  = time.Millisecond
	ttl = time.Minute
)

// world is nodes in memory, and the processes that wait on them.
type world struct {
	t         *testing.T
	stores    []*sim.Store
	processes []*process
	log       []string // who got the key, in order
}

// process is what a Locker has of waiting.
type process struct {
	*Queue
	world *world
	name  string
}

// run runs a test over n nodes in virtual time. All that is left of the processes
// must end then.
func run(t *testing.T, n int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		for range n {
			w.stores = append(w.stores, &sim.Store{})
		}
		defer func() {
			for _, s := range w.stores {
				s.Resume()
			}
			for _, p := range w.processes {
				p.close()
			}
		}()
		test(t, w)
	})
}

func (w *world) process(name string, handoffs int) *process {
	var nodes []*node.Node
	for i, s := range w.stores {
		nodes = append(nodes, node.New(i, fmt.Sprint("n", i), s, true))
	}
	k := keeper.New(keeper.Config{
		Nodes: nodes, Panel: quorum.NewPanel(len(nodes)), Drift: 0.01,
		Cause: func(keeper.Loss) error { return errors.New("lost") },
	})
	p := &process{New(k, nodes, handoffs), w, name}
	w.processes = append(w.processes, p)
	return p
}

func (p *process) close() {
	p.keeper.Close(errors.New("closed"))
	p.Close()
	for _, n := range p.nodes {
		_ = n.Close(time.Second)
	}
	p.keeper.Wait()
}

// crash has the process say, hear and do nothing more.
func (p *process) crash() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.lines {
		if l.contender != nil {
			p.end(l)
		}
	}
	p.mu.Unlock()
	p.ears.close()
	synctest.Wait()
}

// got waits until w is granted, and notes it.
func (p *process) got(w *Waiter, within time.Duration) Grant {
	p.world.t.Helper()
	select {
	case g := <-w.Granted():
		require.Greater(p.world.t, g.Until, p.keeper.Now())
		p.world.log = append(p.world.log, p.name)
		return g
	case <-time.After(within):
		require.FailNow(p.world.t, "not granted", "%s, within %v", p.name, within)
		return Grant{}
	}
}

// hold sets the key on all nodes, as somebody's who knows no queue.
func (w *world) hold(key string) {
	for _, s := range w.stores {
		s.Set(key, "holder", time.Hour)
	}
}

// release is the release of what hold set.
func (w *world) release(key string, nodes ...int) {
	for i, s := range w.stores {
		if len(nodes) == 0 || contains(nodes, i) {
			_ = s.Do(context.Background(), []node.Command{{Kind: node.Leave, Claim: node.NewClaim([]string{key}, "holder", 1)}})
		}
	}
}

func contains(all []int, i int) bool {
	for _, j := range all {
		if i == j {
			return true
		}
	}
	return false
}

// owners is who holds the key, by node; "" for nobody.
func (w *world) owners(key string) []string {
	owners := make([]string, len(w.stores))
	for i, s := range w.stores {
		owners[i], _ = s.Get(key)
	}
	return owners
}

// cut has Joins reach only some nodes from now on.
func (w *world) cut(nodes ...int) {
	for i, s := range w.stores {
		s.Faults(func(op sim.Op, _ int) sim.Fault {
			return sim.Fault{LoseRequest: op == sim.Join && !contains(nodes, i)}
		})
	}
}

func (w *world) heal() {
	for _, s := range w.stores {
		s.Faults(nil)
	}
}

// split has two contenders, of which each is alone in the queues of one half of
// four nodes, be granted the key at once.
func (w *world) split(apart time.Duration) (one, other *process, first, second *Waiter) {
	w.hold("k")
	one, other = w.process("one", 0), w.process("other", 0)
	w.cut(0, 1)
	first = one.Enter("k", ttl)
	synctest.Wait()
	time.Sleep(apart)
	w.cut(2, 3)
	second = other.Enter("k", ttl)
	synctest.Wait()
	w.heal()
	w.release("k")
	return one, other, first, second
}

func TestSplitVotesEnd(t *testing.T) {
	for _, apart := range []time.Duration{0, ms, 100 * ms} {
		t.Run(fmt.Sprint("apart=", apart), func(t *testing.T) {
			run(t, 4, func(t *testing.T, w *world) {
				one, other, first, second := w.split(apart)
				began := time.Now()
				var g Grant
				winner, loser, next := one, other, second
				select {
				case g = <-first.Granted():
				case g = <-second.Granted():
					winner, loser, next = other, one, first
				case <-time.After(time.Minute):
					require.FailNow(t, "split for ever", "%q", w.owners("k"))
				}
				t.Logf("%s has it after %v", winner.name, time.Since(began))
				require.Less(t, time.Since(began), 100*ms)
				winner.Return("k", g)
				loser.Return("k", loser.got(next, 10*ms))
			})
		})
	}
}

// A holder's end, which its Keeper tells of, may come between Next and Restore.
func TestAWaiterThatWasTakenKeepsItsLine(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 1)
		claim := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", claim)
		waiter := p.Enter("k", ttl)
		require.Same(t, waiter, p.Next("k", claim, 0))
		p.Released("k", claim)
		other := p.Enter("k", ttl)
		waiter.Restore()
		g := p.got(waiter, time.Second)
		require.True(t, p.Busy("k"))
		p.Return("k", g)
		p.Return("k", p.got(other, time.Second))
		require.False(t, p.Busy("k"))
		require.Empty(t, p.lines)
	})
}

// A Waiter that leaves while the key is passed to it gives it back.
func TestAKeyThatIsPassedToOneThatLeavesIsNotLost(t *testing.T) {
	for range 20000 {
		p := New(nil, nil, 1)
		claim := node.NewClaim([]string{"k"}, "held", 1)
		p.Hold("k", claim)
		waiter := p.Enter("k", ttl)
		require.Same(t, waiter, p.Next("k", claim, 0))
		left := make(chan struct{})
		go func() { defer close(left); waiter.Leave() }()
		waiter.Pass(Grant{Claim: claim})
		<-left
		require.False(t, p.Busy("k"), "somebody is to have it")
		p.Close()
	}
}
