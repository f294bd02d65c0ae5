package node

import (
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// flights are the pipelines that are under way to one server. They have a mutex of their own:
// in a burst thousands of callers wait for the Node's mutex, and an answer that has arrived
// must not seem outstanding for so long.
type flights struct {
	mu  sync.Mutex // guards all, and the flights' fields
	all []*flight
}

// flight is the pipeline that a worker has under way. A worker reuses its flight for all
// its pipelines. That is safe: before the next pipeline begins, every caller that may ask
// for the progress of the last one has been answered, or given another Progress.
type flight struct {
	flights *flights
	sent    time.Time
	since   time.Time // the time of the last answer to a pipeline sent no later than shuffle after this one; before the first, sent
}

// Pipelines that are marked as sent within shuffle of each other may leave in either
// order: on a busy machine the workers run in any order.
const shuffle = 250 * time.Millisecond

var _ quorum.Progress = (*flight)(nil)

// Since implements quorum.Progress.
func (f *flight) Since() time.Time {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	return f.since
}

// prepare begins a flight, before its handlers are called with it.
func (f *flight) prepare(now time.Time) {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	f.sent, f.since = now, now
}

// leave notes that the pipeline is sent now. The server is not charged with the time since
// prepare, which may be long on a busy machine.
func (f *flight) leave() {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	f.sent = time.Now()
	f.since = f.sent
	f.flights.all = append(f.flights.all, f)
}

// land notes that the pipeline has ended. If it was answered, the server also makes progress
// with the pipelines that were sent after it. A pipeline that was sent long before this one,
// and is still under way, is on another connection, which may hang.
func (f *flight) land(now time.Time, answered bool) {
	fs := f.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = slices.DeleteFunc(fs.all, func(other *flight) bool { return other == f })
	if !answered {
		return
	}
	for _, other := range fs.all {
		if other.sent.Add(shuffle).After(f.sent) {
			other.since = now
		}
	}
}
