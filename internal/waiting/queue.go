// Package waiting has those who want a lock that is held wait for it: in this
// process in a line per key, first come, first served; and for the process, with
// one contender per key, in the queue that each node keeps for the key. Whoever
// releases the key gives each node's vote to the first in that node's queue, and
// the node tells so at once: a contender that has a quorum of votes holds the key
// and gives it to the first of its line.
//
// A vote is granted at an instant that the contender does not see. It carries the
// number of the contender's last Join that the node had run, and the
// contender knows when it sent that: the grant came after. So a vote is valid for
// the window from the sending of the call whose number it carries, whether it
// comes as an answer or as a push, in time or late. It is void once a later Join
// was answered otherwise. No node's clock is read, and
// nothing rests on a push arriving, or on a queue being there, complete or in
// order.
package waiting

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Queue is the waiting of one Locker. All its methods are safe for concurrent
// use.
type Queue struct {
	keeper   *keeper.Keeper
	nodes    []*node.Node
	panel    *quorum.Panel
	granted  bool // enough nodes grant the key to those who wait
	handoffs int  // in a row, inside the process
	floor    func() int64
	channel  string
	ears     ears

	// mu guards what follows, and all of every line, Waiter and contender. While it
	// is held nothing is sent, and no other lock is taken but that of the ears.
	mu         sync.Mutex
	held       map[string]*node.Claim // by key, of this Locker, where there is no line
	lines      map[string]*line
	contenders map[string]*contender // by token
	closed     bool
	warned     bool
}

// line is those in this process who want one key, and who holds it meanwhile. There is
// one only from when somebody waits on: most held locks need none.
type line struct {
	key       string
	waiters   []*Waiter   // the first is next
	holder    *node.Claim // of this Locker; nil if none
	contender *contender  // nil while there is a holder, or nobody waits
	row       row         // of the holder
	doubt     doubt
	taken     int // Waiters that Next has taken
}

// Waiter is one who waits in a line.
type Waiter struct {
	queue *Queue
	line  *line
	ttl   time.Duration
	terms node.Terms
	grant chan Grant // has room for the one

	taken   bool // by Next: Pass or Restore follows
	leaving bool // while it is taken
}

// Grant is the key, for a Waiter: it is the claim's until Until.
type Grant struct {
	Claim  *node.Claim
	Until  keeper.Instant
	Handed bool // by another holder in this process
	// Fences are the numbers with which the nodes granted a claim that has a
	// fence; 0 for those that have not.
	Fences []int64
}

// New returns a Queue that hands a key over inside the process for so many times
// in a row. floor returns the floor of a fence.
func New(k *keeper.Keeper, nodes []*node.Node, handoffs int, floor func() int64) *Queue {
	q := &Queue{
		keeper:     k,
		nodes:      nodes,
		panel:      quorum.NewPanel(len(nodes)),
		handoffs:   handoffs,
		floor:      floor,
		channel:    "redlock:" + rand.Text(),
		held:       make(map[string]*node.Claim),
		lines:      make(map[string]*line),
		contenders: make(map[string]*contender),
	}
	queues := 0
	for _, n := range nodes {
		if n.Queues() {
			queues++
		}
	}
	q.granted = queues >= q.need()
	q.ears.queue = q
	q.ears.ctx, q.ears.stop = context.WithCancel(context.Background()) //nolint:fatcontext // the first of its line
	return q
}

// Busy reports whether this Locker holds the key, or has somebody wait for a grant
// of it: whoever asks the nodes then asks in vain, or out of turn.
func (q *Queue) Busy(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key]
	return q.held[key] != nil || l != nil && (q.granted || l.holder != nil)
}

// Enter has one more wait for the key, which is to be held for ttl. If the terms
// have a floor, the claim that is granted has a fence.
func (q *Queue) Enter(key string, ttl time.Duration, terms node.Terms) *Waiter {
	q.mu.Lock()
	l := q.line(key)
	w := &Waiter{queue: q, line: l, ttl: ttl, terms: terms, grant: make(chan Grant, 1)}
	l.waiters = append(l.waiters, w)
	send := q.contend(l)
	q.mu.Unlock()
	send()
	return w
}

// Owners returns, by node, the tokens of who holds the key, as far as this process knows
// without asking: it holds the key itself, or its contender was told. The others are empty.
func (q *Queue) Owners(key string) []string {
	owners := make([]string, len(q.nodes))
	q.mu.Lock()
	defer q.mu.Unlock()
	holder, l := q.held[key], q.lines[key]
	if l != nil {
		holder = l.holder
	}
	for i := range owners {
		switch {
		case holder != nil:
			owners[i] = holder.Token
		case l != nil && l.contender != nil:
			owners[i] = l.contender.seats[i].told
		}
	}
	return owners
}

