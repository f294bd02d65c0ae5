// Package quorum counts the votes of n nodes on one question, and waits for the
// verdict. It knows nothing of Redis or of locks.
//
// A question is carried by n/2+1 grants, and settled as soon as it is carried
// or can no longer be (invariant 5): a node that hangs delays no caller.
package quorum

import (
	"errors"
	"slices"
)

// Need returns the size of a majority of n nodes, for even n too. Two sets of that
// size always share a node.
func Need(n int) int { return n/2 + 1 }

// Vote is one node's answer.
type Vote uint8

const (
	Pending Vote = iota // no answer yet
	Granted
	Refused // a definite no: the node answered, and asking again would change nothing
	Failed  // no answer: what the node did is unknown, or it was never asked
)

// Reply is a vote and, unless it was granted, why.
type Reply struct {
	Vote  Vote
	Err   error
	Fence int64 // the number that a grant came with; 0 if none
	// Owner is the token of the owner that a refusal is for; empty if the node did not tell.
	Owner string
}

// Verdict is the result of the votes cast so far.
type Verdict uint8

const (
	Open        Verdict = iota // not settled yet
	Carried                    // a quorum granted
	Rejected                   // no quorum can grant, and not because of failures alone
	Unreachable                // no quorum can grant, because of failures alone
)

// Ballot counts the votes on one question. It is not safe for concurrent use.
type Ballot struct {
	Replies []Reply // by node

	granted, refused, failed int
}

// NewBallot returns a ballot of n nodes, all pending.
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

// Granted returns the number of nodes that granted.
func (b *Ballot) Granted() int { return b.granted }

// Need returns the number of grants that carry the question.
func (b *Ballot) Need() int { return Need(len(b.Replies)) }

// Verdict returns the verdict of the votes cast so far.
func (b *Ballot) Verdict() Verdict {
	spare := len(b.Replies) - b.Need() // nodes that the quorum can do without
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

// Denied reports whether so many nodes refused that no quorum is in favour, whatever
// the others answer.
func (b *Ballot) Denied() bool { return b.refused > len(b.Replies)-b.Need() }

// Owner returns the one owner that a quorum of the nodes name, or "" if there is none.
func (b *Ballot) Owner() string {
	for i, r := range b.Replies {
		if r.Owner == "" {
			continue
		}
		votes := 1
		for _, other := range b.Replies[i+1:] {
			if other.Owner == r.Owner {
				votes++
			}
		}
		if votes >= b.Need() {
			return r.Owner
		}
	}
	return ""
}

// Clone returns a copy that later votes do not change.
func (b *Ballot) Clone() *Ballot {
	c := *b
	c.Replies = slices.Clone(b.Replies)
	return &c
}

// Reset makes all votes pending again.
func (b *Ballot) Reset() {
	clear(b.Replies)
	b.granted, b.refused, b.failed = 0, 0, 0
}

// ErrNoReply is the error of a node that did not answer in time. It is not a context
// error, so that it is never mistaken for the end of a caller's ctx.
var ErrNoReply = errors.New("no reply")
