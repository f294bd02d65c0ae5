package waitqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
)

const (
	ms  = time.Millisecond
	ttl = time.Minute
)

// world holds nodes in memory, and the processes that wait for keys on them.
type world struct {
	t         *testing.T
	stores    []*memnode.Backend
	processes []*process
	log       []string // names of the processes that got the key, in order
}

// process is the Queue of one process, with its links to the nodes.
type process struct {
	*Queue
	world *world
	name  string
	gate  *gate
	links []*link
}

// gate stops a process: while it is shut, what the process sends and hears waits.
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

// link is the connection of one process to a node.
type link struct {
	*memnode.Backend
	gate *gate

	mu    sync.Mutex    // guards what follows
	trip  time.Duration // of each call; a push takes half of it
	back  time.Duration // added to an answer
	late  time.Duration // added to a push
	cut   bool          // there is no connection
	deaf  bool          // the answers to joins get lost
	joins []joined

	migrates bool // joins are refused, as the slot moves

	refusal error                              // of Listen
	heard   map[string]context.CancelCauseFunc // by channel: ends the subscription
	subs    []string                           // channels of the subscriptions, in order
}

// joined is a join that was sent.
type joined struct {
	node.Entry
	token, nonce string
	at           time.Time
}

// change changes a process's links to the given nodes, or to all.
func (p *process) change(change func(l *link), nodes ...int) {
	for i, l := range p.links {
		if len(nodes) == 0 || slices.Contains(nodes, i) {
			l.mu.Lock()
			change(l)
			l.mu.Unlock()
		}
	}
}

// joins returns the joins that the process has sent to a node.
func (p *process) joins(i int) (joins []joined) {
	p.change(func(l *link) { joins = append(joins, l.joins...) }, i)
	return joins
}

func (l *link) Do(ctx context.Context, batch []node.Command) error {
	l.gate.pass()
	defer l.gate.pass()
	l.mu.Lock()
	trip, back, cut, deaf, migrates := l.trip, l.back, l.cut, l.deaf, l.migrates
	for _, c := range batch {
		if c.Kind == node.Join {
			l.joins = append(l.joins, joined{*c.Entry, c.Claim.Token, c.Nonce, time.Now()})
		}
	}
	l.mu.Unlock()
	if cut {
		for i := range batch {
			batch[i].Err = node.NotConnected(memnode.ErrDown)
		}
		return node.NotConnected(memnode.ErrDown)
	}
	time.Sleep(trip / 2)
	if migrates && batch[0].Kind == node.Join {
		for i := range batch {
			batch[i].Err = node.NotRun(node.Migrating(errors.New("TRYAGAIN")))
		}
		return nil
	}
	err := l.Backend.Do(ctx, batch)
	time.Sleep(trip - trip/2 + back)
	for i := range batch {
		if c := &batch[i]; deaf && c.Kind == node.Join {
			c.Outcome, c.Err = node.Unknown, memnode.ErrLost
		}
	}
	return err
}

func (l *link) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.mu.Lock()
	trip, refusal := l.trip, l.refusal
	l.subs = append(l.subs, channel)
	if l.heard == nil {
		l.heard = make(map[string]context.CancelCauseFunc)
	}
	_, overlaps := l.heard[channel]
	l.heard[channel] = cancel
	l.mu.Unlock()
	if overlaps {
		panic("two subscriptions to " + channel)
	}
	defer func() {
		time.Sleep(trip / 2) // as it takes time to unsubscribe
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.heard, channel)
	}()
	time.Sleep(trip)
	if refusal != nil {
		return refusal
	}
	_ = l.Backend.Listen(ctx, channel, ready, func(p node.Push) {
		l.mu.Lock()
		late := l.trip/2 + l.late
		l.mu.Unlock()
		time.Sleep(late)
		l.gate.pass()
		heard(p)
	})
	return context.Cause(ctx)
}

// end ends the subscriptions, as a server does whose slots have moved.
func (l *link) end() {
	for _, end := range l.heard {
		end(node.ErrMoved)
	}
}

