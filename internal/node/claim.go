package node

import (
	"strconv"
	"sync/atomic"
	"time"
)

// Claim is one owner's claim to a set of keys: one attempt, and the hold that
// may come of it. Its token is used for nothing else.
//
// A claim ends once. What its commands leave behind on a node after that, in
// whatever order they and their replies travel, is released (invariant 4).
type Claim struct {
	Keys  []string
	Token string
	asked *asked // set before the claim is first sent; nil if it asks for nothing

	ended  atomic.Bool
	places []place // by node; each guarded by its Node's mutex
	few    [fewNodes]place
}

// fewNodes is for how many nodes a Claim needs no allocation of its own.
const fewNodes = 5

// place is what a claim has, or may have, on one node.
type place struct {
	ttl      time.Duration // the longest that was asked for: no key lives longer than this after the last command has run
	inFlight int32         // commands that may set keys, sent and not answered
	asked    bool          // an acquisition has been sent
	acquired bool          // what the acquisition set may be there: it was granted, or its outcome is unknown
	extended bool          // what an extension set may be there, or what a queue may yet set
	refills  bool          // another command than the first acquisition has been sent, which may have set keys before it did
	spent    bool          // what the acquisition set has been deleted, even if its reply is still to come
	release  releaseState
}

// releaseState is how far the release of a claim is on one node. It begins once,
// and is repeated when what it may have missed becomes known.
type releaseState uint8

const (
	notBegun releaseState = iota
	queued                // or waits to be tried again
	sent
	done
)

// NewClaim returns a claim to keys on n nodes.
func NewClaim(keys []string, token string, n int) *Claim {
	c := new(Claim)
	c.Init(keys, token, n)
	return c
}

// Init makes c, a zero Claim, a claim to keys on n nodes. The Claim must not be
// copied after.
func (c *Claim) Init(keys []string, token string, n int) {
	c.Keys, c.Token = keys, token
	if c.places = c.few[:]; n > fewNodes {
		c.places = make([]place, n)
	}
}

// asked is the terms of a claim, and what follows from them if it has a fence.
type asked struct {
	terms   Terms
	counted []string // the keys, then their counters
	floor   string
}

// Ask sets what the claim asks of the nodes. It is called before anything is sent.
func (c *Claim) Ask(t Terms) {
	if t == (Terms{}) {
		return
	}
	c.asked = &asked{terms: t}
	if t.Floor == 0 {
		return
	}
	c.asked.floor = strconv.FormatInt(t.Floor, 10)
	c.asked.counted = make([]string, len(c.Keys), 2*len(c.Keys))
	copy(c.asked.counted, c.Keys)
	for _, key := range c.Keys {
		c.asked.counted = append(c.asked.counted, Counter(key))
	}
}

// Terms returns what the claim asks of the nodes.
func (c *Claim) Terms() Terms {
	if c.asked == nil {
		return Terms{}
	}
	return c.asked.terms
}

// Counted returns the keys of a claim with a fence, followed by their counters.
func (c *Claim) Counted() []string { return c.asked.counted }

// FloorText returns the floor of a claim with a fence, as text.
func (c *Claim) FloorText() string { return c.asked.floor }

// Fenced reports whether the claim has a fence.
func (c *Claim) Fenced() bool { return c.Terms().Floor > 0 }

// End ends the claim: nothing is sent for it any more but releases. It waits for
// nobody.
func (c *Claim) End() { c.ended.Store(true) }

// Ended reports whether the claim has ended.
func (c *Claim) Ended() bool { return c.ended.Load() }

// mayHold reports whether keys of the claim may be there, as far as commands
// have been answered.
func (p *place) mayHold() bool { return p.acquired || p.extended }

// sets reports whether a command of this kind may set keys.
func (k Kind) sets() bool { return k == Acquire || k == Extend || k == Join }

// send notes that a command is sent that may set keys for ttl.
func (p *place) send(kind Kind, ttl time.Duration) {
	p.inFlight++
	p.refills = p.refills || kind != Acquire || p.asked
	p.asked = p.asked || kind == Acquire
	p.ttl = max(p.ttl, ttl)
}

// answered notes the outcome of an acquisition or an extension. left says
// whether it set keys, or may have.
func (p *place) answered(kind Kind, left bool) {
	p.inFlight--
	switch {
	case !left:
	case kind != Acquire:
		p.extended = true
	case !p.spent:
		p.acquired = true
	}
}
