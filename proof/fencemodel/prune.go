package fencemodel

// forget drops what can no longer have an effect. States that differ in nothing else become one.
func (m *Model) forget(s *state) {
	for i := range m.Attempts {
		a := &s.attempts[i]
		for n := range m.Nodes {
			l := &s.columns[n].links[i]
			if m.Queue {
				if a.confirmed > 0 && !m.Confirmed {
					l.dropGrants() // the quorum of votes is there, and does not change
				}
				sortAnswers(&l.answers)
			}
			if !m.mayComplete(s, i) {
				l.answers, l.vote, l.counted = [maxInFlight]answer{}, noVote, false
			}
			// An attempt that has lost a key, and is not granted it again, has its confirms refused.
			if l.grants > 0 && !m.mayGrant(s, i, n) && !m.SharedID && !m.Refill && m.Confirming == OwnerChecked && !m.owns(s, i, n) {
				l.confirms = [maxInFlight]uint8{}
			}
		}
		if !m.mayComplete(s, i) {
			a.bound, a.confirmed = 0, 0
			if a.phase != completed {
				a.token = 0
			}
		}
	}
}

// settled reports whether no completion can break a property anymore: that takes a second
// completion, of an attempt with a key in common.
func (m *Model) settled(s *state) bool {
	for i := range m.Attempts {
		for j := range m.Attempts {
			if m.rivals(i, j) && m.mayComplete(s, i) && (m.mayComplete(s, j) || s.attempts[j].phase == completed) {
				return false
			}
		}
	}
	return true
}
