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
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Queue is the waiting of one Locker. All its methods are safe for concurrent
// use.
type Queue struct {
	clock    *clock.Clock
	nodes    *node.Nodes
	granted  bool // enough nodes grant the key to those who wait
	handoffs int  // in a row, inside the process
	floor    func() int64
	channel  string
	ears     ears

	// mu guards what follows, and all of every line, Waiter and candidate. While it
	// is held nothing is sent, and no other lock is taken but that of the ears: what
	// is to be done then waits in todo, for unlock.
	mu         sync.Mutex
	todo       []func()
	busy       int                    // goroutines that do what was to be done
	idle       sync.Cond              // signalled when there is none
	held       map[string]*node.Claim // by key, of this Locker, where there is no line
	lines      map[string]*line
	candidates map[string]*candidate // by token
	trips      []trip                // by node
	closed     bool
	warned     bool
}

// line is those in this process who want one key, and who holds it meanwhile. There is
// one only from when somebody waits on: most held locks need none.
type line struct {
	key       string
	waiters   waiters
	holder    *node.Claim   // of this Locker; nil if none
	candidate *candidate    // nil while there is a holder, or no waiter
	rest      time.Duration // how long the candidate has stayed away last, at most; 0 once it has won
	row       row           // of the holder
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
	came  func()     // is called once the grant is there; may be nil

	before, after *Waiter // in the line
	queued        bool    // it is in the line
	taken         bool    // by Next: Pass or Restore follows
	leaving       bool    // while it is taken
	far           error   // why it was taken out of the line
}

// Grant is the key, for a Waiter: it is the claim's until Until.
type Grant struct {
	Claim  *node.Claim
	Until  clock.Instant
	Handed bool // by another holder in this process
	// Fences are the numbers with which the nodes granted a claim that has a
	// fence; 0 for those that have not.
	Fences []int64
}

// New returns a Queue that hands a key over inside the process for so many times
// in a row. floor returns the floor of a fence.
func New(c *clock.Clock, nodes *node.Nodes, handoffs int, floor func() int64) *Queue {
	q := &Queue{
		clock:      c,
		nodes:      nodes,
		handoffs:   handoffs,
		floor:      floor,
		channel:    "redlock:" + rand.Text(),
		held:       make(map[string]*node.Claim),
		lines:      make(map[string]*line),
		candidates: make(map[string]*candidate),
		trips:      make([]trip, nodes.Len()),
	}
	queues := 0
	for _, n := range nodes.All() {
		if n.Queues() {
			queues++
		}
	}
	q.granted = queues >= q.need()
	q.idle.L = &q.mu
	q.ears.queue = q
	q.ears.ctx, q.ears.stop = context.WithCancel(context.Background()) //nolint:fatcontext // the first of its line
	return q
}

// later has f called once the mutex is released. q.mu is held.
func (q *Queue) later(f func()) { q.todo = append(q.todo, f) }

// releaseLater has a claim released once the mutex is. q.mu is held.
func (q *Queue) releaseLater(c *node.Claim) { q.later(func() { q.release(c) }) }

