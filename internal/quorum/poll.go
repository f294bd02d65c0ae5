package quorum

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Panel makes the polls of n nodes. It is safe for concurrent use.
type Panel struct {
	n     int
	polls sync.Pool // of *Poll that are no longer referred to
}

// NewPanel returns a Panel of n nodes.
func NewPanel(n int) *Panel { return &Panel{n: n} }

// Poll is one question that has been put to all nodes of a Panel.
//
// One goroutine asks. It calls Wait, may look at Tally, and calls Close last. For
// each node, Sent is called when the question leaves for it, or is put off, and then Cast
// exactly once. Votes may come after Close; they do not count.
//
// Votes that come after the verdict do not count. Follow returns them, and passes on the
// votes that are still to come.
//
// Polls are reused. refs counts the calls of Cast and Close that are still to come, and
// only the last of them gives the Poll back. So a late vote never reaches the Poll of
// another question.
type Poll struct {
	panel   *Panel
	start   time.Time
	settled chan struct{} // receives once, when the question is settled
	timer   *time.Timer   // stopped unless a goroutine waits

	mu      sync.Mutex // guards what follows
	tally   Tally
	outcome Verdict // Pending until the question is settled
	awaited uint64  // the nodes, as bits, for which Cast is still to be called
	late    []Reply // by node: the votes that came after the verdict
	follow  func(node int, r Reply)
	sent    []Progress // by node; nil while the question has not left for it
	closed  bool       // votes no longer count
	refs    int        // calls of Cast and Close that are still to come
}

// Unsent is called for a node to which the question has not been sent yet. It returns when
// that node was last heard from, and why the question has not been sent.
type Unsent func(node int) (since time.Time, reason error)

// Open returns a Poll that begins now.
func (p *Panel) Open() *Poll {
	poll, ok := p.polls.Get().(*Poll)
	if !ok {
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		poll = &Poll{
			panel:   p,
			settled: make(chan struct{}, 1),
			timer:   timer,
			tally:   Tally{Replies: make([]Reply, p.n)},
			late:    make([]Reply, p.n),
			sent:    make([]Progress, p.n),
		}
	}
	poll.start, poll.refs, poll.awaited = time.Now(), p.n+1, 1<<p.n-1 // for 64 nodes, all bits
	return poll
}

// Progress tells how far a node is with questions that were sent to it together.
type Progress interface {
	// Since returns when the node last answered something that was sent before these
	// questions, as far as that is known, or else when they were sent.
	Since() time.Time
}

// Sent notes that the question has left for node: from then on the node owes the answer. A later
// call replaces the Progress.
func (p *Poll) Sent(node int, sent Progress) {
	p.mu.Lock()
	p.sent[node] = sent
	p.mu.Unlock()
}

// Cast counts node's reply. The one that settles the question wakes Wait.
func (p *Poll) Cast(node int, r Reply) {
	p.mu.Lock()
	p.awaited &^= 1 << node
	var follow func(int, Reply)
	switch {
	case p.closed:
	case p.outcome != Pending:
		p.late[node], follow = r, p.follow
	default:
		p.tally.Cast(node, r)
		if p.settle() {
			p.settled <- struct{}{} // happens once: there is room
		}
	}
	last := p.unref()
	p.mu.Unlock()
	if last {
		p.panel.polls.Put(p)
	}
	if follow != nil {
		follow(node, r)
	}
}

// settle notes the verdict, and reports whether it has just been reached. p.mu is held.
func (p *Poll) settle() bool {
	if p.outcome != Pending {
		return false
	}
	p.outcome = p.tally.Verdict()
	return p.outcome != Pending
}

// Follow calls follow with each vote that comes from now on, until Close, and returns
// what Votes returns. The question must be settled. follow is called without a lock, and
// must not block.
func (p *Poll) Follow(follow func(node int, r Reply)) (votes *Tally, outstanding uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.follow = follow
	return p.votes(), p.awaited
}

// Votes returns the votes so far, with those that came too late to count, and, as bits, the
// nodes whose votes are still to come.
func (p *Poll) Votes() (votes *Tally, outstanding uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.votes(), p.awaited
}

