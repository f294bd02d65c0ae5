package fencemodel

// begin starts an attempt, unless it has begun.
func (m *Model) begin(s *state, i int, floor uint8) {
	a := &s.attempts[i]
	if a.phase != idle {
		return
	}
	a.phase, a.floor = asking, floor
	for j := range m.Attempts {
		if m.rivals(i, j) && s.attempts[j].phase == completed {
			a.bound = max(a.bound, s.attempts[j].token)
		}
	}
	if m.SharedID && i == 1 {
		s.attempts[0].over = m.Timed // a client's attempts follow each other
	}
}

// hear lets a client take an answer of a node into account. It reports whether that
// completes the attempt.
func (m *Model) hear(s *state, i, n int, got answer) bool {
	a, l := &s.attempts[i], &s.columns[n].links[i]
	if m.Confirmed && m.Timed && l.vote == noVote && got&toConfirm != 0 && !m.owns(s, i, n) {
		return false
	}
	counter := uint8(got & valueMask)
	switch {
	case m.Counting == FirstGrant:
		if a.token == 0 {
			a.token = counter
		}
	case m.Counting == AtLeast && a.confirmed > 0:
	case counter > a.token:
		a.token = counter
		for other := range m.Nodes {
			if v := &s.columns[other].links[i].vote; *v == agreed {
				*v = below
			}
		}
	}
	l.vote = below
	if counter == a.token || counter > a.token && m.Counting != Strict {
		l.vote = agreed
	}
	return m.decide(s, i)
}

// decide completes an attempt if enough nodes agree on its token, and otherwise
// sends confirms.
func (m *Model) decide(s *state, i int) bool {
	a := &s.attempts[i]
	votes, agree := 0, 0
	for n := range m.Nodes {
		switch s.columns[n].links[i].vote {
		case below:
			votes++
		case agreed:
			votes++
			agree++
		}
	}
	if votes < m.quorum() && a.confirmed == 0 {
		return false
	}
	if agree >= m.quorum() || m.Counting == LargestOfQuorum {
		return true
	}
	for other := range m.Nodes {
		l := &s.columns[other].links[i]
		if l.vote != agreed && a.token > a.confirmed {
			push(&l.confirms, a.token)
		}
	}
	a.confirmed = a.token
	return false
}

// push appends to a queue of messages on their way.
func push[T uint8 | answer](queue *[maxInFlight]T, what T) {
	for at := range queue {
		if queue[at] == 0 {
			queue[at] = what
			return
		}
	}
	panic("fencemodel: too much on its way between an attempt and a node")
}

// take removes one message from a queue of those on their way.
func take[T uint8 | answer](queue *[maxInFlight]T, at int) {
	copy(queue[at:], queue[at+1:])
	queue[maxInFlight-1] = 0
}
