package fencemodel

// Variant is a way to choose tokens, and what it breaks.
type Variant struct {
	Name   string
	Models []Model    // where it is checked
	Breaks []Property // what it breaks in some of them; the others hold in all
}

// Variants are the variants that the tests check. The first are the rule as it is built.
func Variants() []Variant {
	all := []Variant{
		{"the rule, untimed", []Model{
			untimed,
			with(untimed, func(m *Model) { m.Reordered, m.Floors = true, noFloor }),
			with(untimed, func(m *Model) { m.Refill, m.Floors = true, noFloor }),
			with(untimed, func(m *Model) { m.Nodes, m.Counters, m.Floors = 4, zero, noFloor }),
		}, []Property{P3}},
		{"the rule, timed", []Model{
			timed,
			with(fewer(timed), func(m *Model) { m.Reordered, m.Refill = true, true }),
			with(fewer(timed), func(m *Model) { m.Nodes, m.Floors = 4, noFloor }),
			with(timed, func(m *Model) { m.Nodes, m.Attempts = 4, attempts(2) }),
		}, nil},
	}
	all = append(all, wrongRules()...)
	all = append(all, losses()...)
	all = append(all, severalKeys()...)
	return append(all, queues()...)
}

// Wide are larger worlds for the rule as it is built. They take minutes.
func Wide() []Variant {
	const a, b, c Keys = 1, 2, 4
	inTime := with(queue, func(m *Model) { m.Timed = true })
	return []Variant{
		{"wide: the rule, untimed", []Model{
			with(untimed, func(m *Model) { m.Reordered, m.Refill = true, true }),
			with(fewer(untimed), func(m *Model) { m.Attempts, m.Floors = attempts(3), noFloor }),
			with(fewer(untimed), func(m *Model) { m.Nodes = 4 }),
		}, []Property{P3}},
		{"wide: the rule, timed", []Model{
			with(timed, func(m *Model) { m.Counters = [][]uint8{{0}, {1}, {2}}; m.Floors = []uint8{0, 2, 3} }),
			with(timed, func(m *Model) { m.Nodes = 4 }),
		}, nil},
		{"wide: after a loss", []Model{with(timed, func(m *Model) { m.Loss = BackAfterSkew })}, nil},
		{"wide: several keys, untimed", []Model{with(untimed, func(m *Model) {
			m.Attempts, m.Counters, m.Floors = []Keys{a | b, b | c}, [][]uint8{{0, 0, 0}}, noFloor
		})}, []Property{P3}},
		{"wide: several keys, timed", []Model{with(timed, func(m *Model) {
			m.Attempts, m.Counters = []Keys{a | b, b | c, a}, [][]uint8{{0, 0, 0}, {1, 0, 0}}
		})}, nil},
		{"wide: queues, timed", []Model{
			with(inTime, func(m *Model) { m.Attempts, m.Floors = attempts(3), twoFloors }),
			with(inTime, func(m *Model) { m.Nodes, m.Floors = 4, twoFloors }),
			with(inTime, func(m *Model) { m.Counters, m.Floors, m.Again = zeroOrOne, twoFloors, true }),
		}, nil},
		{"wide: queues, after a loss", []Model{
			with(inTime, func(m *Model) { m.Attempts, m.Loss = attempts(3), BackAfterSkew }),
			with(inTime, func(m *Model) { m.Nodes, m.Loss = 4, BackAfterSkew }),
			with(inTime, func(m *Model) { m.Again, m.Loss = true, BackAfterSkew }),
		}, nil},
		{"wide: queues, untimed", []Model{with(queue, func(m *Model) { m.Again = true })}, []Property{P3}},
	}
}

// Mistakes are variants with a plausible mistake. What else they break does not matter.
func Mistakes() []Variant {
	inTime := with(queue, func(m *Model) { m.Timed = true })
	return []Variant{
		{"confirm without owner check, timed", []Model{with(timed, func(m *Model) { m.Attempts, m.Confirming = attempts(2), Unchecked })}, []Property{P2}},
		{"token from the first grant alone, timed", []Model{with(fewer(timed), func(m *Model) { m.Counting = FirstGrant })}, []Property{P1, P2, P3}},
		{"one id for all attempts of a client, timed", []Model{with(fewer(timed), func(m *Model) { m.SharedID, m.Floors = true, noFloor })}, []Property{P3, Exclusion}},
		{"a late push counts as a new one, timed", []Model{with(inTime, func(m *Model) { m.Stale = true })}, []Property{P3, Exclusion}},
		{"a waiter keeps its first floor, after a loss", []Model{with(inTime, func(m *Model) { m.Loss, m.OldFloor = BackAfterSkew, true })}, []Property{P3}},
		{"a confirm makes a vote, timed", []Model{with(inTime, func(m *Model) { m.Again, m.Confirmed = true, true })}, []Property{P3}},
		{"an extension before nodes agree on the token, untimed", []Model{with(untimed, func(m *Model) { m.Refill, m.Early, m.Floors = true, true, noFloor })}, []Property{P2}},
	}
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
	queue   = Model{Nodes: 3, Attempts: attempts(2), Counters: zero, Floors: noFloor, Queue: true}
)

