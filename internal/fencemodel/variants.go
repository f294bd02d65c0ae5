package fencemodel

// Variant is a way to choose tokens, and what it breaks.
type Variant struct {
	Name   string
	Models []Model    // where it is checked
	Breaks []Property // what it breaks in some of them; the others hold in all
	Enough bool       // the search ends once it has found these; nothing is said of the others
}

// The domains of counters and floors. A floor of 2 is above the next counter of a node
// that begins with 0, and equal to that of a node that begins with 1.
var (
	zero      = [][]uint8{{0}}
	zeroOrOne = [][]uint8{{0}, {1}}
	noFloor   = []uint8{0}
	twoFloors = []uint8{0, 2}
)

// The worlds that most variants are checked in.
var (
	untimed = Model{Nodes: 3, Attempts: attempts(2), Counters: zeroOrOne, Floors: twoFloors}
	timed   = Model{Nodes: 3, Attempts: attempts(3), Counters: zeroOrOne, Floors: twoFloors, Timed: true}
)

// attempts are n attempts for one key.
func attempts(n int) []Keys {
	all := make([]Keys, n)
	for i := range all {
		all[i] = 1
	}
	return all
}

// with is a model with changes.
func with(m Model, change func(*Model)) Model {
	change(&m)
	return m
}

// fewer is a model with the smallest domain of counters.
func fewer(m Model) Model { return with(m, func(m *Model) { m.Counters = zero }) }

// Variants are what the tests check: the rule as it is built first.
func Variants() []Variant {
	all := []Variant{
		{"the rule, untimed", []Model{
			untimed,
			with(untimed, func(m *Model) { m.Reordered, m.Floors = true, noFloor }),
			with(untimed, func(m *Model) { m.Refill, m.Floors = true, noFloor }),
			with(untimed, func(m *Model) { m.Nodes, m.Counters, m.Floors = 4, zero, noFloor }),
		}, []Property{P3}, false},
		{"the rule, timed", []Model{
			timed,
			with(fewer(timed), func(m *Model) { m.Reordered, m.Refill = true, true }),
			with(fewer(timed), func(m *Model) { m.Nodes, m.Floors = 4, noFloor }),
			with(timed, func(m *Model) { m.Nodes, m.Attempts = 4, attempts(2) }),
		}, nil, false},
	}
	all = append(all, wrongRules()...)
	all = append(all, losses()...)
	all = append(all, severalKeys()...)
	return append(all, queues()...)
}

// wrongRules are other rules that look right.
func wrongRules() []Variant {
	changed := func(m Model, counting Counting, confirming Confirming) Model {
		m.Counting, m.Confirming = counting, confirming
		return m
	}
	return []Variant{
		{"largest counter of the quorum, nothing written back", []Model{changed(timed, LargestOfQuorum, OwnerChecked)}, []Property{P1, P2, P3}, false},
		{"write-back without owner check, timed", []Model{changed(fewer(timed), AtLeast, Unchecked)}, []Property{P2, P3}, false},
		{"write-back without owner check, untimed", []Model{changed(fewer(untimed), AtLeast, Unchecked)}, []Property{P2, P3}, false},
		{"confirm without owner check, timed", []Model{with(timed, func(m *Model) { m.Attempts, m.Confirming = attempts(2), Unchecked })}, []Property{P2}, false},
		{"refusing nodes counted, untimed", []Model{changed(fewer(untimed), AtLeast, RefusersAnswer)}, []Property{P2, P3}, false},
		{"refusing nodes counted, timed", []Model{with(changed(fewer(timed), AtLeast, RefusersAnswer), func(m *Model) { m.Floors = noFloor })}, []Property{P2}, false},
		{"owner-checked write-back, untimed", []Model{changed(untimed, AtLeast, OwnerChecked)}, []Property{P2, P3}, false},
		{"owner-checked write-back, timed", []Model{changed(timed, AtLeast, OwnerChecked)}, nil, false},
		{"token from the first grant alone, timed", []Model{changed(fewer(timed), FirstGrant, OwnerChecked)}, []Property{P1, P2, P3}, false},
		{"one id for all attempts of a client, timed", []Model{with(fewer(timed), func(m *Model) { m.SharedID, m.Floors = true, noFloor })}, []Property{P3, Exclusion}, true},
	}
}

