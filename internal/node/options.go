package node

import "time"

// ClaimOptions are what a claim asks of the nodes besides its keys. The zero ClaimOptions
// ask for nothing.
type ClaimOptions struct {
	Floor      int64         // the claim has a fence, which is at least this; 0: none
	Retention  time.Duration // how long a node keeps the counters of fences that are not used
	Quarantine time.Duration // how long a node does not vote after it has lost its data; 0: it votes at once
	Metadata   string        // identifies the holder to callers that are refused; in the token, see Tag
}

// MaxFence is the bound of fences: 2^53, up to which Lua's numbers are exact.
const MaxFence = 1 << 53

// Quarantined is the error of a node that may have lost its data, and does not vote
// before Until, by the client's clock.
type Quarantined struct{ Until time.Time }

func (q *Quarantined) Error() string {
	return "quarantined after a restart or data loss until " + q.Until.Format("15:04:05.000Z07:00")
}

// Is matches ErrNotRun.
func (q *Quarantined) Is(target error) bool { return target == ErrNotRun }