// attempts returns n attempts for one key.
func attempts(n int) []Keys {
	all := make([]Keys, n)
	for i := range all {
		all[i] = 1
	}
	return all
}

// with returns a model with changes.
func with(m Model, change func(*Model)) Model {
	change(&m)
	return m
}

// fewer returns a model with the smallest domain of counters.
func fewer(m Model) Model { return with(m, func(m *Model) { m.Counters = zero }) }

// wrongRules are other rules that look right.
func wrongRules() []Variant {
	changed := func(m Model, counting Counting, confirming Confirming) Model {
		m.Counting, m.Confirming = counting, confirming
		return m
	}
	return []Variant{
		{"largest counter of the quorum, nothing written back", []Model{changed(timed, LargestOfQuorum, OwnerChecked)}, []Property{P1, P2, P3}},
		{"write-back without owner check, timed", []Model{changed(fewer(timed), AtLeast, Unchecked)}, []Property{P2, P3}},
		{"write-back without owner check, untimed", []Model{changed(fewer(untimed), AtLeast, Unchecked)}, []Property{P2, P3}},
		{"refusing nodes counted, untimed", []Model{changed(fewer(untimed), AtLeast, RefusersAnswer)}, []Property{P2, P3}},
		{"refusing nodes counted, timed", []Model{with(changed(fewer(timed), AtLeast, RefusersAnswer), func(m *Model) { m.Floors = noFloor })}, []Property{P2}},
		{"owner-checked write-back, untimed", []Model{changed(untimed, AtLeast, OwnerChecked)}, []Property{P2, P3}},
		{"owner-checked write-back, timed", []Model{changed(timed, AtLeast, OwnerChecked)}, nil},
	}
}

// losses show the rule when a node loses its data. The last of them has the restart guard.
func losses() []Variant {
	lossy := func(m Model, loss Loss) Model {
		m.Loss = loss
		return m
	}
	pair := with(timed, func(m *Model) { m.Attempts = attempts(2) })
	return []Variant{
		{"a node loses its data and votes at once, no guard", []Model{lossy(with(fewer(timed), func(m *Model) { m.Floors = noFloor }), BackAtOnce)},
			[]Property{P1, P2, P3, Exclusion}},
		{"a guard for the longest ttl only", []Model{lossy(pair, BackAfterLocks)}, []Property{P1, P2, P3}},
		{"the restart guard, or as long away", []Model{
			lossy(pair, BackAfterSkew),
			lossy(with(fewer(timed), func(m *Model) { m.Floors = noFloor }), BackAfterSkew),
			lossy(with(pair, func(m *Model) { m.Nodes = 4 }), BackAfterSkew),
		}, nil},
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
		{"several keys, untimed", []Model{keys(untimed, a|b, a)}, []Property{P3}},
		{"several keys, timed", []Model{
			differ(keys(timed, a|b, a)),
			differ(keys(timed, a|b, b|c)),
			keys(timed, a|b, b|c, a),
		}, nil},
	}
}

// queues are locks that releases grant to waiters.
func queues() []Variant {
	inTime := with(queue, func(m *Model) { m.Timed = true })
	return []Variant{
		{"queues, untimed", []Model{
			with(queue, func(m *Model) { m.Floors = twoFloors }),
		}, []Property{P3}},
		{"queues, timed", []Model{
			with(inTime, func(m *Model) { m.Counters, m.Floors = zeroOrOne, twoFloors }),
			with(inTime, func(m *Model) { m.Again = true }),
		}, nil},
		{"queues, after a loss with the restart guard, or as long away", []Model{
			with(inTime, func(m *Model) { m.Loss = BackAfterSkew }),
			with(inTime, func(m *Model) { m.Counters, m.Floors, m.Loss = zeroOrOne, twoFloors, BackAfterSkew }),
		}, nil},
	}
}
