package waiting

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
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
	gate  *gate
	links []*link
}

// gate is what a process sends and hears through: while it is stopped, that waits.
type gate struct {
	mu   sync.Mutex // guards shut
	shut chan struct{}
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

// link is a node as one process has it.
type link struct {
	*sim.Store
	gate *gate

	mu    sync.Mutex    // guards what follows
	trip  time.Duration // of every call; a push takes half of it
	back  time.Duration // what an answer takes beside
	late  time.Duration // what a push takes beside
	cut   bool          // there is no connection
	deaf  bool          // the answers to joins get lost
	joins []joined
}

// joined is a Join that was sent.
type joined struct {
	node.Entry
	token, nonce string
	at           time.Time
}

// change changes how a process has a node, or all.
func (p *process) change(change func(l *link), nodes ...int) {
	for i, l := range p.links {
		if len(nodes) == 0 || slices.Contains(nodes, i) {
			l.mu.Lock()
			change(l)
			l.mu.Unlock()
		}
	}
}

// joins is what the process has sent to a node.
func (p *process) joins(i int) (joins []joined) {
	p.change(func(l *link) { joins = append(joins, l.joins...) }, i)
	return joins
}

func (l *link) Do(ctx context.Context, batch []node.Command) error {
	l.gate.pass()
	defer l.gate.pass()
	l.mu.Lock()
	trip, back, cut, deaf := l.trip, l.back, l.cut, l.deaf
	for _, c := range batch {
		if c.Kind == node.Join {
			l.joins = append(l.joins, joined{*c.Entry, c.Claim.Token, c.Nonce, time.Now()})
		}
	}
	l.mu.Unlock()
	if cut {
		for i := range batch {
			batch[i].Err = node.NotConnected(sim.ErrDown)
		}
		return node.NotConnected(sim.ErrDown)
	}
	time.Sleep(trip / 2)
	err := l.Store.Do(ctx, batch)
	time.Sleep(trip - trip/2 + back)
	for i := range batch {
		if c := &batch[i]; deaf && c.Kind == node.Join {
			c.Outcome, c.Err = node.Unknown, sim.ErrLost
		}
	}
	return err
}

func (l *link) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	return l.Store.Listen(ctx, channel, ready, func(p node.Push) {
		l.mu.Lock()
		late := l.trip/2 + l.late
		l.mu.Unlock()
		time.Sleep(late)
		l.gate.pass()
		heard(p)
	})
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
	return w.processOver(name, handoffs, len(w.stores))
}

// processOver is a process for which so many nodes have queues.
func (w *world) processOver(name string, handoffs, queues int) *process {
	var nodes []*node.Node
	var links []*link
	var g gate
	for i, s := range w.stores {
		links = append(links, &link{Store: s, gate: &g})
		nodes = append(nodes, node.New(i, fmt.Sprint("n", i), links[i], i < queues))
	}
	all := node.NewNodes(nodes...)
	p := &process{New(clock.New(0.01), all, handoffs, nil), w, name, &g, links}
	w.processes = append(w.processes, p)
	return p
}

// enter is Enter where the nodes are near.
func (q *Queue) enter(key string, ttl time.Duration, terms node.Terms) *Waiter {
	w, err := q.Enter(key, ttl, terms)
	if err != nil {
		panic(err)
	}
	return w
}

func (p *process) close() {
	p.Close()
	for _, n := range p.nodes.All() {
		_ = n.Close(time.Second)
	}
}