func (p *Poll) votes() *Tally {
	b := NewTally(len(p.late))
	for i, r := range p.late {
		if r.Vote == Awaited {
			r = p.tally.Replies[i]
		}
		if r.Vote != Awaited {
			b.Cast(i, r) // a node that was overdue may have answered after all
		}
	}
	return b
}

// A timer that is late by more than starved shows that this process is short of CPU time:
// the nodes' answers may have arrived, unread, so the nodes get the same time again.
const starved = 10 * time.Millisecond

// Wait returns the verdict as soon as the question is settled (invariant 5). If ctx
// ends or stop is closed, it returns the verdict as it is then.
//
// A busy node is not a sick one. A node to which the question was sent counts as failed
// once it has answered neither this nor anything that was sent before for timeout. What
// it answers to later questions, on another connection, is no progress with this one. A
// node to which the question was not sent yet, because others are before it, counts as
// failed if it has answered nothing at all for timeout. Once limit has passed since the
// start, an answer would be useless, and every node that has not answered has failed.
func (p *Poll) Wait(ctx context.Context, stop <-chan struct{}, timeout, limit time.Duration, unsent Unsent) Verdict {
	timeout = min(timeout, limit)
	p.timer.Reset(timeout)
	defer p.timer.Stop()
	for {
		select {
		case <-p.settled:
			return p.verdict()
		case due := <-p.timer.C:
			late, left := time.Since(due), limit-time.Since(p.start)
			if late > starved && left > 0 {
				p.timer.Reset(min(late, left))
				continue
			}
			next := p.expire(timeout, limit, unsent)
			if next <= 0 {
				return p.verdict()
			}
			p.timer.Reset(next)
		case <-ctx.Done():
			return p.verdict()
		case <-stop:
			return p.verdict()
		}
	}
}

func (p *Poll) verdict() Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outcome
}

// expire counts the nodes that are overdue as failed. It returns the time until the next
// one is overdue, or 0 if the question is settled. It calls unsent and
// Progress.Since under p.mu, which take the node's mutex: docs/design.md has the order.
func (p *Poll) expire(timeout, limit time.Duration, unsent Unsent) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	over := p.start.Add(limit)
	next := over
	for i, r := range p.tally.Replies {
		if r.Vote != Awaited {
			continue
		}
		var since time.Time
		var reason error
		if sent := p.sent[i]; sent != nil {
			since, reason = sent.Since(), fmt.Errorf("%w within %v", ErrNoReply, timeout)
		} else if since, reason = unsent(i); since.Before(p.start) {
			since = p.start
		}
		switch due := since.Add(timeout); {
		case !due.After(now) || !over.After(now):
			p.tally.Cast(i, Reply{Vote: Failed, Err: reason})
		case due.Before(next):
			next = due
		}
	}
	if p.settle() || p.outcome != Pending {
		return 0
	}
	return next.Sub(now)
}

// Tally returns a copy of the votes so far. It must not be called after Close.
func (p *Poll) Tally() *Tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tally.Clone()
}

// Read calls read with the votes so far, which it must neither keep nor change. It
// must not be called after Close.
func (p *Poll) Read(read func(*Tally)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	read(&p.tally)
}

// Close ends the poll for the goroutine that asked. Votes may still come.
func (p *Poll) Close() {
	p.mu.Lock()
	p.closed, p.follow = true, nil
	last := p.unref()
	p.mu.Unlock()
	if last {
		p.panel.polls.Put(p)
	}
}

// unref counts a call of Cast or Close. It reports whether that was the last one: then
// the Poll is reset, and goes back to its Panel. p.mu is held.
func (p *Poll) unref() (last bool) {
	p.refs--
	if p.refs > 0 {
		return false
	}
	select { // settled by a vote after Wait had returned
	case <-p.settled:
	default:
	}
	p.tally.Reset()
	clear(p.sent)
	clear(p.late)
	p.closed, p.outcome, p.follow = false, Pending, nil
	return true
}
