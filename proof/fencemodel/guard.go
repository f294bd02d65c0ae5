package fencemodel

// A node that has lost its data and stays away is either kept away by its operator, or by
// the restart guard: then it is there, and refuses all votes. Both are one here, since a
// request that is refused has no effect.

// losses yields that a node loses its data, once in a run, and that it votes again.
func (m *Model) losses(s *state, n int, yield func(step)) {
	if m.Loss != NoLoss && s.lost == notLost {
		yield(step{kind: losing, node: uint8(n)})
	}
	if s.columns[n].node.away {
		yield(step{kind: returning, node: uint8(n)})
	}
}

// lose empties a node.
func (m *Model) lose(s *state, n int) {
	for c := range m.Nodes {
		for _, counter := range s.columns[c].node.counter {
			s.mark = max(s.mark, counter)
		}
	}
	for i := range m.Attempts {
		a := &s.attempts[i]
		a.before = a.phase != idle && (!m.Queue || a.phase == completed || a.confirmed > 0)
		if m.Queue {
			s.columns[n].links[i].grants = 0 // a waiter may be granted the key once more
		}
	}
	s.columns[n].node = node{away: m.Loss != BackAtOnce}
	s.lost = away
	if m.Loss == BackAtOnce {
		s.lost = back
	}
}

// comeBack lets a node vote again. By then the attempts that it has waited for are over,
// and so are the votes that it gave to waiters that go on waiting: they join with a new
// floor.
func (m *Model) comeBack(s *state, n int) {
	s.columns[n].node.away = false
	s.lost = back
	for i := range m.Attempts {
		a, l := &s.attempts[i], &s.columns[n].links[i]
		old := a.phase != idle && m.Loss == BackAfterSkew && a.floor <= s.mark
		if m.Queue {
			a.over = a.over || a.before
			l.dropGrants()
			if old && !m.OldFloor {
				a.floor = s.mark + 1
			}
			continue
		}
		a.over = a.over || a.before || old
	}
}