// crash has the process say, hear and do nothing more.
func (p *process) crash() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.lines {
		if l.candidate != nil {
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
		require.Greater(p.world.t, g.Until, p.clock.Now())
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

// release is the release of the key by its owners.
func (w *world) release(key string, nodes ...int) {
	for i, s := range w.stores {
		if len(nodes) == 0 || slices.Contains(nodes, i) {
			owner, _ := s.Get(key)
			_ = s.Do(context.Background(), []node.Command{{Kind: node.Leave, Claim: node.NewClaim([]string{key}, owner, 1)}})
		}
	}
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
			return sim.Fault{LoseRequest: op == sim.Join && !slices.Contains(nodes, i)}
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
	first = one.enter("k", ttl, node.Terms{})
	synctest.Wait()
	time.Sleep(apart)
	w.cut(2, 3)
	second = other.enter("k", ttl, node.Terms{})
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
		waiter := p.enter("k", ttl, node.Terms{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		p.Released("k", claim)
		other := p.enter("k", ttl, node.Terms{})
		require.Same(t, waiter.line, other.line)
		waiter.Restore()
		for range 2 { // other may have been granted before Restore
			select {
			case g := <-waiter.Granted():
				p.Return("k", g)
			case g := <-other.Granted():
				p.Return("k", g)
			case <-time.After(100 * ms):
				require.FailNow(t, "not granted")
			}
		}
		require.False(t, p.Asks("k"))
		require.Empty(t, p.lines)
	})
}

// A Waiter that leaves while the key is passed to it gives it back.
func TestAKeyThatIsPassedToOneThatLeavesIsNotLost(t *testing.T) {
	nodes := node.NewNodes(node.New(0, "n0", &sim.Store{}, true))
	defer func() { _ = nodes.All()[0].Close(time.Second) }()
	for range 2000 {
		p := New(clock.New(0.01), nodes, 1, nil)
		claim := node.NewClaim([]string{"k"}, "held", 1)
		p.Hold("k", claim)
		waiter := p.enter("k", ttl, node.Terms{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		left := make(chan struct{})
		go func() { defer close(left); waiter.Leave() }()
		waiter.Pass(Grant{Claim: claim})
		<-left
		require.False(t, p.Asks("k"), "somebody is to have it")
		p.Close()
	}
}

// The same, for sure: a Leave that comes between would find neither a Waiter that
// is taken nor a grant.
func TestAKeyIsPassedBeforeItsWaiterCanLeave(t *testing.T) {
	run(t, 1, func(t *testing.T, w *world) {
		p := w.process("p", 1)
		claim := node.NewClaim([]string{"k"}, "held", 1)
		p.Hold("k", claim)
		waiter := p.enter("k", ttl, node.Terms{})
		require.Same(t, waiter, p.Next("k", claim, time.Second))
		waiter.grant <- Grant{} // Pass stops in the middle
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

// enter has the processes wait, one after the other.
func (w *world) enter(processes ...*process) []*Waiter {
	var waiters []*Waiter
	for _, p := range processes {
		waiters = append(waiters, p.enter("k", ttl, node.Terms{}))
		time.Sleep(2 * ms) // in the order of their clocks
	}
	return waiters
}

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
					require.Empty(t, p.lines)
					require.Empty(t, p.candidates)
				}
			})
		})
	}
}

// Each process goes to the end of the nodes' queues when it has had its turn,
// however many of its goroutines wait; they take turns.
func TestProcessesTakeTurns(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, a, a, b, b)
		w.release("k")
		for _, i := range []int{0, 3, 1, 4, 2} {
			p := waiters[i].queue
			select {
			case g := <-waiters[i].Granted():
				time.Sleep(2 * ms)
				p.Return("k", g)
			case <-time.After(time.Second):
				require.FailNow(t, "out of turn", "%d", i)
			}
		}
	})
}

func TestAKeyIsHandedOverSoOften(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 2)
		held := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", held)
		first, second, third := p.enter("k", ttl, node.Terms{}), p.enter("k", ttl, node.Terms{}), p.enter("k", ttl, node.Terms{})
		for _, waiter := range []*Waiter{first, second} {
			require.Same(t, waiter, p.Next("k", held, ttl))
			waiter.Pass(Grant{Claim: held, Until: 1 << 60, Handed: true})
			require.Same(t, held, p.got(waiter, ms).Claim)
		}
		other := w.process("other", 0)
		for _, s := range w.stores {
			s.Set("k", held.Token, time.Hour)
		}
		elsewhere := other.enter("k", ttl, node.Terms{})
		time.Sleep(ms)
		require.Nil(t, p.Next("k", held, ttl), "others have their turn")
		w.release("k")
		other.Return("k", other.got(elsewhere, time.Second))
		p.Return("k", p.got(third, time.Second))

		p.Hold("k", held)
		short := p.enter("k", time.Second, node.Terms{})
		require.Nil(t, p.Next("k", held, ttl), "the keys would be there for a minute, whatever became of it")
		p.Return("k", p.got(short, time.Second))
	})
}

