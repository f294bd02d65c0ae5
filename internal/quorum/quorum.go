// Package quorum counts the votes of n nodes on one question, and waits for the
// verdict. It knows nothing of Redis or of locks.
//
// A question is carried by n/2+1 grants, and settled as soon as it is carried
// or can no longer be (invariant 5): a node that hangs delays nobody.
package quorum

import (
	"errors"
	"slices"
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

// Reset makes the ballot as new.
func (b *Ballot) Reset() {
	clear(b.Replies)
	b.granted, b.refused, b.failed = 0, 0, 0
}

// ErrNoReply is the reason of a node that did not answer in time. It is not a
// context error, so that it is never mistaken for the end of a caller's ctx.
var ErrNoReply = errors.New("no reply")
