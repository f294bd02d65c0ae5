package node

import "slices"

// Declared returns every key that c touches, in the order in which its script takes them
// (invariant 15). It may use room. A Ping declares none: its key names a server.
//
// What holds a lock declares the lock's keys alone. While a Cluster migrates their slot, it runs
// no command with several keys of which some are missing.
func (c *Command) Declared(room []string) []string {
	switch c.Kind {
	case Acquire:
		return c.Claim.options.acquiring(c.Claim.Keys)
	case Extend:
		return c.Claim.options.extending(c.Claim.Keys)
	case Confirm:
		return c.Claim.options.acquiring(c.Claim.Keys)[:2*len(c.Claim.Keys)]
	case Leave, Join:
		return c.Claim.appendQueueing(room)
	case Look:
		return c.Claim.appendQueueing(room)[1:2]
	case Trust:
		return marker
	case Ping:
		return nil
	}
	return c.Claim.Keys
}

var marker = []string{GuardKey}

// acquiring returns the keys, their counters if the claim has a fence, and the marker if it has
// a guard.
func (o *claimOptions) acquiring(keys []string) []string {
	if o == nil {
		return keys
	}
	return o.toAcquire
}

// extending returns the keys, and the marker if the claim has a guard.
func (o *claimOptions) extending(keys []string) []string {
	if o == nil {
		return keys
	}
	return o.toExtend
}

// declare fills in what the scripts declare for the claim's keys.
func (o *claimOptions) declare(keys []string) {
	o.toAcquire, o.toExtend = keys, keys
	room := len(keys)
	if o.given.Floor > 0 {
		o.toAcquire = make([]string, room, 2*room+1)
		copy(o.toAcquire, keys)
		for _, key := range keys {
			o.toAcquire = append(o.toAcquire, Companion(key, Fence))
		}
	}
	if o.given.Quarantine > 0 {
		o.toAcquire = append(slices.Clip(o.toAcquire), GuardKey)
		o.toExtend = slices.Concat(keys, marker)
	}
}

// companions are the names of the companions of one lock key, in one string.
type companions struct {
	all            string
	queue, waiters int // where the names of the queue and of the waiters end
}

func companionsOf(key string) companions {
	var room [256]byte
	all := appendCompanion(room[:0], key, Queue)
	queue := len(all)
	all = appendCompanion(all, key, Waiters)
	waiters := len(all)
	return companions{string(appendCompanion(all, key, Fence)), queue, waiters}
}

// appendQueueing appends the claim's one key, its companions and, if the claim has a guard, the
// marker. The counter is one of them even if the claim has no fence: a waiter that it grants to
// may have one. The marker is not: a user without a guard may not touch it.
func (c *Claim) appendQueueing(to []string) []string {
	of := &c.companions
	to = append(to, c.Keys[0], of.all[:of.queue], of.all[of.queue:of.waiters], of.all[of.waiters:])
	if c.Options().Quarantine > 0 {
		to = append(to, GuardKey)
	}
	return to
}
