package fencemodel

import "math/bits"

// kind is what happens in a step.
type kind uint8

const (
	granting kind = iota
	gathering
	answering
	joining
	confirming
	expiring
	handing
	refilling
	losing
	returning
)

// step is one thing that happens.
type step struct {
	kind          kind
	attempt, node uint8
	what          uint8 // the key; or the index of a message on its way; or the nodes heard of, one bit for each
	floor         uint8 // of a request that is granted, or of a JOIN, plus 1
	to            uint8 // handing: the waiter; gathering: the nodes whose second grant is heard of
}

// next yields all steps that are possible in a state. They may turn out to do nothing.
//
// An attempt begins with its first grant: until then it has no effect, and the later it
// begins, the more P1 demands of it. No step refuses a request: a refused request has the
// effect of one that never arrives.
func (m *Model) next(s *state, yield func(step)) {
	for i := range m.Attempts {
		if s.attempts[i].phase == asking && s.attempts[i].confirmed == 0 {
			m.gatherings(s, i, yield)
		}
		for n := range m.Nodes {
			at := step{attempt: uint8(i), node: uint8(n)}
			if !s.columns[n].node.away {
				m.requests(s, i, n, at, yield)
			}
			if s.attempts[i].confirmed > 0 {
				m.answers(s, i, n, at, yield)
			}
		}
	}
	for n := range m.Nodes {
		for key := range m.keys() {
			if s.columns[n].node.owner[key] != 0 {
				m.endings(s, n, key, yield)
			}
		}
		m.losses(s, n, yield)
	}
}

// requests yields what a node may run for an attempt.
func (m *Model) requests(s *state, i, n int, at step, yield func(step)) {
	l := &s.columns[n].links[i]
	if m.mayGrant(s, i, n) {
		at.kind = granting
		m.openings(s, i, at, yield)
	}
	m.joins(s, i, n, at, yield)
	for what, token := range l.confirms {
		if token == 0 || what > 0 && !m.Reordered {
			break
		}
		if m.owns(s, i, n) || m.Confirming != OwnerChecked {
			at.kind, at.what = confirming, uint8(what)
			yield(at)
		}
	}
	early := m.Early && s.attempts[i].confirmed > 0
	if m.Refill && (s.attempts[i].phase == completed || early) && !s.attempts[i].over {
		at.kind, at.what = refilling, 0
		yield(at)
	}
}

// mayGrant reports whether a node that finds the keys free grants them to an attempt.
func (m *Model) mayGrant(s *state, i, n int) bool {
	if s.columns[n].links[i].grants == 0 {
		return true
	}
	if !m.Again {
		return false
	}
	for n := range m.Nodes {
		for i := range m.Attempts {
			if s.columns[n].links[i].grants > 1 {
				return false
			}
		}
	}
	return true
}

// openings yields a grant to an attempt, once for each floor that the request may have.
func (m *Model) openings(s *state, i int, at step, yield func(step)) {
	if s.attempts[i].phase != idle {
		for _, floor := range m.newFloors(s, i) {
			at.floor = floor + 1
			yield(at)
		}
		return
	}
	// Attempts for the same keys are alike: they begin in order.
	for j := range i {
		if m.Attempts[j] == m.Attempts[i] && s.attempts[j].phase == idle {
			return
		}
	}
	floors := m.Floors
	if s.lost == back && m.Loss == BackAfterSkew {
		floors = append([]uint8{s.mark + 1}, floors...)
	}
	for _, floor := range floors {
		if s.lost == back && m.Loss == BackAfterSkew && floor <= s.mark {
			continue
		}
		at.floor = floor + 1
		yield(at)
	}
}

