package fencemodel

import (
	"os"
	"testing"
	"time"
)

func one(k int) []Keys {
	r := make([]Keys, k)
	for i := range r {
		r[i] = 1
	}
	return r
}

func run(t *testing.T, name string, m Model) {
	st := time.Now()
	r := m.Explore()
	t.Logf("%s: %d states %d steps %v", name, r.States, r.Steps, time.Since(st))
	for _, p := range Properties {
		if tr, ok := r.Broken[p]; ok {
			t.Logf("  broken %v", p)
			if os.Getenv("TR") != "" {
				for _, l := range tr {
					t.Logf("     %s", l)
				}
			}
		}
	}
}

var c = [][]uint8{{0}, {1}}
var f = []uint8{0, 2}
var c1 = [][]uint8{{0}}
var f1 = []uint8{0}

func TestPlain(t *testing.T) {
	for _, timed := range []bool{true, false} {
		run(t, "final n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed})
		run(t, "final reordered n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Reordered: true})
		run(t, "final refill n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Refill: true})
		run(t, "atleast n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Counting: AtLeast})
		run(t, "largest n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Counting: LargestOfQuorum})
		run(t, "first n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Counting: FirstGrant})
		run(t, "unchecked n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Counting: AtLeast, Confirming: Unchecked})
		run(t, "refusers n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Counting: AtLeast, Confirming: RefusersAnswer})
		run(t, "final n4a2 c1", Model{Nodes: 4, Attempts: one(2), Counters: c1, Floors: f, Timed: timed})
		if timed {
			run(t, "final n3a3", Model{Nodes: 3, Attempts: one(3), Counters: c, Floors: f, Timed: timed})
			run(t, "final n4a3", Model{Nodes: 4, Attempts: one(3), Counters: c1, Floors: f, Timed: timed})
			run(t, "unchecked strict n3a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: timed, Confirming: Unchecked})
		}
	}
}

func TestLoss(t *testing.T) {
	run(t, "lost back at once plain timed", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f1, Timed: true, Loss: BackAtOnce})
	run(t, "lost back at once plain timed a3", Model{Nodes: 3, Attempts: one(3), Counters: c1, Floors: f1, Timed: true, Loss: BackAtOnce})
	run(t, "back after locks a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: true, Loss: BackAfterLocks})
	run(t, "back after skew a2", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: true, Loss: BackAfterSkew})
	run(t, "back after skew a3", Model{Nodes: 3, Attempts: one(3), Counters: c1, Floors: f, Timed: true, Loss: BackAfterSkew})
	run(t, "back after skew n4a2", Model{Nodes: 4, Attempts: one(2), Counters: c, Floors: f, Timed: true, Loss: BackAfterSkew})
}

func TestMulti(t *testing.T) {
	for _, timed := range []bool{true, false} {
		run(t, "shared id a2", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f, Timed: timed, SharedID: true})
		if timed {
			run(t, "shared id a3", Model{Nodes: 3, Attempts: one(3), Counters: c1, Floors: f1, Timed: timed, SharedID: true})
		}
		cm := [][]uint8{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}}
		run(t, "multi ab bc", Model{Nodes: 3, Attempts: []Keys{3, 6}, Counters: cm, Floors: f1, Timed: timed})
		run(t, "multi ab a", Model{Nodes: 3, Attempts: []Keys{3, 1}, Counters: cm, Floors: f1, Timed: timed})
		if timed {
			run(t, "multi ab bc a", Model{Nodes: 3, Attempts: []Keys{3, 6, 1}, Counters: cm[:1], Floors: f1, Timed: timed})
		}
	}
}

func TestQ(t *testing.T) {
	run(t, "queue dup timed", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f1, Timed: true, Queue: true, Duplicates: true})
	run(t, "queue timed", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f1, Timed: true, Queue: true})
	run(t, "queue timed a3", Model{Nodes: 3, Attempts: one(3), Counters: c1, Floors: f1, Timed: true, Queue: true})
	run(t, "queue untimed dup", Model{Nodes: 3, Attempts: one(2), Counters: c, Floors: f, Timed: false, Queue: true, Duplicates: true})
	run(t, "queue timed again", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f1, Timed: true, Queue: true, Again: true})
	run(t, "queue timed unseen", Model{Nodes: 3, Attempts: one(2), Counters: c1, Floors: f1, Timed: true, Queue: true, Unseen: true, Again: true})
}
