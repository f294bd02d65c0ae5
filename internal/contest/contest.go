// Package contest settles split votes (invariant 14). Attempts at the same moment may each
// take the key on some nodes, and none of them on a quorum, although no owner holds the lock.
// Then the eldest keeps its votes and goes on asking. The others give up theirs, and from
// then on only read, until an owner has a quorum.
//
// The age is in the tokens, so all contenders agree on it. A candidate of the nodes' queues
// and an owner without an age count as older than any attempt: the candidate has waited
// longer, and the owner without an age does not know this rule.
//
// An older rival may have died and left its keys. Then it takes no node that becomes
// free. A contender that has yielded and sees a node stay free goes on as if that rival
// did not exist, and enters again if the other nodes can make a quorum.
//
// No lock's safety rests on any of this: a vote is a key on a node, and a lock is a quorum
// of votes, whatever the contenders give up.
package contest

import (
	"context"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// A contender asks again after firstPause, or half a round trip if that is longer,
	// and then after growing pauses, up to lastPause or two round trips.
	firstPause = time.Millisecond
	lastPause  = 25 * time.Millisecond
	// untaken, or four round trips if that is longer, is how long a node stays free
	// before the older rivals that leave it free are taken for dead.
	untaken = 20 * time.Millisecond
)

// Attempt is one attempt, and how it may go on.
type Attempt struct {
	Nodes    *node.Nodes
	Now      func() clock.Instant
	Claim    *node.Claim        // the current one
	Start    clock.Instant      // when it was first asked for: validity counts from there
	Renew    func() *node.Claim // another claim of the same age
	TTL      time.Duration      // of the keys
	Lasts    time.Duration      // how long the votes for a claim are useful, from its start
	Trip     time.Duration      // about a round trip to a quorum
	Patience time.Duration      // how long a contest may last
}

// Split reports whether the votes of an attempt that was refused are split: it has some
// itself, or may yet get some, and no owner is known to have a quorum.
func Split(poll *quorum.Poll) bool {
	votes, outstanding := poll.Votes()
	return (votes.Granted() > 0 || outstanding > 0) && votes.Owner() == ""
}

// Settle goes on with the attempt that poll has asked for. Won means that a.Claim has a
// quorum, counted from a.Start. Lost means that another owner has one or may have one,
// Unreachable that no owner can have one, and Pending that ctx or stop ended the contest. In
// these cases the caller releases a.Claim.
func (a *Attempt) Settle(ctx context.Context, stop <-chan struct{}, poll *quorum.Poll) (quorum.Verdict, *quorum.Tally) {
	c := &contest{
		Attempt: a,
		states:  make([]nodeState, a.Nodes.Len()),
		answers: make(chan answer, a.Nodes.Len()), // one for each call under way
		ghosts:  make(map[string]uint64),
	}
	claim := a.Claim
	tally, outstanding := poll.Follow(func(i int, r quorum.Reply) { c.answers <- answer{node: i, claim: claim, reply: r} })
	for i := range c.states {
		c.states[i] = nodeState{asked: outstanding&(1<<i) != 0, reply: tally.Replies[i]}
	}
	verdict := c.run(ctx, stop)
	return verdict, c.tally()
}

// contest is one Attempt that is being settled. It belongs to one goroutine.
type contest struct {
	*Attempt
	states  []nodeState
	answers chan answer
	yielded bool // the attempt has given up its votes, and only reads
	ghosts  map[string]uint64
	drained clock.Instant // an older rival is there: when the attempt yields at the latest; 0 if there is none
	step    *time.Timer
	pause   time.Duration
}

// nodeState is the attempt's knowledge of one node.
type nodeState struct {
	asked bool         // a call is under way; there is one at a time
	reply quorum.Reply // the latest; of a read, Awaited stands for a free key
	free  clock.Instant
}

// answer is the reply to one call.
type answer struct {
	node  int
	claim *node.Claim
	read  bool
	reply quorum.Reply
}