// unlock releases the mutex, and does what is to be done then, in order. What another
// goroutine adds meanwhile, it does itself.
func (q *Queue) unlock() {
	todo := q.todo
	if len(todo) == 0 {
		q.mu.Unlock()
		return
	}
	q.todo = nil
	q.busy++
	q.mu.Unlock()
	for _, f := range todo {
		f()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy--; q.busy == 0 {
		q.idle.Broadcast()
	}
}

// Grants reports whether enough nodes keep queues that a waiter can be granted a key.
func (q *Queue) Grants() bool { return q.granted }

// Asks reports whether this Locker asks the nodes for the key already, in their queues, or
// holds it. Then an attempt would be of no use: a join takes a free key too, and sets it for
// no longer than a window. It does not ask if so many nodes refuse to keep a queue that it
// cannot win.
func (q *Queue) Asks(key string) bool {
	q.mu.Lock()
	defer q.unlock()
	if q.held[key] != nil {
		return true
	}
	l := q.lines[key]
	if l == nil {
		return false
	}
	if l.holder != nil {
		return true
	}
	q.contend(l) // the nodes may be nearer by now
	return l.candidate != nil && l.candidate.failure() == nil
}

// Enter has one more wait for the key, which is to be held for ttl. If the terms
// have a floor, the claim that is granted has a fence. It returns an error if the nodes
// are so far that a grant for this ttl would be over before it is of use.
func (q *Queue) Enter(key string, ttl time.Duration, terms node.Terms) (*Waiter, error) {
	q.mu.Lock()
	defer q.unlock()
	if _, ok := q.windowOf(ttl); !ok {
		return nil, q.tooFar(ttl)
	}
	l := q.line(key)
	w := &Waiter{queue: q, line: l, ttl: ttl, terms: terms, grant: make(chan Grant, 1)}
	l.waiters.push(w)
	q.contend(l)
	return w, nil
}

// Replies returns what is known of each node without asking: this Locker holds the key
// itself, which inside is said of, or its candidate was told. The others are Pending.
func (q *Queue) Replies(key string, inside error) []quorum.Reply {
	replies := make([]quorum.Reply, q.nodes.Len())
	q.mu.Lock()
	defer q.unlock()
	holder, l := q.held[key], q.lines[key]
	if l != nil {
		holder = l.holder
	}
	for i := range replies {
		switch {
		case holder != nil:
			replies[i] = quorum.Reply{Vote: quorum.Refused, Err: inside, Owner: holder.Token}
		case l != nil && l.candidate != nil:
			replies[i] = l.candidate.reply(i)
		}
	}
	return replies
}

// Granted receives the key when it is the Waiter's. For no Waiter it never does.
func (w *Waiter) Granted() <-chan Grant {
	if w == nil {
		return nil
	}
	return w.grant
}

// Notify has came called when the grant is there, or at once if it is. It must not block.
func (w *Waiter) Notify(came func()) {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	w.came = came
	if len(w.grant) > 0 && came != nil {
		q.later(came)
	}
}

// Far says why the Waiter is in no line any more, if it is not: the nodes are too far
// for its ttl.
func (w *Waiter) Far() error {
	w.queue.mu.Lock()
	defer w.queue.unlock()
	return w.far
}

// give sends w its grant. q.mu is held.
func (w *Waiter) give(g Grant) {
	w.grant <- g
	if w.came != nil {
		w.queue.later(w.came)
	}
}

// Failure says why so few nodes keep a queue that none can be granted the key by
// it, once for each Queue.
func (w *Waiter) Failure() error {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	c := w.line.candidate
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
		q.unlock()
		if g := <-w.grant; g.Claim != nil {
			q.passOn(l.key, g)
		}
		return
	}
	l.waiters.remove(w)
	select {
	case g := <-w.grant:
		q.unlock()
		q.passOn(l.key, g)
		return
	default:
	}
	q.contend(l)
	q.unlock()
}

// passOn gives a grant that its waiter does not want any more to the next one here to
// whom it is of use, and else gives it back.
func (q *Queue) passOn(key string, g Grant) {
	q.mu.Lock()
	l := q.lineOf(key, g.Claim)
	if l == nil || !q.suits(l, g) {
		q.unlock()
		q.Return(key, g)
		return
	}
	l.waiters.pop().give(g)
	q.unlock()
}

// suits reports whether a grant is of use to the first waiter. q.mu is held.
func (q *Queue) suits(l *line, g Grant) bool {
	w := l.waiters.first
	return w != nil && !q.closed && g.Claim.Fenced() == (w.terms.Floor > 0) && g.Claim.Terms().Metadata == w.terms.Metadata &&
		q.lasts(w, g.Until.Sub(q.clock.Now()))
}

// lasts reports whether a key that is set for left can be passed to w: not for longer than
// it asks for, and for long enough to be extended (invariant 12). q.mu is held.
func (q *Queue) lasts(w *Waiter, left time.Duration) bool {
	return left <= w.ttl && left > 3*q.trip()+margin
}

// margin is what a hand-over takes beside the round trips of an extension.
const margin = 2 * time.Millisecond

// Return gives a grant back that is of no use here.
func (q *Queue) Return(key string, g Grant) {
	q.release(g.Claim)
	q.Released(key, g.Claim)
}

// release ends a claim, and has its keys go to the next candidate.
func (q *Queue) release(c *node.Claim) { q.nodes.Abandon(c) }

// Hold notes that this Locker holds the key by claim.
func (q *Queue) Hold(key string, claim *node.Claim) {
	q.mu.Lock()
	defer q.unlock()
	l := q.lines[key]
	if l == nil {
		q.held[key] = claim
		return
	}
	l.holder = claim
	q.contend(l)
}

// Next is for a holder that is about to release the key. It takes the Waiter to
// whom the key is to be passed, nil if there is none, or if other processes are to
// have their turn first, or if one of the two has a fence, which has to be new for
// each holder, or if their metadata differ, which are in the key's value. In these
// cases the holder holds no more, and a place in the nodes' queues is taken for those
// who wait here: that must come before the release. left is how long the lock is still
// valid: if that is longer than the Waiter asks for, or too short to extend it, the key
// must be set again for it.
//
// At the end of a row the nodes are asked whether anybody else waits, and Next waits
// for the answer.
func (q *Queue) Next(key string, claim *node.Claim, left time.Duration) *Waiter {
	q.mu.Lock()
	l := q.lineOf(key, claim)
	if l == nil {
		q.unlock()
		return nil
	}
	w := q.take(l, left)
	if w == nil && q.asks(l, left) {
		left -= q.ask(l, claim)
		if l.holder != claim { // it has ended meanwhile
			q.unlock()
			return nil
		}
		w = q.take(l, left)
	}
	if w == nil {
		l.holder, l.row = nil, row{}
		q.contend(l)
	}
	q.unlock()
	return w
}

