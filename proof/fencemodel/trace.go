package fencemodel

import (
	"fmt"
	"strings"
)

// tell runs steps from a state and returns a sentence for each.
func (m *Model) tell(s state, steps []step) []string {
	var begin []string
	for n := range m.Nodes {
		begin = append(begin, fmt.Sprintf("%d", s.columns[n].node.counter[:m.keys()]))
	}
	lines := []string{"counters: " + strings.Join(begin, " ")}
	for _, at := range steps {
		before := s
		m.take(&s, at)
		lines = append(lines, m.describe(&before, &s, at)+consequences(&before, &s))
	}
	return lines
}

// describe returns a sentence about a step.
func (m *Model) describe(before, after *state, at step) string {
	i, n := int(at.attempt), int(at.node)
	was, is := &before.columns[n], &after.columns[n]
	who, node := name(i), n+1
	key := 0
	for !m.Attempts[i].has(key) {
		key++
	}
	switch at.kind {
	case granting:
		return fmt.Sprintf("node %d grants to %s, counter %d", node, who, is.node.counter[key])
	case gathering:
		var heard []string
		for n := range m.Nodes {
			if at.what>>n&1 == 1 {
				heard = append(heard, fmt.Sprintf("node %d: %d", n+1, before.columns[n].links[i].answers[at.to>>n&1]&valueMask))
			}
		}
		return fmt.Sprintf("%s hears of the grants of %s", who, strings.Join(heard, ", "))
	case answering:
		got := was.links[i].answers[at.what]
		what := "grant"
		if got&toConfirm != 0 {
			what = "answer to a confirm"
		}
		return fmt.Sprintf("%s hears of the %s of node %d: %d", who, what, node, got&valueMask)
	case joining:
		return fmt.Sprintf("node %d runs a JOIN of %s with floor %d, which has the key, counter %d -> %d", node, who, at.floor-1, was.node.counter[key], is.node.counter[key])
	case confirming:
		return fmt.Sprintf("node %d runs a confirm of %s for %d, counter %d -> %d", node, who, was.links[i].confirms[at.what],
			was.node.counter[key], is.node.counter[key])
	case expiring:
		return fmt.Sprintf("key %c of %s is gone from node %d", 'a'+at.what, who, node)
	case handing:
		return fmt.Sprintf("node %d runs a release by %s and grants to %s, counter %d", node, who, name(int(at.to)), is.node.counter[key])
	case refilling:
		return fmt.Sprintf("%s sets its keys again at node %d", who, node)
	case losing:
		return fmt.Sprintf("node %d loses its data", node)
	default:
		return fmt.Sprintf("node %d votes again", node)
	}
}

// consequences returns what a step changed for the attempts.
func consequences(before, after *state) string {
	var text strings.Builder
	for i := range maxAttempts {
		was, is := before.attempts[i], after.attempts[i]
		if was.phase == idle && is.phase != idle {
			fmt.Fprintf(&text, "; %s has begun with floor %d", name(i), is.floor)
		}
		if is.confirmed > was.confirmed {
			fmt.Fprintf(&text, "; %s sends confirms for %d", name(i), is.confirmed)
		}
		if was.phase != completed && is.phase == completed {
			fmt.Fprintf(&text, "; %s completes with token %d", name(i), is.token)
		}
		if !was.over && is.over {
			fmt.Fprintf(&text, "; %s is over", name(i))
		}
	}
	return text.String()
}

// name returns the name of an attempt.
func name(i int) string { return string(rune('A' + i)) }
