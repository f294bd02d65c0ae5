// Package history records what contenders for locks saw, and checks it. It knows nothing of how
// locks are made: it could check a history of any lock.
//
// The properties P1, P2, … are those of proof/README.md. P1 and P2 are checked here
// over histories, with a second opinion on P1 by porcupine. Leaks, keys
// left behind and waits leave no history: the tests that cause them check them.
package history

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Hold is one hold of one key by one contender. Times are since the history
// began, on one monotonic clock; 0 means that it did not happen.
type Hold struct {
	Key       string        `json:"key"`
	Contender int           `json:"contender"`
	Token     string        `json:"token"`
	Fence     int64         `json:"fence,omitempty"` // 0: none
	Sent      time.Duration `json:"sent"`            // before the acquisition was asked for
	Returned  time.Duration `json:"returned"`        // the acquisition had succeeded
	Until     time.Duration `json:"until"`           // the last end of validity that the lock told
	Ended     time.Duration `json:"ended"`           // its ctx was seen to have ended
	Released  time.Duration `json:"released"`        // before the release was asked for
	// What the oracle saw after the ctx had ended by expiry: on Kept nodes no other process could
	// take the key, and Need nodes were needed. Probed is when it had seen all nodes, Expires the
	// earliest time at which the keys may expire.
	Kept    int           `json:"kept,omitempty"`
	Need    int           `json:"need,omitempty"`
	Probed  time.Duration `json:"probed,omitempty"`
	Expires time.Duration `json:"expires,omitempty"`
}

// End is the last moment at which the holder could believe that it held the lock.
func (h Hold) End() time.Duration {
	end := h.Until
	for _, t := range []time.Duration{h.Ended, h.Released} {
		if t > 0 {
			end = min(end, t)
		}
	}
	return end
}

// Fault is one fault of the nodes, from start to end.
type Fault struct {
	Name  string        `json:"name"`
	Start time.Duration `json:"start"`
	End   time.Duration `json:"end"`
}

// Wait is one acquisition, from when it was asked for until it was decided.
type Wait struct {
	Contender int           `json:"contender"`
	Sent      time.Duration `json:"sent"`
	Took      time.Duration `json:"took"`
	Err       string        `json:"err,omitempty"`
}

// History is safe for concurrent recording.
type History struct {
	Holds  []Hold  `json:"holds"`
	Waits  []Wait  `json:"waits"`
	Faults []Fault `json:"faults"`
	Stalls []Fault `json:"stalls"` // when the contenders' own process did not get to run

	mu    sync.Mutex // guards the above while recording
	begin time.Time
}

// New begins a history.
func New() *History { return &History{begin: time.Now()} }

// Now is the time since the history began.
func (h *History) Now() time.Duration { return time.Since(h.begin) }

// At is t as a time since the history began.
func (h *History) At(t time.Time) time.Duration { return t.Sub(h.begin) }

// AddHold records a hold.
func (h *History) AddHold(hold Hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Holds = append(h.Holds, hold)
}

// AddWait records an acquisition.
func (h *History) AddWait(w Wait) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Waits = append(h.Waits, w)
}

// AddFault records a fault.
func (h *History) AddFault(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Faults = append(h.Faults, f)
}

// WatchStalls notes, until stop is closed, when a goroutine that should run every
// millisecond does not: the test sees events late then.
func (h *History) WatchStalls(stop <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last := h.Now(); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		now := h.Now()
		if now-last > 3*time.Millisecond {
			h.mu.Lock()
			h.Stalls = append(h.Stalls, Fault{"stalled", last, now})
			h.mu.Unlock()
		}
		last = now
	}
}

// Violation is a property that did not hold.
type Violation struct {
	Property string
	What     string
}

func (v Violation) String() string { return v.Property + ": " + v.What }

// Check checks P1, by intervals and by porcupine, P2, and P3.
func (h *History) Check() []Violation {
	return slices.Concat(h.Overlaps(), h.Unlinearizable(), h.Unkept(), h.Unfenced(), h.Misordered())
}

// Overlaps checks P1: the holds of one key are disjoint.
func (h *History) Overlaps() []Violation {
	var found []Violation
	for _, holds := range h.byKey() {
		slices.SortFunc(holds, func(a, b Hold) int { return int(a.Returned - b.Returned) })
		for i := 1; i < len(holds); i++ {
			a := slices.MaxFunc(holds[:i], func(a, b Hold) int { return int(a.End() - b.End()) })
			if b := holds[i]; b.Returned < a.End() && b.Returned < b.End() {
				found = append(found, Violation{"P1", fmt.Sprintf("%q: contender %d held it from %v to %v, and contender %d from %v to %v",
					a.Key, a.Contender, a.Returned, a.End(), b.Contender, b.Returned, b.End())})
			}
		}
	}
	return found
}