// run runs a test over n nodes in virtual time. No goroutine of a process may outlive it.
func run(t *testing.T, n int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		for range n {
			w.stores = append(w.stores, &memnode.Backend{})
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

// perKey gives some nodes a channel for each key, as a Cluster has.
func (w *world) perKey(nodes ...int) {
	for _, i := range nodes {
		w.stores[i].PerKey = true
	}
}

// subscriptions returns the channels to which the process has subscribed on a node, in order.
func (p *process) subscriptions(i int) (channels []string) {
	p.change(func(l *link) { channels = slices.Clone(l.subs) }, i)
	return channels
}

func (w *world) process(name string, handoffs int) *process {
	return w.processOver(name, handoffs, len(w.stores))
}

// processOver returns a process for which only the first nodes have queues.
func (w *world) processOver(name string, handoffs, queues int) *process {
	var nodes []*node.Node
	var links []*link
	var g gate
	for i, s := range w.stores {
		links = append(links, &link{Backend: s, gate: &g})
		nodes = append(nodes, node.New(i, fmt.Sprint("n", i), links[i], i < queues))
	}
	all := node.NewNodes(nodes...)
	p := &process{New(clock.New(0.01), all, handoffs, nil), w, name, &g, links}
	w.processes = append(w.processes, p)
	return p
}

// enter is Enter for nodes that are near.
func (q *Queue) enter(key string, ttl time.Duration, options node.ClaimOptions) *Waiter {
	w, err := q.Enter(key, ttl, options)
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

// crash ends the process without a word to the nodes.
func (p *process) crash() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.local {
		if l.candidate != nil {
			p.endCandidate(l)
		}
	}
	p.mu.Unlock()
	p.listener.close()
	synctest.Wait()
}

// got waits until w is granted the key, and notes it in the log.
func (p *process) got(w *Waiter, within time.Duration) Grant {
	p.world.t.Helper()
	select {
	case g := <-w.Grant():
		require.Greater(p.world.t, g.Until, p.clock.Now())
		p.world.log = append(p.world.log, p.name)
		return g
	case <-time.After(within):
		require.FailNow(p.world.t, "not granted", "%s, within %v", p.name, within)
		return Grant{}
	}
}

// hold sets the key on all nodes, for a holder that uses no queue.
func (w *world) hold(key string) {
	for _, s := range w.stores {
		s.Set(key, "holder", time.Hour)
	}
}

// release releases the key in the name of its owners.
func (w *world) release(key string, nodes ...int) {
	for i, s := range w.stores {
		if len(nodes) == 0 || slices.Contains(nodes, i) {
			owner, _ := s.Get(key)
			_ = s.Do(context.Background(), []node.Command{{Kind: node.Leave, Claim: node.NewClaim([]string{key}, owner, 1)}})
		}
	}
}

// owners returns the key's owners by node, "" where the key is free.
func (w *world) owners(key string) []string {
	owners := make([]string, len(w.stores))
	for i, s := range w.stores {
		owners[i], _ = s.Get(key)
	}
	return owners
}

// cut lets joins reach only the given nodes from now on.
func (w *world) cut(nodes ...int) {
	for i, s := range w.stores {
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			return memnode.Fault{LoseRequest: op == memnode.Join && !slices.Contains(nodes, i)}
		})
	}
}

func (w *world) heal() {
	for _, s := range w.stores {
		s.Faults(nil)
	}
}

// enter makes the processes wait, one after the other.
func (w *world) enter(processes ...*process) []*Waiter {
	var waiters []*Waiter
	for _, p := range processes {
		waiters = append(waiters, p.enter("k", ttl, node.ClaimOptions{}))
		time.Sleep(2 * ms) // in the order of their clocks
	}
	return waiters
}

// scatter gives the key a different owner on each node but the first.
func (w *world) scatter(key string) {
	for i, s := range w.stores[1:] {
		s.Set(key, fmt.Sprint("owner ", i+1), time.Hour)
	}
}

// tokens returns the tokens with which the process has joined a node, in order, and the
// times of the first and the last join with each.
func (p *process) tokens(i int) (tokens []string, first, last []time.Time) {
	for _, j := range p.joins(i) {
		if n := len(tokens); n > 0 && tokens[n-1] == j.token {
			last[n-1] = j.at
			continue
		}
		tokens, first, last = append(tokens, j.token), append(first, j.at), append(last, j.at)
	}
	return tokens, first, last
}

// candidate returns the process's candidate for the key.
func (p *process) candidate(key string) *candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.local[key].candidate
}
