package fencemodel

import (
	"hash/maphash"
	"slices"
)

// Result is what a search found.
type Result struct {
	States int // distinct states, up to the order of the nodes
	Steps  int // steps between them
	// Broken has, for each property that some run breaks, one of the shortest such
	// runs, as sentences.
	Broken map[Property][]string
}

// Explore visits every state that can be reached, the nearest first.
func (m *Model) Explore() Result {
	e := exploration{model: m, seed: maphash.MakeSeed(), seen: make(map[uint64]origin), broken: make(map[Property]breach)}
	for _, s := range m.initial() {
		e.visit(s, origin{first: true})
	}
	for len(e.frontier) > 0 && len(e.broken) < len(Properties) {
		states := e.frontier
		e.frontier = nil
		for at := range states {
			if !m.settled(&states[at]) {
				e.expand(&states[at])
			}
		}
	}
	result := Result{States: len(e.seen), Steps: e.steps, Broken: make(map[Property][]string)}
	for property, b := range e.broken {
		result.Broken[property] = e.trace(b)
	}
	return result
}

// exploration is a breadth-first search. Of states seen it keeps a hash only, with a
// new seed each time: should two states share one, another run would tell.
type exploration struct {
	model    *Model
	seed     maphash.Seed
	seen     map[uint64]origin
	frontier []state
	steps    int
	broken   map[Property]breach
}

// origin is how a state was reached first.
type origin struct {
	from  uint64
	step  step
	first bool
}

// breach is a step that broke a property.
type breach struct {
	from uint64
	step step
}

// visit adds a state if it is new.
func (e *exploration) visit(s state, by origin) {
	key := e.key(&s)
	if _, ok := e.seen[key]; ok {
		return
	}
	e.seen[key] = by
	e.frontier = append(e.frontier, s)
}

// key is the same for states that differ only in the order of their nodes, and nearly
// always for those that differ in the order of attempts that are alike.
func (e *exploration) key(s *state) uint64 {
	order := e.order(s)
	var parts struct {
		columns  [maxNodes]uint64
		attempts [maxAttempts]attempt
		lost     loss
		mark     uint8
	}
	for n := range e.model.Nodes {
		parts.columns[n] = maphash.Comparable(e.seed, s.columns[n].renamed(order))
	}
	slices.Sort(parts.columns[:e.model.Nodes])
	for i, was := range order {
		parts.attempts[i] = s.attempts[was]
	}
	parts.lost, parts.mark = s.lost, s.mark
	return maphash.Comparable(e.seed, parts)
}

// order sorts the attempts that are alike by what can be said of each without a name.
func (e *exploration) order(s *state) [maxAttempts]uint8 {
	order := [maxAttempts]uint8{0, 1, 2}
	if e.model.SharedID {
		return order
	}
	var signs [maxAttempts]uint64
	for i := range e.model.Attempts {
		var sign struct {
			links   [maxNodes]uint64
			attempt attempt
		}
		for n := range e.model.Nodes {
			sign.links[n] = maphash.Comparable(e.seed, s.columns[n].seenBy(i))
		}
		slices.Sort(sign.links[:e.model.Nodes])
		sign.attempt = s.attempts[i]
		signs[i] = maphash.Comparable(e.seed, sign)
	}
	for i := range e.model.Attempts {
		for j := i; j > 0 && e.model.Attempts[j] == e.model.Attempts[j-1] && signs[order[j]] < signs[order[j-1]]; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	return order
}

// view is what one attempt has to do with one node.
type view struct {
	link    link
	counter [maxKeys]uint8
	ours    [maxKeys]bool
	free    [maxKeys]bool
	away    bool
}

func (c *column) seenBy(i int) view {
	v := view{link: c.links[i], counter: c.node.counter, away: c.node.away}
	for key, owner := range c.node.owner {
		v.ours[key], v.free[key] = owner == uint8(i+1), owner == 0
	}
	return v
}

// renamed is the column with the attempts in another order.
func (c *column) renamed(order [maxAttempts]uint8) column {
	r := *c
	for i, was := range order {
		r.links[i] = c.links[was]
		for key, owner := range c.node.owner {
			if owner == was+1 {
				r.node.owner[key] = uint8(i + 1)
			}
		}
	}
	return r
}

// expand takes every step from a state.
func (e *exploration) expand(s *state) {
	from := e.key(s)
	e.model.next(s, func(at step) {
		after := *s
		broken, ok := e.model.take(&after, at)
		if !ok {
			return
		}
		e.steps++
		for _, property := range broken {
			if _, known := e.broken[property]; !known {
				e.broken[property] = breach{from, at}
			}
		}
		e.visit(after, origin{from: from, step: at})
	})
}

// trace tells the run that ends with a breach, from its first state on.
func (e *exploration) trace(b breach) []string {
	steps := []step{b.step}
	at := b.from
	for !e.seen[at].first {
		steps = append(steps, e.seen[at].step)
		at = e.seen[at].from
	}
	slices.Reverse(steps)
	for _, s := range e.model.initial() {
		if e.key(&s) == at {
			return e.model.tell(s, steps)
		}
	}
	return nil
}
