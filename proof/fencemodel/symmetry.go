package fencemodel

import (
	"hash/maphash"
	"slices"
)

// hasher gives equivalent states the same hash.
type hasher struct {
	model *Model
	seed  maphash.Seed
	alike bool // some attempts differ in nothing but their names
}

func newHasher(m *Model) hasher {
	h := hasher{model: m, seed: maphash.MakeSeed()}
	for i := 1; i < len(m.Attempts) && !m.SharedID; i++ {
		h.alike = h.alike || m.Attempts[i] == m.Attempts[i-1]
	}
	return h
}

// hash is the same for states that differ only in the order of their nodes, and nearly
// always for those that differ only in the names of attempts that are alike.
func (h *hasher) hash(s *state) uint64 {
	var parts struct {
		columns  [maxNodes]uint64
		attempts [maxAttempts]attempt
		lost     loss
		mark     uint8
	}
	parts.attempts, parts.lost, parts.mark = s.attempts, s.lost, s.mark
	order := [maxAttempts]uint8{0, 1, 2}
	if h.alike {
		order = h.order(s)
	}
	if order == [maxAttempts]uint8{0, 1, 2} {
		for n := range h.model.Nodes {
			parts.columns[n] = maphash.Comparable(h.seed, s.columns[n])
		}
	} else {
		for n := range h.model.Nodes {
			parts.columns[n] = maphash.Comparable(h.seed, h.renamed(&s.columns[n], order))
		}
		for i, was := range order {
			parts.attempts[i] = s.attempts[was]
		}
	}
	slices.Sort(parts.columns[:h.model.Nodes])
	return maphash.Comparable(h.seed, parts)
}

// order sorts attempts that are alike by the parts of the state that do not depend on
// their names.
func (h *hasher) order(s *state) [maxAttempts]uint8 {
	order := [maxAttempts]uint8{0, 1, 2}
	var signs [maxAttempts]uint64
	for i := range h.model.Attempts {
		var sign struct {
			links   [maxNodes]uint64
			attempt attempt
		}
		for n := range h.model.Nodes {
			sign.links[n] = maphash.Comparable(h.seed, h.view(&s.columns[n], i))
		}
		slices.Sort(sign.links[:h.model.Nodes])
		sign.attempt = s.attempts[i]
		signs[i] = maphash.Comparable(h.seed, sign)
	}
	for i := range h.model.Attempts {
		for j := i; j > 0 && h.model.Attempts[j] == h.model.Attempts[j-1] && signs[order[j]] < signs[order[j-1]]; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	return order
}

// view is the state between one attempt and one node.
type view struct {
	link link
	node node // with 1 for a key that is the attempt's own, and 2 for another's
}

func (h *hasher) view(c *column, i int) view {
	v := view{c.links[i], c.node}
	for key := range h.model.keys() {
		switch owner := c.node.owner[key]; owner {
		case 0:
		case uint8(i + 1):
			v.node.owner[key] = 1
		default:
			v.node.owner[key] = 2
		}
	}
	return v
}

// renamed returns a column with the attempts in another order.
func (h *hasher) renamed(c *column, order [maxAttempts]uint8) column {
	r := *c
	for i, was := range order {
		r.links[i] = c.links[was]
		for key := range h.model.keys() {
			if c.node.owner[key] == was+1 {
				r.node.owner[key] = uint8(i + 1)
			}
		}
	}
	return r
}
