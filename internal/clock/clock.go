// Package clock is the one clock by which validity is measured: monotonic time, which also
// goes forward by the time for which the machine was suspended and by each step ahead of the
// wall clock. It never goes back. So validity ends sooner after a step, and never later
// (invariant 1).
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
// Linux tells exactly how long it was suspended. On other systems, and where a hypervisor
// stopped the whole machine, only the wall clock shows it, once it has been set right. That
// cannot be told from any other step ahead.
//
// The wall clock's steps are measured from the last look. Were they measured from the
// beginning, a wall clock that had been set back by an hour would hide a suspension of less
// than an hour.
type Clock struct {
	drift float64
	last  atomic.Pointer[reckoning]
}

// New returns a Clock. drift is the part of a ttl by which the clocks of nodes and clients
// may drift apart.
func New(drift float64) *Clock {
	c := &Clock{drift: drift}
	c.last.Store(&reckoning{look: steady()})
	return c
}

// Now returns the current instant, by the monotonic and the wall clock, which are all that
// is cheap to read. A suspension that the wall clock does not show, since it was set back by
// as much, is seen by Check.
func (c *Clock) Now() Instant {
	last, now := c.last.Load(), time.Now()
	if i, ok := last.instant(look{mono: now, wall: now.Round(0), slept: last.slept}); ok {
		return i
	}
	return c.reckon(steady)
}

// Check is Now by all clocks.
func (c *Clock) Check() Instant {
	if now, ok := c.last.Load().instant(see()); ok {
		return now
	}
	return c.reckon(steady)
}

// Observe is Now by a reading of the monotonic and of the wall clock that the caller made,
// on a machine that was not suspended. Tests step the clocks with it.
func (c *Clock) Observe(mono, wall time.Time) Instant {
	return c.reckon(func() look { return look{mono: mono, wall: wall, slept: c.last.Load().slept} })
}

// Time returns the instant as a time with a monotonic reading. For an instant that a jump
// skipped it is the time of the jump. Only the last jump is known.
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

// Margin is the part of validity that is left to timers that fire late, beside the drift
// (https://redis.io/docs/latest/develop/use/patterns/distributed-locks/).
const Margin = 2 * time.Millisecond

// Validity returns how long a lock is valid from the start of the attempt or extension that
// asked for ttl (invariant 1).
func (c *Clock) Validity(ttl time.Duration) time.Duration {
	return ttl - time.Duration(float64(ttl)*c.drift) - Margin
}

// KeyTTL returns the ttl to set on the keys so that a lock is valid for the smaller of
// Validity(ttl) and most. A most of 0 is no limit.
func (c *Clock) KeyTTL(ttl, most time.Duration) time.Duration {
	if most <= 0 || most >= c.Validity(ttl) {
		return ttl
	}
	// Validity's inverse, and a millisecond for what is rounded.
	return min(ttl, time.Duration(math.Ceil(float64(most+Margin)/(1-c.drift)))+time.Millisecond)
}