// Granted receives the key when it is the Waiter's. For no Waiter it never does.
func (w *Waiter) Granted() <-chan Grant {
	if w == nil {
		return nil
	}
	return w.grant
}

// Failure says why so few nodes keep a queue that none can be granted the key by
// it, once for each Queue.
func (w *Waiter) Failure() error {
	q := w.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	c := w.line.contender
	if c == nil || q.warned {
		return nil
	}
	err := c.failure()
	q.warned = err != nil
	return err
}

// Leave ends the wait. A grant that has come, or is about to, goes to the next.
func (w *Waiter) Leave() {
	q, l := w.queue, w.line
	q.mu.Lock()
	if w.taken {
		w.leaving = true
		q.mu.Unlock()
		if g := <-w.grant; g.Claim != nil {
			q.Return(l.key, g)
		}
		return
	}
	l.waiters = slices.DeleteFunc(l.waiters, func(other *Waiter) bool { return other == w })
	select {
	case g := <-w.grant:
		q.mu.Unlock()
		q.Return(l.key, g)
		return
	default:
	}
	send := q.contend(l)
	q.mu.Unlock()
	send()
}

// Return gives a grant back that nobody uses.
func (q *Queue) Return(key string, g Grant) {
	q.release(g.Claim)
	q.Released(key, g.Claim)
}

// release ends a claim, and has its keys go to whoever is next.
func (q *Queue) release(c *node.Claim) {
	c.End()
	for _, n := range q.nodes {
		n.Abandon(c)
	}
}

// Hold notes that this Locker holds the key by claim.
func (q *Queue) Hold(key string, claim *node.Claim) {
	q.mu.Lock()
	l := q.lines[key]
	if l == nil {
		q.held[key] = claim
		q.mu.Unlock()
		return
	}
	l.holder = claim
	send := q.contend(l)
	q.mu.Unlock()
	send()
}

// Next is for a holder that is about to release the key. It takes the Waiter to
// whom the key is to be passed, nil if there is none, or if other processes are to
// have their turn first, or if one of the two has a fence, which has to be new for
// each holder, or if their metadata differ, which are in the key's value. In these
// cases the holder holds no more, and a place in the nodes' queues is taken for those
// who wait here: that must come before the release. left is for how long the keys are still set: if that is longer than the
// Waiter asks for, they must be set anew for it.
//
// At the end of a row the nodes are asked whether anybody else waits, and Next waits
// for the answer.
func (q *Queue) Next(key string, claim *node.Claim, left time.Duration) *Waiter {
	q.mu.Lock()
	l := q.lineOf(key, claim)
	if l == nil {
		q.mu.Unlock()
		return nil
	}
	w := q.take(l, left)
	if w == nil && q.asks(l, left) {
		left -= q.ask(l, claim)
		if l.holder != claim { // it has ended meanwhile
			q.mu.Unlock()
			return nil
		}
		w = q.take(l, left)
	}
	if w != nil {
		q.mu.Unlock()
		return w
	}
	l.holder, l.row = nil, row{}
	send := q.contend(l)
	q.mu.Unlock()
	send()
	return nil
}

// passable reports whether there is a Waiter to whom the holder's key may be passed.
// q.mu is held.
func (q *Queue) passable(l *line, left time.Duration) bool {
	if len(l.waiters) == 0 || q.closed {
		return false
	}
	next := l.waiters[0]
	fenced := l.holder.Fenced() || next.terms.Floor > 0
	return left <= next.ttl && !fenced && l.holder.Terms().Metadata == next.terms.Metadata
}

// take takes the Waiter that is next, unless the row is over. q.mu is held.
func (q *Queue) take(l *line, left time.Duration) *Waiter {
	if !q.passable(l, left) {
		return nil
	}
	now := time.Now()
	if l.row.since.IsZero() {
		l.row.since = now
	}
	if l.row.over(q.handoffs, now) {
		return nil
	}
	l.row.handed++
	l.taken++
	w := l.next()
	w.taken = true
	return w
}

// Pass gives the key to w, which Next took.
func (w *Waiter) Pass(g Grant) {
	q := w.queue
	q.mu.Lock()
	w.line.holder = g.Claim
	w.line.taken--
	w.taken = w.leaving // if so, Leave takes the grant
	w.grant <- g        // before a Leave that looks whether it has come
	q.mu.Unlock()
}

