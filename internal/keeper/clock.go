package keeper

import (
	"sync/atomic"
	"time"
)

// Instant is a moment on a Keeper's clock.
type Instant time.Duration

// Add is the instant d later, or never.
func (i Instant) Add(d time.Duration) Instant {
	if d > 0 && i > never-Instant(d) {
		return never
	}
	return i + Instant(d)
}

// Sub is the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// clock is the one clock rule: monotonic time since the epoch, moved forward by
// whatever the wall clock has ever gained on it, and never back. A machine
// that was suspended stops its monotonic clock and finds its wall clock ahead;
// validity that was counted before then ends sooner, never later.
type clock struct {
	epoch time.Time
	ahead atomic.Int64
}

func newClock() *clock { return &clock{epoch: time.Now()} }

func (c *clock) now() Instant {
	now := time.Now()
	return c.at(now, now.Round(0))
}

// at is now for these readings of the monotonic and of the wall clock.
func (c *clock) at(mono, wall time.Time) Instant {
	elapsed := mono.Sub(c.epoch)
	ahead := int64(wall.Sub(c.epoch.Round(0)) - elapsed)
	for {
		old := c.ahead.Load()
		if ahead <= old {
			return Instant(elapsed + time.Duration(old))
		}
		if c.ahead.CompareAndSwap(old, ahead) {
			return Instant(elapsed + time.Duration(ahead))
		}
	}
}

// time is the instant as a time with a monotonic reading.
func (c *clock) time(i Instant) time.Time {
	return c.epoch.Add(time.Duration(i) - time.Duration(c.ahead.Load()))
}