// call is a [node.ReplyHandler] for one call.
type call struct {
	answers chan<- answer
	claim   *node.Claim
	read    bool
}

func (call) Sent(int, quorum.Progress) {}

// Cast never blocks: answers has room for the one call that each node has under way.
func (c call) Cast(node int, r quorum.Reply) { c.answers <- answer{node, c.claim, c.read, r} }

func (c *contest) run(ctx context.Context, stop <-chan struct{}) quorum.Verdict {
	end := time.NewTimer(c.Patience)
	defer end.Stop()
	c.pause = c.shortest()
	c.step = time.NewTimer(c.pause)
	defer c.step.Stop()
	for {
		if verdict := c.look(); verdict != quorum.Pending {
			return verdict
		}
		select {
		case a := <-c.answers:
			c.note(a)
		case <-c.step.C:
			if !c.yielded && c.Now().Sub(c.Start) >= c.Lasts {
				return c.undecided() // a quorum would be useless by now
			}
			c.ask()
		case <-end.C:
			return c.undecided()
		case <-ctx.Done():
			return quorum.Pending
		case <-stop:
			return quorum.Pending
		}
	}
}

func (c *contest) shortest() time.Duration { return max(firstPause, c.Trip/2) }

// note takes what a node answered.
func (c *contest) note(a answer) {
	s := &c.states[a.node]
	s.asked = false
	if a.claim != c.Claim || a.read != c.yielded {
		return // of a claim that has been given up
	}
	s.reply = a.reply
	switch {
	case !a.read:
	case a.reply.Vote == quorum.Granted:
		s.reply = quorum.Reply{}
		if s.free == 0 {
			s.free = c.Now()
		}
	default:
		s.free = 0
	}
}

// look decides by what is known of the nodes. The verdict is Pending while the contest goes on.
func (c *contest) look() quorum.Verdict {
	votes, failed, closed, elder := 0, 0, 0, false
	c.findGhosts()
	if c.lost() {
		return quorum.Lost
	}
	now, underWay := c.Now(), false
	for i, s := range c.states {
		underWay = underWay || s.asked
		switch owner := s.reply.Owner; {
		case s.reply.Vote == quorum.Granted:
			votes++
		case s.reply.Vote == quorum.Failed:
			failed++
		case owner == "" || c.own(owner): // not known, or a release is on its way
		case c.ghosts[owner]&(1<<i) != 0:
			closed++
		case older(owner, c.Claim.Token):
			elder = true
		}
	}
	spare := len(c.states) - c.need()
	switch {
	case votes >= c.need():
		return quorum.Won
	case failed > spare:
		return quorum.Unreachable
	case failed+closed > spare && c.undecided() == quorum.Lost:
		return quorum.Lost // another owner holds it, and some of its nodes did not answer
	case !elder && !c.yielded:
		c.drained = 0
	case elder && !c.yielded && c.drained == 0:
		c.drained = now.Add(max(untaken, 4*c.Trip))
		return c.look()
	case elder && !c.yielded && (!underWay || now >= c.drained):
		c.yield()
	case !elder && c.yielded && failed+closed <= spare:
		c.enter()
	}
	return quorum.Pending
}

// lost reports whether another owner has a quorum. That owner has had all these nodes at
// once, since an owner gives up all its votes together, and then asks for none: see
// yield.
func (c *contest) lost() bool {
	for _, s := range c.states {
		if owner := s.reply.Owner; owner != "" && !c.own(owner) && c.votesOf(owner) >= c.need() {
			return true
		}
	}
	return false
}

// undecided returns the verdict if the contest ends now: Lost if an owner may have a
// quorum.
func (c *contest) undecided() quorum.Verdict {
	unknown := 0
	for _, s := range c.states {
		if s.reply.Vote == quorum.Failed || s.reply.Vote != quorum.Granted && s.reply.Owner == "" && s.free == 0 {
			unknown++
		}
	}
	for _, s := range c.states {
		if s.reply.Owner != "" && !c.own(s.reply.Owner) && c.votesOf(s.reply.Owner)+unknown >= c.need() {
			return quorum.Lost
		}
	}
	return quorum.Unreachable
}