// Restore puts w, which Next took, back to the front: there is nothing to pass.
func (w *Waiter) Restore() {
	q, l := w.queue, w.line
	q.mu.Lock()
	w.taken = false
	l.taken--
	if w.leaving {
		w.grant <- Grant{}
	} else {
		l.waiters = slices.Insert(l.waiters, 0, w)
	}
	send := q.contend(l)
	q.mu.Unlock()
	send()
}

// Released notes that a claim is not held any more.
func (q *Queue) Released(key string, claim *node.Claim) {
	q.mu.Lock()
	l := q.lineOf(key, claim)
	if l == nil {
		q.mu.Unlock()
		return
	}
	l.holder, l.row = nil, row{}
	send := q.contend(l)
	q.mu.Unlock()
	send()
}

// Close ends every contender. Nobody may wait any more.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	var ended []*contender
	for _, l := range q.lines {
		if l.contender != nil {
			ended = append(ended, l.contender)
			q.end(l)
		}
	}
	q.mu.Unlock()
	for _, c := range ended {
		c.leave()
	}
	q.ears.close()
}

// line returns the line of a key, with whoever holds it. q.mu is held.
func (q *Queue) line(key string) *line {
	l := q.lines[key]
	if l == nil {
		l = &line{key: key, holder: q.held[key]}
		q.lines[key] = l
		delete(q.held, key)
	}
	return l
}

// lineOf returns the line in which a claim holds the key, nil if there is none. A claim
// that holds it without a line then holds it no more. q.mu is held.
func (q *Queue) lineOf(key string, claim *node.Claim) *line {
	if q.held[key] == claim {
		delete(q.held, key)
	}
	if l := q.lines[key]; l != nil && l.holder == claim {
		return l
	}
	return nil
}

func (l *line) empty() bool { return l.holder == nil && len(l.waiters) == 0 && l.taken == 0 }

// next takes the first Waiter. There must be one.
func (l *line) next() *Waiter {
	w := l.waiters[0]
	l.waiters[0] = nil
	l.waiters = l.waiters[1:]
	return w
}

// contend begins or ends the line's contender, as it has to be. q.mu is held. It
// returns what is to be done once it is not.
func (q *Queue) contend(l *line) func() {
	wanted := l.holder == nil && len(l.waiters) > 0 && !q.closed && q.granted
	switch {
	case wanted && l.contender == nil:
		return q.begin(l, time.Now().UnixMilli())
	case wanted && !l.contender.fits(l.waiters[0]):
		old := l.contender
		q.end(l)
		begin := q.begin(l, old.order) // the process has waited that long
		return func() { old.leave(); begin() }
	case !wanted && l.contender != nil:
		c := l.contender
		q.end(l)
		return c.leave
	case l.empty():
		delete(q.lines, l.key)
	}
	return func() {}
}

// begin gives the line a contender, as old as order says. q.mu is held. It returns what is
// to be done once it is not.
func (q *Queue) begin(l *line, order int64) func() {
	l.contender = newContender(q, l, order)
	q.contenders[l.contender.claim.Token] = l.contender
	q.ears.open()
	return l.contender.begin
}

// end takes the contender from its line. q.mu is held.
func (q *Queue) end(l *line) {
	c := l.contender
	l.contender = nil
	delete(q.contenders, c.claim.Token)
	c.over = true
	c.timer.Stop()
	q.ears.rest()
	if l.empty() {
		delete(q.lines, l.key)
	}
}

// heard takes a node's push: it has granted the claim of a contender.
func (q *Queue) heard(node int, token string, number, fence int64) {
	q.mu.Lock()
	c := q.contenders[token]
	if c == nil { // it has given up, and been released, or will be
		q.mu.Unlock()
		return
	}
	if s := &c.seats[node]; number <= c.number {
		s.granted(number, fence)
		c.away = 0
	}
	c.count()
	q.mu.Unlock()
}

// rejoin has every contender join a node again to which the ears listen now: what
// it pushed before has gone nowhere.
func (q *Queue) rejoin(i int) {
	q.mu.Lock()
	var all []*contender
	for _, c := range q.contenders {
		all = append(all, c)
	}
	q.mu.Unlock()
	for _, c := range all {
		c.join(i)
	}
}

func (q *Queue) need() int { return quorum.Need(len(q.nodes)) }