func TestOneThatCrashesWhileItWaitsDelaysNobody(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		dead, p := w.process("dead", 0), w.process("p", 0)
		waiters := w.enter(dead, p)
		dead.crash()
		w.release("k")
		began := time.Now()
		p.Return("k", p.got(waiters[1], time.Second))
		require.Less(t, time.Since(began), 2*ms, "pushes to it go nowhere")
	})
}

// Its connections stand: only the window ends its turn.
func TestOneThatIsStoppedWhenItIsGrantedDelaysOthersByAWindow(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		stopped, p := w.process("stopped", 0), w.process("p", 0)
		waiters := w.enter(stopped, p)
		stopped.gate.stop() // it neither sends nor hears
		w.release("k")
		began := time.Now()
		p.Return("k", p.got(waiters[1], time.Second))
		require.InDelta(t, usualWindow, time.Since(began), float64(10*ms))
		stopped.gate.resume()
		stopped.Return("k", stopped.got(waiters[0], time.Second))
		require.Equal(t, []string{"p", "stopped"}, w.log)
	})
}

// It dies after it has been told, before it has extended.
func TestTheWindowOfOneThatCrashesWhenItIsGrantedPasses(t *testing.T) {
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
		p.Return("k", p.got(p.enter("k", ttl, node.Terms{}), time.Minute))
		require.InDelta(t, 3*time.Second, time.Since(began), float64(10*ms))
	})
}

// A push that is lost is made up for by asking again: after a few ms if another
// has come, or else with the heartbeat.
func TestLostPushesCostLittle(t *testing.T) {
	for lost, most := range map[int]time.Duration{1: 2 * ms, 2: 20 * ms, 3: usualWindow/2 + 2*ms} {
		t.Run(fmt.Sprint("lost=", lost), func(t *testing.T) {
			run(t, 3, func(t *testing.T, w *world) {
				w.hold("k")
				p := w.process("p", 0)
				waiter := p.enter("k", ttl, node.Terms{})
				time.Sleep(ms)
				for _, s := range w.stores[:lost] {
					s.Pushes(func() (time.Duration, bool) { return 0, true })
				}
				w.release("k")
				began := time.Now()
				p.Return("k", p.got(waiter, time.Second))
				require.LessOrEqual(t, time.Since(began), most)
			})
		})
	}
}

// A vote is counted from the Join whose number it carries, however late the push.
func TestALatePushIsNoLongerVote(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		p := w.process("p", 0)
		began := p.clock.Now()
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(100 * ms)
		w.release("k")
		g := p.got(waiter, ms)
		require.Equal(t, began.Add(p.clock.Validity(usualWindow)), g.Until)
		p.Return("k", g)

		// Everything is late: the grant is over when it is told of.
		w.hold("k")
		for _, s := range w.stores {
			s.Pushes(func() (time.Duration, bool) { return 2 * time.Second, false })
		}
		waiter = p.enter("k", ttl, node.Terms{})
		time.Sleep(ms)
		w.cut() // it does not learn of it by asking
		w.release("k")
		select {
		case g := <-waiter.Granted():
			require.FailNow(t, "granted", "until %v at %v", g.Until, p.clock.Now())
		case <-time.After(3 * time.Second):
		}
		w.heal()
		p.Return("k", p.got(waiter, time.Second))
	})
}

// Clusters keep no queues.
func TestWhereFewNodesHaveQueuesNobodyStandsInThem(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.processOver("p", 1, 1)
		waiter := p.enter("k", ttl, node.Terms{})
		require.Nil(t, waiter.line.candidate)
		require.False(t, p.Asks("k"), "it is asked for")
		held := node.NewClaim([]string{"k"}, "held", 3)
		p.Hold("k", held)
		require.True(t, p.Asks("k"))
		require.Same(t, waiter, p.Next("k", held, ttl))
		waiter.Pass(Grant{Claim: held, Until: 1 << 60})
		p.Return("k", p.got(waiter, ms))

		most := w.processOver("most", 0, 2)
		most.Return("k", most.got(most.enter("k", ttl, node.Terms{}), ms))
		time.Sleep(ms)
		require.Equal(t, []string{"", "", ""}, w.owners("k"))
	})
}

