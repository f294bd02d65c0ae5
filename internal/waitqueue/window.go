package waitqueue

import (
	"fmt"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
)

// longWindow is the length above which windows grow less with the round trip.
const longWindow = 4 * time.Second

// A trip is too old after stale, or after four times its length if that is longer: the next
// trip would not be known sooner. After forgotten it is too old in any case: a long trip may
// come from a node that hung or a process that was stopped, not from distance.
const (
	stale     = 2 * time.Second
	forgotten = 10 * time.Second
)

// trip is a measured round trip: the time that a node took to answer a join.
type trip struct {
	took time.Duration
	at   clock.Instant
}

// Trip returns an estimate of the round trip to a quorum of the nodes, 0 if it is not
// known.
func (q *Queue) Trip() time.Duration {
	q.mu.Lock()
	defer q.unlock()
	return q.trip()
}

// trip is Trip. Per node it takes the latest join, if that is recent, but no less than the
// fastest pipelines. q.mu is held.
func (q *Queue) trip() time.Duration {
	var room [node.MaxNodes]time.Duration
	trips, now := room[:q.nodes.Len()], q.clock.Now()
	for i, n := range q.nodes.All() {
		trips[i] = n.Trip()
		if t := q.trips[i]; t.took > trips[i] && now.Sub(t.at) <= min(max(stale, 4*t.took), forgotten) {
			trips[i] = t.took
		}
	}
	slices.Sort(trips)
	return trips[q.need()-1]
}

// windowOf returns the window of a candidate for a lock of this ttl: the time for which a
// grant sets the key. The window grows with the round trip, up to the ttl: at eight trips, a
// push that counts from a join half a window ago is valid for three more. Above longWindow the
// window grows less, because a client that is cut off keeps the key for a window. Where even
// the ttl is too short, the window is the usual one: a longer window would only keep other
// processes from the key. windowOf reports false if grants end before the lock can be
// extended, even when no node is busy: queues are then useless (invariant 13). q.mu is held.
func (q *Queue) windowOf(ttl time.Duration) (time.Duration, bool) {
	trip := q.trip()
	window := min(max(usualWindow, min(8*trip, max(longWindow, 5*trip))), ttl)
	if window < 3*trip {
		window = min(usualWindow, ttl)
	}
	return window, q.clock.Validity(window) > 3*q.nodes.Distance()
}

// tooFar returns the error for a ttl for which windowOf reports false. q.mu is held.
func (q *Queue) tooFar(ttl time.Duration) error {
	window, _ := q.windowOf(ttl)
	return fmt.Errorf("not queued: a grant for the ttl %v would be valid for %v, and three round trips to the nodes take %v: use a longer ttl",
		ttl, q.clock.Validity(window), (3 * q.nodes.Distance()).Round(time.Microsecond))
}
