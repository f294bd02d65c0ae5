// Package quorum counts the votes of n nodes on one question, and waits for the
// verdict. It knows nothing of Redis or of locks.
//
// A question is won by n/2+1 grants, and settled as soon as it is won
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
	Awaited Vote = iota // no answer yet
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
	Pending     Verdict = iota // not settled yet
	Won                        // a quorum granted
	Lost                       // no quorum can grant, and not because of failures alone
	Unreachable                // no quorum can grant, because of failures alone
)

// Tally counts the votes on one question. It is not safe for concurrent use.
type Tally struct {
	Replies []Reply // by node

	granted, refused, failed int
}

// NewTally returns a Tally of n nodes, none of which has answered.
func NewTally(n int) *Tally { return &Tally{Replies: make([]Reply, n)} }

// Cast counts node's reply. Only its first counts.
func (b *Tally) Cast(node int, r Reply) {
	if b.Replies[node].Vote != Awaited {
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
func (b *Tally) Granted() int { return b.granted }

// Need returns the number of grants that win the question.
func (b *Tally) Need() int { return Need(len(b.Replies)) }

// Verdict returns the verdict of the votes cast so far.
func (b *Tally) Verdict() Verdict {
	spare := len(b.Replies) - b.Need() // nodes that the quorum can do without
	switch {
	case b.granted >= b.Need():
		return Won
	case b.failed > spare:
		return Unreachable
	case b.refused+b.failed > spare:
		return Lost
	}
	return Pending
}

// Denied reports whether so many nodes refused that no quorum is in favour, whatever
// the others answer.
func (b *Tally) Denied() bool { return b.refused > len(b.Replies)-b.Need() }

// Owner returns the one owner that a quorum of the nodes name, or "" if there is none.
func (b *Tally) Owner() string {
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
func (b *Tally) Clone() *Tally {
	c := *b
	c.Replies = slices.Clone(b.Replies)
	return &c
}

// Reset forgets all votes.
func (b *Tally) Reset() {
	clear(b.Replies)
	b.granted, b.refused, b.failed = 0, 0, 0
}

// ErrNoReply is the error of a node that did not answer in time. It is not a context
// error, so that it is never mistaken for the end of a caller's ctx.
var ErrNoReply = errors.New("no reply")
