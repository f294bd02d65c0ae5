package fencemodel

import "slices"

// handOvers yields to whom a release may hand the key of a node: to any other attempt,
// since each may have joined the queue before, and be the first of it that is alive.
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
func (m *Model) handOver(s *state, n, to int) {
	l := &s.columns[n].links[to]
	l.grants++
	granted := answer(m.grant(s, to, n))
	if m.Duplicates {
		granted |= byPush
	}
	push(&l.answers, granted)
}

// lapse takes away the vote of a node whose key is gone from an attempt that waits. The
// vote ended before, by the JOIN it counts from. What the client hears of it from now on
// is void, but an answer to a confirm may still come.
func (m *Model) lapse(s *state, i, n int) {
	l := &s.columns[n].links[i]
	l.vote = noVote
	for at := maxInFlight - 1; at >= 0; at-- {
		if l.answers[at]&toConfirm == 0 && l.answers[at] != 0 && !m.Stale {
			take(&l.answers, at)
		}
	}
}

// sortAnswers drops the order of what is on its way, and what is there twice: pushes
// and answers come by different connections, in any order.
func sortAnswers(answers *[maxInFlight]answer) {
	slices.SortFunc(answers[:], func(a, b answer) int { return int(b) - int(a) })
	for at := maxInFlight - 1; at > 0; at-- {
		if answers[at] != 0 && answers[at] == answers[at-1] {
			take(answers, at)
		}
	}
}
