package fencemodel

// Property is what a lock with fencing tokens promises of attempts that have a key in common.
type Property uint8

const (
	// P1 says that an attempt that began after another completed has the larger token.
	P1 Property = iota
	// P2 says that no two completions share a token.
	P2
	// P3 says that no completion has a smaller token than an earlier one. An equal one
	// breaks P2.
	P3
	// Exclusion says that no attempt completes while another holds. It is checked in
	// timed models only: without validity checks the end of a hold is unknown.
	Exclusion
)

// Properties lists all properties.
var Properties = []Property{P1, P2, P3, Exclusion}

func (p Property) String() string { return [...]string{"P1", "P2", "P3", "exclusion"}[p] }

// rivals reports whether two attempts have a key in common.
func (m *Model) rivals(i, j int) bool { return i != j && m.Attempts[i]&m.Attempts[j] != 0 }

// complete ends an attempt with its token, and reports which properties that breaks.
func (m *Model) complete(s *state, i int) []Property {
	a := &s.attempts[i]
	var broken []Property
	if a.token <= a.bound {
		broken = append(broken, P1)
	}
	for j := range m.Attempts {
		earlier := s.attempts[j]
		if !m.rivals(i, j) || earlier.phase != completed {
			continue
		}
		if a.token == earlier.token {
			broken = append(broken, P2)
		}
		if a.token < earlier.token {
			broken = append(broken, P3)
		}
		if m.Timed && !earlier.over {
			broken = append(broken, Exclusion)
		}
	}
	a.phase = completed
	return broken
}