// findGhosts finds the older rivals that are dead: a node has been free for long, and none
// of them has taken it. A rival that is then seen on another node is alive after all.
func (c *contest) findGhosts() {
	for i, s := range c.states {
		if on, ghost := c.ghosts[s.reply.Owner]; ghost && on&(1<<i) == 0 {
			delete(c.ghosts, s.reply.Owner)
		}
	}
	if !c.yielded {
		return
	}
	now, stays := c.Now(), false
	for _, s := range c.states {
		stays = stays || s.free > 0 && now.Sub(s.free) >= max(untaken, 4*c.Trip)
	}
	if !stays {
		return
	}
	for i, s := range c.states {
		if s.reply.Owner != "" && !c.own(s.reply.Owner) && older(s.reply.Owner, c.Claim.Token) {
			c.ghosts[s.reply.Owner] |= 1 << i
		}
	}
}

// yield gives up the attempt's votes for an older rival. By then its questions have been
// answered, unless a node is silent. Otherwise an attempt could be granted more nodes
// after it had yielded. It would seem to have a quorum, and the older rival would give up
// as refused.
func (c *contest) yield() {
	c.Nodes.Abandon(c.Claim)
	// The release of a dead token does no harm, however late it comes.
	c.Claim = c.Renew()
	c.yielded, c.drained = true, 0
	c.again()
}

// enter asks for the key once more.
func (c *contest) enter() {
	c.yielded = false
	c.Start = c.Now()
	c.again()
}

// again asks every node for what has changed.
func (c *contest) again() {
	for i := range c.states {
		s := &c.states[i]
		s.free = 0
		if s.reply.Vote == quorum.Granted {
			s.reply = quorum.Reply{}
		}
	}
	c.pause = c.shortest()
	c.ask()
}

// ask asks each node that has not granted the key and owes no answer. An attempt that is
// about to yield asks none.
func (c *contest) ask() {
	for i, n := range c.Nodes.All() {
		s := &c.states[i]
		if s.asked || s.reply.Vote == quorum.Granted || c.drained > 0 {
			continue
		}
		s.asked = true
		v := call{c.answers, c.Claim, c.yielded}
		if c.yielded {
			n.Read(c.Claim, v)
		} else {
			n.AcquireAgain(c.Claim, c.TTL, v)
		}
	}
	c.step.Reset(c.pause)
	c.pause = min(c.pause*3/2, max(lastPause, 2*c.Trip))
}

// older reports whether an owner came before the attempt that has token.
func older(owner, token string) bool {
	age, ok := node.AttemptAge(owner)
	own, _ := node.AttemptAge(token)
	return !ok || age < own || age == own && owner < token
}

// own reports whether an owner is the attempt itself, under a claim that it has given up.
func (c *contest) own(owner string) bool {
	age, ok := node.AttemptAge(owner)
	own, _ := node.AttemptAge(c.Claim.Token)
	return ok && age == own
}

func (c *contest) votesOf(owner string) (votes int) {
	for _, s := range c.states {
		if s.reply.Owner == owner {
			votes++
		}
	}
	return votes
}

func (c *contest) need() int { return c.Nodes.Need() }

// tally returns the votes as they are now. A node that is free counts as granted: it
// would grant the attempt.
func (c *contest) tally() *quorum.Tally {
	b := quorum.NewTally(len(c.states))
	for i, s := range c.states {
		switch {
		case s.free > 0:
			b.Cast(i, quorum.Reply{Vote: quorum.Granted})
		case s.reply.Vote != quorum.Awaited:
			b.Cast(i, s.reply)
		}
	}
	return b
}