// Unkept checks P2: when a ctx ended by expiry, no other process could have taken the lock yet.
func (h *History) Unkept() []Violation {
	var found []Violation
	for _, hold := range h.Holds {
		// An oracle that looked too late cannot tell.
		if hold.Probed > 0 && hold.Probed < hold.Expires && hold.Kept < hold.Need {
			found = append(found, Violation{"P2", fmt.Sprintf("%q: the ctx of contender %d ended at %v, valid until %v, and its keys were on %d nodes at %v, %d needed",
				hold.Key, hold.Contender, hold.Ended, hold.Until, hold.Kept, hold.Probed, hold.Need)})
		}
	}
	return found
}

// Unfenced checks the part of P3 that needs no clock: the fences of one key are unique,
// and if one acquisition had returned before another was asked for, the later fence is
// larger.
func (h *History) Unfenced() []Violation {
	var found []Violation
	for _, holds := range h.fenced() {
		seen := make(map[int64]Hold)
		highest := make([]Hold, len(holds)) // of those that returned so early
		for i, b := range holds {
			if a, ok := seen[b.Fence]; ok {
				found = append(found, misnumbered(a, b))
			}
			seen[b.Fence] = b
			if highest[i] = b; i > 0 && highest[i-1].Fence > b.Fence {
				highest[i] = highest[i-1]
			}
			before, _ := slices.BinarySearchFunc(holds[:i], b.Sent, func(a Hold, sent time.Duration) int { return int(a.Returned - sent) })
			if before > 0 && highest[before-1].Fence > b.Fence {
				found = append(found, misnumbered(highest[before-1], b))
			}
		}
	}
	return found
}

// Misordered checks the rest of P3: the fences of one key follow the order of the holds.
// It considers only holds that were still valid when they began: a process that was stopped between
// the grant and its use cannot tell when the grant was.
func (h *History) Misordered() []Violation {
	var found []Violation
	for _, holds := range h.fenced() {
		var highest Hold
		for _, b := range holds {
			switch {
			case b.Returned >= b.End():
			case b.Fence < highest.Fence:
				found = append(found, misnumbered(highest, b))
			default:
				highest = b
			}
		}
	}
	return found
}

// fenced returns the holds of each key that have a fence, in the order in which they
// began.
func (h *History) fenced() map[string][]Hold {
	byKey := h.byKey()
	for key, holds := range byKey {
		holds = slices.DeleteFunc(holds, func(h Hold) bool { return h.Fence == 0 })
		slices.SortFunc(holds, func(a, b Hold) int { return int(a.Returned - b.Returned) })
		byKey[key] = holds
	}
	return byKey
}

func misnumbered(a, b Hold) Violation {
	return Violation{"P3", fmt.Sprintf("%q: contender %d got fence %d, asked for at %v and returned at %v; contender %d got %d, at %v and %v",
		a.Key, a.Contender, a.Fence, a.Sent, a.Returned, b.Contender, b.Fence, b.Sent, b.Returned)}
}

func (h *History) byKey() map[string][]Hold {
	holds := make(map[string][]Hold)
	for _, hold := range h.Holds {
		holds[hold.Key] = append(holds[hold.Key], hold)
	}
	return holds
}

// Summary is what a report says of a history.
type Summary struct {
	Operations, Holds, Lost, Faults int
	Expired                         int           // of the lost: those whose validity had ended
	Lateness                        time.Duration // the latest that a ctx was seen to have ended after its validity
	Unexplained                     time.Duration // the same, without the time for which the process was stalled
	Stall                           time.Duration // the longest that it was
	Slack                           time.Duration // the least that the keys of the expired had left when it was seen
	LongestWait                     time.Duration // of those that were granted
}

// Summary sums the history up.
func (h *History) Summary() Summary {
	s := Summary{Operations: len(h.Waits), Holds: len(h.Holds), Faults: len(h.Faults)}
	for _, w := range h.Waits {
		if w.Err == "" {
			s.LongestWait = max(s.LongestWait, w.Took)
		}
	}
	for _, stall := range h.Stalls {
		s.Stall = max(s.Stall, stall.End-stall.Start)
	}
	for _, hold := range h.Holds {
		if hold.Ended == 0 {
			continue
		}
		s.Lost++
		if hold.Expires == 0 {
			continue
		}
		late := hold.Ended - hold.Until
		s.Lateness = max(s.Lateness, late)
		for _, stall := range h.Stalls {
			late -= max(0, min(hold.Ended, stall.End)-max(hold.Until, stall.Start))
		}
		s.Unexplained = max(s.Unexplained, late)
		s.Expired++
		if slack := hold.Expires - hold.Ended; s.Expired == 1 || slack < s.Slack {
			s.Slack = slack
		}
	}
	return s
}