func TestAGrantIsValidForAsLongAsAQuorumIs(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.cut(0, 1)
		p := w.process("p", 0)
		began := p.clock.Now()
		waiter := p.enter("k", ttl, node.Terms{})
		w.release("k", 2)
		time.Sleep(ms)
		w.cut(2) // the heartbeat reaches this one, and gets its vote
		w.stores[2].Pushes(func() (time.Duration, bool) { return 0, true })
		time.Sleep(usualWindow/2 + ms)
		w.release("k", 0)
		require.Equal(t, began.Add(p.clock.Validity(usualWindow)), p.got(waiter, ms).Until)
	})
}

// A vote that a later Join was not confirmed of is void.
func TestAVoteThatANodeNoLongerHoldsIsVoid(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		w.stores[2].Set("k", "yet another", time.Hour) // nobody has a quorum
		p := w.process("p", 0)
		waiter := p.enter("k", ttl, node.Terms{})
		time.Sleep(ms)
		w.release("k", 0) // one vote
		time.Sleep(ms)
		w.stores[0].Set("k", "another", time.Hour) // as after a restart
		time.Sleep(20 * ms)                        // it has asked again
		w.release("k", 1)
		select {
		case <-waiter.Granted():
			require.FailNow(t, "granted", "%q", w.owners("k"))
		case <-time.After(2 * ms):
		}
		w.release("k", 2)
		p.Return("k", p.got(waiter, 2*ms))
	})
}

func TestNodesThatHangOrForgetDoNotStopTheOthers(t *testing.T) {
	run(t, 5, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		w.stores[0].Pause()
		waiters := w.enter(a, b)
		w.stores[1].Wipe() // it has no queue any more, and no key
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

// With the votes of a majority a holder goes on. One that waits leaves it the rest,
// and asks no more often than by its heartbeat.
func TestAStrayVoteCostsLittle(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, b)
		w.release("k")
		held := a.got(waiters[0], ms)
		for _, s := range w.stores[:2] {
			s.Set("k", held.Claim.Token, time.Hour)
		}
		w.stores[2].Wipe()
		var calls atomic.Int64
		for _, s := range w.stores {
			s.Faults(func(sim.Op, int) sim.Fault { calls.Add(1); return sim.Fault{} })
		}
		time.Sleep(10 * time.Second)
		t.Logf("%d calls in 10 s", calls.Load())
		require.Less(t, calls.Load(), int64(10*3*5))
		require.Equal(t, []string{held.Claim.Token, held.Claim.Token, ""}, w.owners("k"))
		a.Return("k", held)
		began := time.Now()
		b.Return("k", b.got(waiters[1], time.Second))
		require.Less(t, time.Since(began), 2*ms)

		// As a lock that nobody has released: nothing is told.
		for _, s := range w.stores[:2] {
			s.Set("k", "dies", 100*ms)
		}
		w.stores[2].Wipe()
		waiter := b.enter("k", ttl, node.Terms{})
		time.Sleep(50 * ms)
		require.Equal(t, []string{"dies", "dies", ""}, w.owners("k"))
		b.Return("k", b.got(waiter, 52*ms+usualWindow/2))
	})
}

func TestOneThatLeavesIsPassedOver(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.hold("k")
		a, b := w.process("a", 0), w.process("b", 0)
		waiters := w.enter(a, b, a)
		waiters[0].Leave()
		w.release("k")
		synctest.Wait()
		waiters[2].Leave() // granted, and nobody has taken it
		time.Sleep(ms)
		g := b.got(waiters[1], 10*ms)
		b.Return("k", g)
		time.Sleep(ms)
		require.Equal(t, make([]string, 3), w.owners("k"))
		require.Empty(t, a.lines)
	})
}

// The connections on which the nodes are listened to are given up some time after
// the last wait.
func TestListeningEndsWhenNobodyWaits(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 0)
		for range 100 {
			p.Return("k", p.got(p.enter("k", ttl, node.Terms{}), time.Second))
			held := node.NewClaim([]string{"k"}, "held", 3)
			go p.Hold("k", held) // ends the contender as it begins
			waiter := p.enter("k", ttl, node.Terms{})
			synctest.Wait()
			waiter.Leave()
			p.Released("k", held)
		}
		listening := func() bool {
			p.ears.mu.Lock()
			defer p.ears.mu.Unlock()
			return p.ears.on != nil
		}
		require.True(t, listening())
		time.Sleep(idle + ms)
		require.False(t, listening())
	})
}
