package fencemodel

import "slices"

// Result is the result of a search.
type Result struct {
	States int // distinct states, up to the order of the nodes
	Steps  int // steps between them
	// Completed is the largest number of attempts that completed in one run.
	Completed int
	// Broken has, for each property that some run breaks, one of the shortest such
	// runs, as sentences.
	Broken map[Property][]string
}

// Explore visits every state that can be reached, the nearest first. With properties in
// enough, it ends as soon as each of them is broken.
func (m *Model) Explore(enough ...Property) Result {
	e := m.search(enough)
	result := Result{States: len(e.seen), Steps: e.steps, Completed: e.completed, Broken: make(map[Property][]string)}
	for property, b := range e.broken {
		result.Broken[property] = m.tell(e.trace(b))
	}
	return result
}

// search is Explore, and returns the whole exploration.
func (m *Model) search(enough []Property) *exploration {
	if len(enough) == 0 {
		enough = Properties
	}
	e := &exploration{model: m, hasher: newHasher(m), seen: make(map[uint64]origin), broken: make(map[Property]breach)}
	for _, s := range m.initial() {
		e.visit(s, origin{first: true})
	}
	for len(e.frontier) > 0 && !e.found(enough) {
		states := e.frontier
		e.frontier = nil
		for at := range states {
			if !m.settled(&states[at]) {
				e.expand(&states[at])
			}
		}
	}
	return e
}

// exploration is a breadth-first search. It keeps only a hash of each state that it has
// seen, with a new seed each time: if two states share a hash, another run shows it.
type exploration struct {
	model     *Model
	hasher    hasher
	seen      map[uint64]origin
	frontier  []state
	steps     int
	completed int
	broken    map[Property]breach
}

// origin records how a state was first reached.
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

// found reports whether each of the properties is broken.
func (e *exploration) found(all []Property) bool {
	for _, property := range all {
		if _, ok := e.broken[property]; !ok {
			return false
		}
	}
	return true
}

// visit adds a state if it is new.
func (e *exploration) visit(s state, by origin) {
	key := e.hasher.hash(&s)
	if _, ok := e.seen[key]; ok {
		return
	}
	e.seen[key] = by
	e.frontier = append(e.frontier, s)
}

// expand takes every step from a state.
func (e *exploration) expand(s *state) {
	from := e.hasher.hash(s)
	e.model.next(s, func(at step) {
		after := *s
		broken, ok := e.model.take(&after, at)
		if !ok {
			return
		}
		e.steps++
		e.completed = max(e.completed, after.completions())
		for _, property := range broken {
			if _, known := e.broken[property]; !known {
				e.broken[property] = breach{from, at}
			}
		}
		e.visit(after, origin{from: from, step: at})
	})
}

// completions returns the number of attempts that have completed.
func (s *state) completions() int {
	count := 0
	for _, a := range s.attempts {
		if a.phase == completed {
			count++
		}
	}
	return count
}

// trace returns the run that ends with a breach: its first state and its steps.
func (e *exploration) trace(b breach) (state, []step) {
	steps := []step{b.step}
	at := b.from
	for !e.seen[at].first {
		steps = append(steps, e.seen[at].step)
		at = e.seen[at].from
	}
	slices.Reverse(steps)
	for _, s := range e.model.initial() {
		if e.hasher.hash(&s) == at {
			return s, steps
		}
	}
	panic("fencemodel: a run without a first state")
}
