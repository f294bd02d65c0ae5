package fencemodel

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	lib "github.com/redis-kit/redlock/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onStage reports whether the stage can play a model: three nodes, without queues and extensions.
// With four nodes the library hears of several confirms at once.
func (m *Model) onStage() bool { return m.Nodes == 3 && !m.Queue && !m.Refill }

// isRule reports whether the rules of a model are those of the library.
func (m *Model) isRule() bool {
	return m.Counting == Strict && m.Confirming == OwnerChecked && !m.SharedID && !m.Early
}

// floors returns the floor of each attempt of a run.
func (m *Model) floorsOf(s state, steps []step) []uint8 {
	floors := make([]uint8, len(m.Attempts))
	for _, at := range steps {
		m.take(&s, at)
		for i := range floors {
			if s.attempts[i].phase != idle && floors[i] == 0 {
				floors[i] = s.attempts[i].floor
			}
		}
	}
	return floors
}

// eachBreach calls f with the shortest run that breaks a property, for each property of each model
// that is wanted.
func eachBreach(t *testing.T, variants []Variant, wanted func(m *Model, p Property) bool, f func(t *testing.T, m *Model, p Property, first state, steps []step)) {
	for _, v := range variants {
		for _, m := range v.Models {
			breaks := slices.DeleteFunc(slices.Clone(v.Breaks), func(p Property) bool { return !m.onStage() || !wanted(&m, p) })
			if len(breaks) == 0 {
				continue
			}
			e := m.search(breaks)
			for _, p := range breaks {
				t.Run(v.Name+"/"+p.String(), func(t *testing.T) {
					first, steps := e.trace(e.broken[p])
					f(t, &m, p, first, steps)
					if t.Failed() {
						t.Log(strings.Join(m.tell(first, steps), "\n"))
					}
				})
			}
		}
	}
}

// Where the rule itself breaks a property (untimed, or after a loss without a guard that is long
// enough), the library takes the same run, step by step, to the same fences.
func TestTheLibraryTakesTheRunsThatBreakTheRule(t *testing.T) {
	wanted := func(m *Model, _ Property) bool { return m.isRule() }
	eachBreach(t, Variants(), wanted, func(t *testing.T, m *Model, p Property, first state, steps []step) {
		perform(t, m, first, m.floorsOf(first, steps), nil, func(s *stage) {
			now := first
			for _, at := range steps {
				require.True(t, s.follows(&now, at))
				m.take(&now, at)
				s.take(at, func(i int) bool { return now.attempts[i].over })
				s.compare(&now)
			}
			require.Contains(t, s.broken(), p)
		})
	})
}

// follows reports whether the library acts on a step as the model does. The one
// difference is that the library ignores answers that it no longer waits for. In the
// model the client may hear them or not, and both are runs of the model.
func (s *stage) follows(now *state, at step) bool {
	if at.kind != answering {
		return true
	}
	c := s.attempts[at.attempt].wires[at.node].reply(int(at.what))
	return c.kind == lib.Confirm && c.fence-s.base == int64(now.attempts[at.attempt].confirmed)
}

// Random runs of the rule: after each step the library has the same counters, owners and fences as
// the model.
func TestTheLibraryTakesRandomRunsOfTheRule(t *testing.T) {
	const runs = 100
	for _, v := range Variants() {
		for _, m := range v.Models {
			if !m.onStage() || !m.isRule() {
				continue
			}
			t.Run(v.Name, func(t *testing.T) {
				m.Reordered = true // so that no answer that is ignored holds up another
				steps, completions := 0, 0
				for seed := range uint64(runs) {
					a, b := walk(t, &m, rand.New(rand.NewPCG(seed, 0)))
					steps, completions = steps+a, completions+b
				}
				t.Logf("%d attempts: %d steps, %d completions in %d runs", len(m.Attempts), steps, completions, runs)
				require.Greater(t, completions, runs/2)
			})
		}
	}
}

// walk takes a random run, in the model and on the stage at once.
func walk(t *testing.T, m *Model, r *rand.Rand) (steps, completions int) {
	initial := m.initial()
	now := initial[r.IntN(len(initial))]
	floors := make([]uint8, len(m.Attempts))
	for i := range floors {
		floors[i] = m.Floors[r.IntN(len(m.Floors))]
	}
	if m.Loss == BackAfterSkew && r.IntN(2) == 0 { // the last attempt begins after the loss
		floors[len(floors)-1] = 2 + uint8(r.IntN(2))
	}
	perform(t, m, now, floors, nil, func(s *stage) {
		for range 60 {
			var next []step
			m.next(&now, func(at step) {
				after := now
				if _, ok := m.take(&after, at); !ok || !s.follows(&now, at) || starts(&now, &after, floors) {
					return
				}
				// Keys go and data is lost less often than the rest happens.
				if rare, ok := map[kind]int{expiring: 6, losing: 20}[at.kind]; !ok || r.IntN(rare) == 0 {
					next = append(next, at)
				}
			})
			if len(next) == 0 {
				break
			}
			at := next[r.IntN(len(next))]
			m.take(&now, at)
			s.take(at, func(i int) bool { return now.attempts[i].over })
			s.compare(&now)
			steps++
		}
		completions = len(s.order)
	})
	return steps, completions
}

// starts reports whether an attempt begins with another floor than it was called with.
func starts(before, after *state, floors []uint8) bool {
	for i, floor := range floors {
		if before.attempts[i].phase == idle && after.attempts[i].phase != idle && after.attempts[i].floor != floor {
			return true
		}
	}
	return false
}

// The runs that break a wrong rule do not break the rule of the library: on the same nodes, in the
// same order, the library comes to other fences, or to none.
func TestTheLibrarySurvivesTheRunsThatBreakAWrongRule(t *testing.T) {
	wanted := func(m *Model, p Property) bool {
		return !m.isRule() && (m.Timed || p != P3) // untimed, the rule breaks P3, too
	}
	eachBreach(t, append(Variants(), Mistakes()...), wanted, func(t *testing.T, m *Model, p Property, first state, steps []step) {
		s := survive(t, m, first, steps)
		require.NotContains(t, s.broken(), p)
	})
}

// The restart guard: a node that has lost its data does not vote.
func TestTheRestartGuardSurvivesALossOfData(t *testing.T) {
	wanted := func(m *Model, _ Property) bool { return m.Loss == BackAtOnce }
	eachBreach(t, losses(), wanted, func(t *testing.T, m *Model, p Property, first state, steps []step) {
		s := survive(t, m, first, steps, redlock.WithRestartGuard(time.Hour, time.Second))
		require.NotContains(t, s.broken(), p)
	})
}

// survive takes the steps of a run as long as they have an effect, and then lets through
// everything that is on its way.
func survive(t *testing.T, m *Model, first state, steps []step, opts ...redlock.Option) (s *stage) {
	perform(t, m, first, m.floorsOf(first, steps), opts, func(on *stage) {
		s = on
		now := first
		for _, at := range steps {
			m.take(&now, at)
			s.take(at, func(i int) bool { return now.attempts[i].over })
		}
		for _, p := range s.attempts {
			for _, w := range p.wires {
				w.pass()
			}
		}
		time.Sleep(time.Millisecond)
		s.note()
	})
	return s
}
