package fencemodel

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARunIsToldFromItsCountersToTheCompletionThatBreaksTheProperty(t *testing.T) {
	m := with(timed, func(m *Model) { m.Counting = LargestOfQuorum })
	run := m.Explore(P1).Broken[P1]
	require.Equal(t, []string{
		"counters: [0] [0] [1]",
		"node 1 grants to A, counter 1; A has begun with floor 0",
		"node 3 grants to A, counter 2",
		"A hears of the grants of node 1: 1, node 3: 2; A completes with token 2",
		"node 2 grants to B, counter 1; B has begun with floor 0",
		"key a of A is gone from node 1; A is over",
		"node 1 grants to B, counter 2",
		"B hears of the grants of node 1: 2, node 2: 1; B completes with token 2",
	}, run)
}

func TestStatesThatDifferInNamesOnlyAreOne(t *testing.T) {
	m := untimed
	h := newHasher(&m)
	s := m.initial()[1]
	for _, at := range []step{
		{kind: granting, attempt: 0, node: 0, floor: 1},
		{kind: granting, attempt: 1, node: 2, floor: 3},
		{kind: granting, attempt: 0, node: 1},
	} {
		_, ok := m.take(&s, at)
		require.True(t, ok)
	}

	nodes := s
	nodes.columns[0], nodes.columns[2] = s.columns[2], s.columns[0]
	require.NotEqual(t, s, nodes)
	require.Equal(t, h.hash(&s), h.hash(&nodes), "nodes in another order")

	names := s
	names.attempts[0], names.attempts[1] = s.attempts[1], s.attempts[0]
	for n := range m.Nodes {
		names.columns[n] = h.renamed(&s.columns[n], [maxAttempts]uint8{1, 0, 2})
	}
	require.NotEqual(t, s, names)
	require.Equal(t, h.hash(&s), h.hash(&names), "attempts with other names")

	other := s
	other.columns[0].node.counter[0]++
	require.NotEqual(t, h.hash(&s), h.hash(&other), "another counter")
}

func TestInitialStatesAreAllChoicesOfCounters(t *testing.T) {
	m := Model{Nodes: 3, Attempts: attempts(2), Counters: zeroOrOne}
	require.Len(t, m.initial(), 4, "no, one, two or three nodes begin with 1")
}
