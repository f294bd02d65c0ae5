// Package quorum asks n nodes the same question at once and counts their
// votes. It knows nothing of Redis or of locks.
//
// A question is carried by n/2+1 grants, and settled as soon as it is carried
// or can no longer be (invariant 5): a node that hangs delays nobody.
package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Need is the smallest number of nodes of which two sets always share one: the
// majority, for even n too.
func Need(n int) int { return n/2 + 1 }

// Vote is one node's answer.
type Vote uint8

const (
	Pending Vote = iota // no answer yet
	Granted
	Refused // a definite no: the node answered, and asking again changes nothing by itself
	Failed  // no answer to be had: what the node did is unknown, or it was never asked
)

// Reply is a vote and, unless it was granted, why.
type Reply struct {
	Vote Vote
	Err  error
}

// Verdict is what the votes cast so far amount to.
type Verdict uint8

const (
	Open        Verdict = iota // not settled yet
	Carried                    // a quorum granted
	Rejected                   // no quorum can grant any more, and refusals were needed to make it so
	Unreachable                // so many nodes failed that no quorum could decide
)

// Ballot counts the votes on one question. It is not safe for concurrent use.
type Ballot struct {
	Replies []Reply // by node

	granted, refused, failed int
}

// NewBallot is a ballot of n nodes, all pending.
func NewBallot(n int) *Ballot { return &Ballot{Replies: make([]Reply, n)} }

// Cast counts node's reply. Only its first counts.
func (b *Ballot) Cast(node int, r Reply) {
	if b.Replies[node].Vote != Pending {
		return
	}
	b.Replies[node] = r
	switch r.Vote {
	case Granted:
		b.granted++
	case Refused:
		b.refused++
	case Failed:
		b.failed++
	}
}

// Granted is the number of nodes that granted.
func (b *Ballot) Granted() int { return b.granted }

// Need is the number of grants that carry.
func (b *Ballot) Need() int { return Need(len(b.Replies)) }

// Verdict tells where the ballot stands.
func (b *Ballot) Verdict() Verdict {
	spare := len(b.Replies) - b.Need() // nodes that may fall out without harm
	switch {
	case b.granted >= b.Need():
		return Carried
	case b.failed > spare:
		return Unreachable
	case b.refused+b.failed > spare:
		return Rejected
	}
	return Open
}

// Denied tells whether so many nodes refused that, whatever the others say or
// did, no quorum is in favour.
func (b *Ballot) Denied() bool { return b.refused > len(b.Replies)-b.Need() }

// Clone is a copy that later votes do not change.
func (b *Ballot) Clone() *Ballot {
	c := *b
	c.Replies = slices.Clone(b.Replies)
	return &c
}

// Close counts every node that has not answered as failed, with the reason.
func (b *Ballot) Close(reason error) {
	for i, r := range b.Replies {
		if r.Vote == Pending {
			b.Cast(i, Reply{Failed, reason})
		}
	}
}

// ErrNoReply is the reason of a node that did not answer in time. It is not a
// context error, so that it is never mistaken for the end of a caller's ctx.
var ErrNoReply = errors.New("no reply")

// Panel is the set of nodes that are asked. It owns the goroutines of calls
// that outlive their question.
type Panel struct {
	n      int
	calls  sync.WaitGroup
	timers sync.Pool // of stopped *time.Timer
}

// NewPanel is a panel of n nodes.
func NewPanel(n int) *Panel { return &Panel{n: n} }

// Ask calls ask once per node, each on a goroutine of its own, and returns when
// the question is settled, when timeout has passed, when ctx ends or when stop
// is closed, whichever is first. After timeout the silent nodes count as
// failed; after ctx or stop the ballot may still be open.
//
// The calls that are still running then go on, and their votes are not
// counted: what a late grant leaves behind is ask's to clean up.
func (p *Panel) Ask(ctx context.Context, stop <-chan struct{}, timeout time.Duration, ask func(node int) Reply) *Ballot {
	type vote struct {
		node  int
		reply Reply
	}
	votes := make(chan vote, p.n) // room for all: a late vote never blocks its goroutine
	p.calls.Add(p.n)
	for i := range p.n {
		go func() {
			defer p.calls.Done()
			votes <- vote{i, ask(i)}
		}()
	}
	timer := p.timer(timeout)
	defer func() {
		timer.Stop()
		p.timers.Put(timer)
	}()
	b := NewBallot(p.n)
	for b.Verdict() == Open {
		select {
		case v := <-votes:
			b.Cast(v.node, v.reply)
		case <-timer.C:
			// On a starved machine the timer and the votes are seen together:
			// what has arrived counts.
			for len(votes) > 0 {
				v := <-votes
				b.Cast(v.node, v.reply)
			}
			b.Close(fmt.Errorf("%w within %v", ErrNoReply, timeout))
		case <-ctx.Done():
			return b
		case <-stop:
			return b
		}
	}
	return b
}

// timer is a timer that fires after d. One that was used before has been
// stopped, after which nothing old comes of it.
func (p *Panel) timer(d time.Duration) *time.Timer {
	if timer, ok := p.timers.Get().(*time.Timer); ok {
		timer.Reset(d)
		return timer
	}
	return time.NewTimer(d)
}

// Wait returns when every call has returned. No question may be asked after.
func (p *Panel) Wait() { p.calls.Wait() }
