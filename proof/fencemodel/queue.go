package fencemodel

import "slices"

// handOvers yields the attempts to which a release may hand the key of a node. These are
// all others: each may have joined the queue before, and be its first live entry.
func (m *Model) handOvers(s *state, n int, at step, yield func(step)) {
	at.kind = handing
	for to := range m.Attempts {
		if to == int(at.attempt) || !m.mayGrant(s, to, n) {
			continue
		}
		m.openings(s, to, at, func(at step) {
			at.to = uint8(to)
			yield(at)
		})
	}
}

// handOver grants the free key of a node to a waiter and pushes that to it.
func (m *Model) handOver(s *state, n, to int, floor uint8) {
	l := &s.columns[n].links[to]
	l.grants++
	push(&l.answers, answer(m.grant(s, to, n, floor)))
}

// joins yields the JOINs of a waiter that find the key its own, where they count.
func (m *Model) joins(s *state, i, n int, at step, yield func(step)) {
	a := &s.attempts[i]
	if !m.Queue || m.OldFloor || a.phase != asking || a.confirmed > 0 || !m.owns(s, i, n) {
		return
	}
	at.kind = joining
	for _, floor := range m.newFloors(s, i) {
		if floor > s.columns[n].node.counter[0] {
			at.floor = floor + 1
			yield(at)
		}
	}
}

// join stands for the join script where the waiter has the key: it raises the counter to the
// floor of the JOIN.
func (m *Model) join(s *state, i, n int, floor uint8) {
	s.columns[n].node.counter[0] = floor
	push(&s.columns[n].links[i].answers, answer(floor))
}

// newFloors returns the floors that a JOIN of a waiter may have.
func (m *Model) newFloors(s *state, i int) []uint8 {
	floors := []uint8{s.attempts[i].floor}
	for _, floor := range m.Floors {
		if m.Queue && !m.OldFloor && floor > s.attempts[i].floor {
			floors = append(floors, floor)
		}
	}
	return floors
}

// expire ends an attempt whose key a node loses. An attempt that waits in queues only
// loses the vote of that node, if its validity does not rest on that vote.
func (m *Model) expire(s *state, i, n int) {
	l := &s.columns[n].links[i]
	if !m.Queue || !m.Timed || !m.mayComplete(s, i) || l.counted {
		s.attempts[i].over = m.Timed
		return
	}
	if m.Confirmed {
		l.vote = noVote
	}
	if !m.Stale {
		l.dropGrants()
	}
}

// dropGrants drops the pushes that are on their way. They are void once the key is gone:
// the vote ended before, by the JOIN that it counts from. An answer to a confirm may
// still come, and says what the node had counted while the key was there.
func (l *link) dropGrants() {
	for at := maxInFlight - 1; at >= 0; at-- {
		if l.answers[at]&toConfirm == 0 && l.answers[at] != 0 {
			take(&l.answers, at)
		}
	}
}

// sortAnswers drops the order of the messages on their way, and duplicates: pushes and
// answers come by different connections, in any order.
func sortAnswers(answers *[maxInFlight]answer) {
	slices.SortFunc(answers[:], func(a, b answer) int { return int(b) - int(a) })
	for at := maxInFlight - 1; at > 0; at-- {
		if answers[at] != 0 && answers[at] == answers[at-1] {
			take(answers, at)
		}
	}
}