// losses are what becomes of the rule when a node loses its data. The restart guard is
// the last of them.
func losses() []Variant {
	lossy := func(m Model, loss Loss) Model {
		m.Loss = loss
		return m
	}
	pair := with(timed, func(m *Model) { m.Attempts = attempts(2) })
	return []Variant{
		{"one node loses its data and votes at once", []Model{lossy(with(fewer(timed), func(m *Model) { m.Floors = noFloor }), BackAtOnce)},
			[]Property{P1, P2, P3, Exclusion}, false},
		{"it votes again after the locks, but not the skew", []Model{lossy(pair, BackAfterLocks)}, []Property{P1, P2, P3}, false},
		{"it votes again after the locks and the skew", []Model{
			lossy(pair, BackAfterSkew),
			lossy(with(fewer(timed), func(m *Model) { m.Floors = noFloor }), BackAfterSkew),
			lossy(with(pair, func(m *Model) { m.Nodes = 4 }), BackAfterSkew),
		}, nil, false},
	}
}

// severalKeys are locks of several keys, some of which others lock too.
func severalKeys() []Variant {
	const a, b, c Keys = 1, 2, 4
	keys := func(m Model, attempts ...Keys) Model {
		m.Attempts, m.Counters, m.Floors = attempts, [][]uint8{{0, 0, 0}}, noFloor
		return m
	}
	differ := func(m Model) Model {
		m.Counters = [][]uint8{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}}
		return m
	}
	return []Variant{
		{"several keys, untimed", []Model{keys(untimed, a|b, a)}, []Property{P3}, false},
		{"several keys, timed", []Model{
			differ(keys(timed, a|b, a)),
			differ(keys(timed, a|b, b|c)),
			keys(timed, a|b, b|c, a),
		}, nil, false},
	}
}

// queues are locks that releases grant to those who wait.
func queues() []Variant {
	queue := Model{Nodes: 3, Attempts: attempts(2), Counters: zero, Floors: noFloor, Queue: true}
	inTime := with(queue, func(m *Model) { m.Timed = true })
	return []Variant{
		{"queues, untimed", []Model{
			with(queue, func(m *Model) { m.Floors, m.Duplicates = twoFloors, true }),
		}, []Property{P3}, false},
		{"queues, timed", []Model{
			with(inTime, func(m *Model) { m.Counters, m.Floors, m.Duplicates = zeroOrOne, twoFloors, true }),
			with(inTime, func(m *Model) { m.Again = true }),
		}, nil, false},
		{"a late push counts as a new one, timed", []Model{with(inTime, func(m *Model) { m.Stale = true })}, []Property{P3, Exclusion}, true},
		{"a confirm makes a vote of a grant not heard of, timed", []Model{with(inTime, func(m *Model) { m.Again, m.Unseen = true, true })}, []Property{P3}, true},
	}
}

// Wide are larger worlds for the rule as it is built, for those who have minutes.
func Wide() []Variant {
	const a, b, c Keys = 1, 2, 4
	queue := Model{Nodes: 3, Attempts: attempts(3), Counters: zero, Floors: noFloor, Queue: true, Timed: true}
	return []Variant{
		{"wide: the rule, untimed", []Model{
			with(untimed, func(m *Model) { m.Reordered, m.Refill = true, true }),
			with(fewer(untimed), func(m *Model) { m.Attempts, m.Floors = attempts(3), noFloor }),
			with(fewer(untimed), func(m *Model) { m.Nodes = 4 }),
		}, []Property{P3}, false},
		{"wide: the rule, timed", []Model{
			with(timed, func(m *Model) { m.Counters = [][]uint8{{0}, {1}, {2}}; m.Floors = []uint8{0, 2, 3} }),
			with(timed, func(m *Model) { m.Nodes = 4 }),
		}, nil, false},
		{"wide: after a loss", []Model{with(timed, func(m *Model) { m.Loss = BackAfterSkew })}, nil, false},
		{"wide: several keys, untimed", []Model{with(untimed, func(m *Model) {
			m.Attempts, m.Counters, m.Floors = []Keys{a | b, b | c}, [][]uint8{{0, 0, 0}}, noFloor
		})}, []Property{P3}, false},
		{"wide: several keys, timed", []Model{with(timed, func(m *Model) {
			m.Attempts, m.Counters = []Keys{a | b, b | c, a}, [][]uint8{{0, 0, 0}, {1, 0, 0}}
		})}, nil, false},
		{"wide: queues, timed", []Model{queue, with(queue, func(m *Model) { m.Attempts, m.Nodes = attempts(2), 4 })}, nil, false},
		{"wide: queues, untimed", []Model{with(queue, func(m *Model) { m.Attempts, m.Timed, m.Again = attempts(2), false, true })}, []Property{P3}, false},
	}
}