// gatherings yields the quorums of grants that a client may hear of. Grants that it hears
// of before there is a quorum have no effect, so hearing of a quorum is one step.
func (m *Model) gatherings(s *state, i int, yield func(step)) {
	for set := range uint8(1 << m.Nodes) {
		if bits.OnesCount8(set) != m.quorum() {
			continue
		}
		all, second := true, uint8(0)
		for n := range m.Nodes {
			answers := &s.columns[n].links[i].answers
			all = all && (set>>n&1 == 0 || answers[0] != 0)
			if answers[1] != 0 {
				second |= set & (1 << n)
			}
		}
		if !all {
			continue
		}
		for n := range m.Nodes {
			if n > 0 && m.Counting != FirstGrant {
				break // it matters only there who is heard of first
			}
			for to := second; ; to = (to - 1) & second {
				yield(step{kind: gathering, attempt: uint8(i), node: uint8(n), what: set, to: to})
				if to == 0 {
					break
				}
			}
		}
	}
}

// gather lets a client hear of a quorum of grants, from one node on. It reports whether
// that completes the attempt.
func (m *Model) gather(s *state, i int, at step) bool {
	a := &s.attempts[i]
	for n := range m.Nodes {
		n = (int(at.node) + n) % m.Nodes
		if at.what>>n&1 == 0 {
			continue
		}
		l := &s.columns[n].links[i]
		got := l.answers[at.to>>n&1]
		take(&l.answers, int(at.to>>n&1))
		l.counted = m.Queue && m.Timed && !m.Confirmed
		a.before = a.before || s.columns[n].node.away // that vote is from before the loss
		if m.hear(s, i, n, got) {
			return true
		}
	}
	return false
}

// answers yields the answers that a client may hear from a node once it has had a quorum.
func (m *Model) answers(s *state, i, n int, at step, yield func(step)) {
	for what, got := range s.columns[n].links[i].answers {
		if got == 0 || what > 0 && !m.Reordered && !m.Queue {
			break
		}
		at.kind, at.what = answering, uint8(what)
		yield(at)
	}
}

// endings yields the ways in which a key may leave its owner. With right validity checks,
// a key that goes ends its attempt. Only the votes of an attempt in a queue end one by
// one.
func (m *Model) endings(s *state, n, key int, yield func(step)) {
	for i := range m.Attempts {
		if m.id(i) != s.columns[n].node.owner[key] || !m.Attempts[i].has(key) {
			continue
		}
		at := step{attempt: uint8(i), node: uint8(n), what: uint8(key)}
		at.kind = expiring
		yield(at)
		if m.Queue {
			m.handOvers(s, n, at, yield)
		}
	}
}

// take applies a step. It reports which properties that breaks, and false if it does
// nothing.
func (m *Model) take(s *state, at step) ([]Property, bool) {
	i, n := int(at.attempt), int(at.node)
	l := &s.columns[n].links[i]
	before := *s
	done := false
	switch at.kind {
	case granting:
		m.begin(s, i, at.floor-1)
		counter := m.grant(s, i, n, at.floor-1)
		if counter == 0 {
			return nil, false
		}
		l.grants++
		push(&l.answers, answer(counter))
	case gathering:
		done = m.gather(s, i, at)
	case answering:
		got := l.answers[at.what]
		take(&l.answers, int(at.what))
		done = m.hear(s, i, n, got)
	case joining:
		m.join(s, i, n, at.floor-1)
	case confirming:
		token := l.confirms[at.what]
		take(&l.confirms, int(at.what))
		if counter := m.raise(s, i, n, token); counter > 0 {
			push(&l.answers, answer(counter)|toConfirm)
		}
	case expiring:
		s.columns[n].node.owner[at.what] = 0
		m.expire(s, i, n)
	case handing:
		s.columns[n].node.owner[at.what] = 0
		s.attempts[i].over = m.Timed
		m.begin(s, int(at.to), at.floor-1)
		m.handOver(s, n, int(at.to), at.floor-1)
	case refilling:
		m.refill(s, i, n)
	case losing:
		m.lose(s, n)
	case returning:
		m.comeBack(s, n)
	}
	var broken []Property
	if done {
		broken = m.complete(s, i)
	}
	m.forget(s)
	return broken, *s != before
}
