package node

import (
	"strconv"
	"sync/atomic"
	"time"
)

// Claim is one owner's claim to a set of keys: one attempt, and the hold that it may become.
// No other claim has its token.
//
// A claim ends once. The keys that its commands set on a node after that are released, in
// whatever order the commands and their replies travel (invariant 4).
type Claim struct {
	Keys    []string
	Token   string
	options *claimOptions // set before the claim is first sent; nil for the zero ClaimOptions

	companions companions // of its key, if it has one

	ended  atomic.Bool
	states []nodeState // by node; each guarded by its Node's mutex
	few    [fewNodes]nodeState
}

// A Claim to keys on up to fewNodes nodes is one allocation.
const fewNodes = 5

// nodeState is what a claim has, or may have, on one node.
type nodeState struct {
	ttl         time.Duration // the longest ttl asked for: no key lives longer than this after the last command has run
	inFlight    int32         // commands that may set keys, sent and not answered
	acquireSent bool          // an acquisition has been sent
	acquired    bool          // the keys of the acquisition may be there: it was granted, or its outcome is unknown
	extended    bool          // the keys of an extension may be there, or those that a queue may yet grant
	joined      bool          // the claim may be in the queue
	refills     bool          // a command other than the first acquisition has been sent, and may have set keys before it did
	spent       bool          // the keys of the acquisition have been deleted, even if its reply is still to come
	background  bool          // the claim is in Node.ownReleases
	phase       releasePhase
}

// releasePhase is the progress of a claim's release on one node. A release begins once,
// and is repeated when a late reply shows that it may have missed keys.
type releasePhase uint8

const (
	notBegun releasePhase = iota
	queued                // or waits to be retried
	sent
	done
)

// NewClaim returns a claim to keys on n nodes.
func NewClaim(keys []string, token string, n int) *Claim {
	c := new(Claim)
	c.Init(keys, token, n)
	return c
}

// Init makes c, a zero Claim, a claim to keys on n nodes. The Claim must not be copied after.
func (c *Claim) Init(keys []string, token string, n int) {
	c.Keys, c.Token = keys, token
	if len(keys) == 1 {
		c.companions = companionsOf(keys[0])
	}
	if c.states = c.few[:]; n > fewNodes {
		c.states = make([]nodeState, n)
	}
}

// claimOptions is the ClaimOptions of a claim and, if it has a fence, what follows from them.
type claimOptions struct {
	given               ClaimOptions
	toAcquire, toExtend []string // what the scripts declare
	floor               string
}

// Ask sets what the claim asks of the nodes. It is called before anything is sent.
func (c *Claim) Ask(t ClaimOptions) {
	if t == (ClaimOptions{}) {
		return
	}
	c.options = &claimOptions{given: t}
	c.options.declare(c.Keys)
	if t.Floor > 0 {
		c.options.floor = strconv.FormatInt(t.Floor, 10)
	}
}

// Options returns what the claim asks of the nodes.
func (c *Claim) Options() ClaimOptions {
	if c.options == nil {
		return ClaimOptions{}
	}
	return c.options.given
}

// Fenced reports whether the claim has a fence.
func (c *Claim) Fenced() bool { return c.Options().Floor > 0 }

// FloorText returns the floor of a claim with a fence, as text.
func (c *Claim) FloorText() string { return c.options.floor }

// End ends the claim: from now on only releases are sent for it. It does not block.
func (c *Claim) End() { c.ended.Store(true) }

// Ended reports whether the claim has ended.
func (c *Claim) Ended() bool { return c.ended.Load() }

// mayHold reports whether keys of the claim may be there, as far as commands have been
// answered.
func (p *nodeState) mayHold() bool { return p.acquired || p.extended }

// send notes that a command is sent that may set keys for ttl.
func (p *nodeState) send(kind Kind, ttl time.Duration) {
	p.inFlight++
	p.refills = p.refills || kind != Acquire || p.acquireSent
	p.acquireSent = p.acquireSent || kind == Acquire
	p.ttl = max(p.ttl, ttl)
}

// answered notes the outcome of an acquisition or an extension. left is whether it set keys,
// or may have.
func (p *nodeState) answered(kind Kind, left bool) {
	p.inFlight--
	switch {
	case !left:
	case kind != Acquire:
		p.extended, p.joined = true, p.joined || kind == Join
	case !p.spent:
		p.acquired = true
	}
}
