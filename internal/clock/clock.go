// Package clock measures validity. Its time is the monotonic time, plus the time for which the
// machine was suspended, plus each step ahead of the wall clock. It never goes back. So after a
// step, validity ends sooner and never later (invariant 1).
package clock

import (
	"math"
	"sync/atomic"
	"time"
)

// Instant is a moment on a Clock.
type Instant time.Duration

// Never is after every other Instant.
const Never = Instant(1<<63 - 1)

// Add returns the instant d later, or Never.
func (i Instant) Add(d time.Duration) Instant {
	if d > 0 && i > Never-Instant(d) {
		return Never
	}
	return i + Instant(d)
}

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Clock tells the time, and how long a lock is valid by it. It is safe for concurrent use.
//
// Linux reports exactly how long the machine was suspended. On other systems, and where a
// hypervisor stopped the whole machine, only the wall clock shows the suspension, once it has
// been corrected. Such a correction looks like any other step ahead.
//
// The steps of the wall clock are measured from the last look. If they were measured from the
// beginning, a wall clock that had been set back by an hour would hide a suspension of less
// than an hour.
type Clock struct {
	drift float64
	last  atomic.Pointer[reckoning]
}

// New returns a Clock. drift is the fraction of a ttl by which the clocks of nodes and clients
// may drift apart.
func New(drift float64) *Clock {
	c := &Clock{drift: drift}
	c.last.Store(&reckoning{look: steady()})
	return c
}

// Now returns the current instant. It reads the monotonic and the wall clock, which are cheap
// to read. It misses a suspension that the wall clock does not show because it was set back by
// as much; Check finds it.
func (c *Clock) Now() Instant {
	last, now := c.last.Load(), time.Now()
	if i, ok := last.instant(look{mono: now, wall: now.Round(0), slept: last.slept}); ok {
		return i
	}
	return c.reckon(steady)
}

// Check is Now, but reads all clocks.
func (c *Clock) Check() Instant {
	if now, ok := c.last.Load().instant(see()); ok {
		return now
	}
	return c.reckon(steady)
}

// Observe is Now by the caller's readings of the monotonic and the wall clock, on a machine
// that was not suspended. Tests step the clocks with it.
func (c *Clock) Observe(mono, wall time.Time) Instant {
	return c.reckon(func() look { return look{mono: mono, wall: wall, slept: c.last.Load().slept} })
}

// Time returns the instant as a time with a monotonic reading. For an instant that the last
// jump skipped, it returns the time of the jump. Earlier jumps are forgotten.
func (c *Clock) Time(i Instant) time.Time {
	r := c.last.Load()
	switch {
	case i <= r.from:
		i = i.Add(r.to.Sub(r.from))
	case i <= r.to:
		i = r.to
	}
	return r.mono.Add(i.Sub(r.at))
}

// Margin is what validity loses in addition to the drift, for timers that fire late
// (https://redis.io/docs/latest/develop/use/patterns/distributed-locks/).
const Margin = 2 * time.Millisecond

// Validity returns how long a lock is valid from the start of the attempt or extension that
// asked for ttl (invariant 1).
func (c *Clock) Validity(ttl time.Duration) time.Duration {
	return ttl - time.Duration(float64(ttl)*c.drift) - Margin
}

// KeyTTL returns the ttl to set on the keys so that a lock is valid for the smaller of
// Validity(ttl) and most. A most of 0 means no limit.
func (c *Clock) KeyTTL(ttl, most time.Duration) time.Duration {
	if most <= 0 || most >= c.Validity(ttl) {
		return ttl
	}
	// The inverse of Validity, plus a millisecond for rounding.
	return min(ttl, time.Duration(math.Ceil(float64(most+Margin)/(1-c.drift)))+time.Millisecond)
}