// passable reports whether there is a Waiter to whom the holder's key may be passed.
// q.mu is held.
func (q *Queue) passable(l *line, left time.Duration) bool {
	next := l.waiters.first
	if next == nil || q.closed {
		return false
	}
	fenced := l.holder.Fenced() || next.terms.Floor > 0
	return q.lasts(next, left) && !fenced && l.holder.Terms().Metadata == next.terms.Metadata
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
	w := l.waiters.pop()
	w.taken = true
	return w
}

// Pass gives the key to w, which Next took.
func (w *Waiter) Pass(g Grant) {
	q := w.queue
	q.mu.Lock()
	defer q.unlock()
	w.line.holder = g.Claim
	w.line.taken--
	w.taken = w.leaving // if so, Leave takes the grant
	w.give(g)           // before a Leave that looks whether it has come
}

// Restore puts w, which Next took, back to the front: there is nothing to pass.
func (w *Waiter) Restore() {
	q, l := w.queue, w.line
	q.mu.Lock()
	defer q.unlock()
	w.taken = false
	l.taken--
	if w.leaving {
		w.give(Grant{})
	} else {
		l.waiters.pushFront(w)
	}
	q.contend(l)
}

// Released notes that a claim is not held any more.
func (q *Queue) Released(key string, claim *node.Claim) {
	q.mu.Lock()
	defer q.unlock()
	if l := q.lineOf(key, claim); l != nil {
		l.holder, l.row = nil, row{}
		q.contend(l)
	}
}

// Close ends every candidate. Nobody may wait any more. When it returns, the nodes know of
// all that is to be released.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	for _, l := range q.lines {
		q.contend(l)
	}
	q.unlock()
	q.ears.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy > 0 {
		q.idle.Wait()
	}
}

// line returns the line of a key, with its holder. q.mu is held.
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

func (l *line) empty() bool { return l.holder == nil && l.waiters.n == 0 && l.taken == 0 }

// contend begins or ends the line's candidate, as it has to be for the first waiter.
// q.mu is held.
func (q *Queue) contend(l *line) {
	if l.holder != nil || q.closed || !q.granted {
		q.withdraw(l)
		return
	}
	for w := l.waiters.first; w != nil; w = l.waiters.first {
		if _, ok := q.windowOf(w.ttl); ok {
			q.contendFor(l, w)
			return
		}
		w.far = q.tooFar(w.ttl) // the nodes were nearer when it came
		l.waiters.remove(w)
	}
	q.withdraw(l)
}

// contendFor has the line have a candidate that is of use to w. q.mu is held.
func (q *Queue) contendFor(l *line, w *Waiter) {
	order, since := time.Now().UnixMilli(), q.clock.Now()
	if c := l.candidate; c != nil {
		if c.fits(w) {
			return
		}
		order, since = c.order, c.since // the process has waited that long
		q.end(l)
		q.releaseLater(c.claim)
	}
	l.candidate = newCandidate(q, w, order, since)
	q.ears.open()
	l.candidate.join(everyNode)
}

// withdraw ends the line's candidate, if it has one: the keys that nodes have granted, or
// still grant, go to the next. q.mu is held.
func (q *Queue) withdraw(l *line) {
	if c := l.candidate; c != nil {
		q.end(l)
		q.releaseLater(c.claim)
	} else if l.empty() {
		delete(q.lines, l.key)
	}
}

// end takes the candidate from its line. q.mu is held.
func (q *Queue) end(l *line) {
	c := l.candidate
	l.candidate = nil
	delete(q.candidates, c.claim.Token)
	c.over = true
	c.timer.Stop()
	q.ears.rest()
	if l.empty() {
		delete(q.lines, l.key)
	}
}

// heard takes a node's push.
func (q *Queue) heard(i int, p node.Push) {
	q.mu.Lock()
	defer q.unlock()
	if c := q.candidates[p.Token]; c != nil { // otherwise it has given up, and been released, or will be
		c.heard(i, p)
	}
}

// rejoin has every candidate join a node again to which the ears listen now: what
// it pushed before has gone nowhere.
func (q *Queue) rejoin(i int) {
	q.mu.Lock()
	defer q.unlock()
	for _, c := range q.candidates {
		c.join(i)
	}
}

func (q *Queue) need() int { return q.nodes.Need() }
