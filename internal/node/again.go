package node

import (
	"slices"
	"time"
)

// A process that releases a lock in the background may ask for the same keys again before the
// nodes have answered. A node normally runs the release first. But another pipeline may overtake
// it, or it may have failed and be tried again: then the node refuses the acquisition because of
// the very claim that is being released. That is no refusal, as no other owner has the key
// (invariant 14). So the node is asked once more when the release is done, and the caller sees
// only the second answer.

// ownReleases are the claims that are being released in the background on one node, by key.
type ownReleases map[string]claimSet

func (r ownReleases) add(c *Claim) {
	for _, key := range c.Keys {
		set := r[key]
		set.add(c)
		r[key] = set
	}
}

func (r ownReleases) remove(c *Claim) {
	for _, key := range c.Keys {
		set := r[key]
		set.remove(c)
		if r[key] = set; set.empty() {
			delete(r, key)
		}
	}
}

// of returns the claims to any of the keys.
func (r ownReleases) of(keys []string) (claims claimSet) {
	for _, key := range keys {
		r[key].has(func(c *Claim) bool { claims.add(c); return false })
	}
	return claims
}

// claimSet is a set of claims. A set of one needs no allocation, and there is seldom more: a key
// that was locked and released again before the first release was answered.
type claimSet struct {
	one  *Claim
	more []*Claim
}

func (s *claimSet) empty() bool { return s.one == nil }

func (s *claimSet) add(c *Claim) {
	if s.one == nil {
		s.one = c
	} else {
		s.more = append(s.more, c)
	}
}

func (s *claimSet) remove(c *Claim) {
	if s.one == c {
		if s.one = nil; len(s.more) == 0 {
			return
		}
		s.one = s.more[0]
		c = s.one
	}
	s.more = slices.DeleteFunc(s.more, func(other *Claim) bool { return other == c })
}

// has reports whether is holds for a claim of the set.
func (s claimSet) has(is func(*Claim) bool) bool {
	return s.one != nil && (is(s.one) || slices.ContainsFunc(s.more, is))
}

// postponed is a command that is sent again once the releases before it are done.
type postponed struct {
	server  *server
	command Command
}

// ready reports whether the command need not wait any longer: its releases are done, or its claim
// has ended. In the latter case it is dropped when its turn comes.
func (p *postponed) ready(node int) bool {
	return p.command.Claim.Ended() || !p.command.behind.has(func(c *Claim) bool { return c.states[node].background })
}

// refusedByOwn reports whether the node may have refused c because of a claim that was being
// released in the background when c was sent. A node that does not name the owner may have.
func (c *Command) refusedByOwn() bool {
	return c.Outcome == Refused && c.behind.has(func(own *Claim) bool { return c.Owner == "" || c.Owner == own.Token })
}

// postpone has c sent again when the releases before it are done. They are bound to be: if one
// fails, it is repeated until its keys have expired. The second answer is final: a claim that
// refuses it was not being released when c was first sent. The Node's mutex is held.
func (s *server) postpone(c *Command) {
	s.node.postponed = append(s.node.postponed, postponed{s, Command{
		Kind: c.Kind, Claim: c.Claim, TTL: c.TTL, Script: c.Script, handler: c.handler, behind: c.behind, again: true,
	}})
	c.handler = nil // it receives the second answer
}

// resume queues the postponed commands that are ready. n.mu is held.
func (n *Node) resume() {
	n.postponed = slices.DeleteFunc(n.postponed, func(p postponed) bool {
		if !p.ready(n.index) {
			return false
		}
		p.server.queue.push(p.command)
		p.server.wakeWorker(claimLane)
		return true
	})
}

// dropPostponed takes out the postponed commands for s, or for all servers if s is nil, with err
// as their outcome, and appends them to dropped. n.mu is held.
func (n *Node) dropPostponed(s *server, err error, dropped []Command) []Command {
	n.postponed = slices.DeleteFunc(n.postponed, func(p postponed) bool {
		if s != nil && p.server != s {
			return false
		}
		p.command.Err = err
		dropped = append(dropped, p.command)
		return true
	})
	return dropped
}

// releaseBegun notes that a claim is being released in the background. n.mu is held.
func (n *Node) releaseBegun(c *Claim) {
	if n.ownReleases == nil {
		n.ownReleases = make(ownReleases)
	}
	c.states[n.index].background = true
	n.ownReleases.add(c)
}

// checkReleased notes the end of what releaseBegun noted, once the release is done and no
// command is under way that could set the keys again. The caller calls resume after it. n.mu is
// held.
func (n *Node) checkReleased(c *Claim) {
	if c.states[n.index].phase == done {
		n.keyReleased(c)
	}
}

// keyReleased is checkReleased for a claim whose key has been released, though its release goes on:
// that may last as long as the slot of the key is migrated, and another owner may have the key.
func (n *Node) keyReleased(c *Claim) {
	if p := &c.states[n.index]; p.background && p.inFlight == 0 {
		p.background = false
		n.ownReleases.remove(c)
	}
}

// refusedAt is the progress of a command that is postponed: none since it was refused. So its
// caller waits for the release, and then for the second answer, no longer than the node timeout
// each.
type refusedAt time.Time

// Since implements quorum.Progress.
func (r refusedAt) Since() time.Time { return time.Time(r) }
