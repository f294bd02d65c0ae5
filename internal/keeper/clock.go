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

// Jump is time that passed while the monotonic clock stood still, or that may
// have.
type Jump struct {
	By        time.Duration
	At        time.Time // when it was seen
	Suspended bool      // the machine was suspended; otherwise its wall clock was set ahead
}

const (
	// gain is the least that counts as a jump. What is below is not lost: it is
	// counted once it adds up to that.
	gain = time.Millisecond
	// slack is by how much the wall clock may seem to fall back though nobody
	// set it: the clocks are read one after the other, and some tick only every
	// 16 ms. If it were 0, each reading that is a little late would make the
	// next one a gain, and these gains would add up.
	slack = 20 * time.Millisecond
)

// clock is the one clock rule: monotonic time, moved forward by the time for
// which the machine was suspended and by whatever the wall clock gains beside
// that, and never back. Validity that was counted before then ends sooner,
// never later.
//
// Linux tells exactly how long it was suspended. Elsewhere, and where a
// hypervisor stopped the whole machine, only the wall clock shows it, once it
// has been set right. Nobody can tell that from any other step ahead.
//
// The wall clock's gains count from the last look: had it been set back by an
// hour, and were they counted from the beginning, then a suspension of less
// than an hour would not be seen.
type clock struct{ last atomic.Pointer[reckoning] }

// look is one reading of all clocks.
type look struct {
	mono  time.Time     // its monotonic reading counts
	wall  time.Time     // has no other
	slept time.Duration // for how long the machine was suspended, since an origin of its own
}

func see() look {
	now := time.Now()
	return look{mono: now, wall: now.Round(0), slept: slept()}
}

// steady is a look with which another one agrees. A single one is wrong if
// this goroutine, or the machine, was stopped between two of its readings.
func steady() look {
	l := see()
	for range 3 {
		next := see()
		if _, slept, stepped := next.since(l); slept.Abs() < gain && stepped.Abs() < gain {
			return next
		}
		l = next
	}
	return l
}

// since is what has passed by the monotonic clock, for how long the machine
// was suspended besides, and by how much the wall clock was set ahead of both.
func (l look) since(before look) (passed, slept, stepped time.Duration) {
	passed = l.mono.Sub(before.mono)
	slept = l.slept - before.slept
	return passed, slept, l.wall.Sub(before.wall) - passed - slept
}

// reckoning is the last look that found a clock out of step, and what came of
// it. It does not change.
type reckoning struct {
	look
	at       Instant // of the look
	jump     Jump    // the last
	from, to Instant // what it skipped: the instants after from, up to to
}

// instant is that of a look, unless it finds a clock out of step.
func (r *reckoning) instant(l look) (Instant, bool) {
	passed, slept, stepped := l.since(r.look)
	// A look from before r is not news.
	steps := passed >= 0 && (slept >= gain || stepped >= gain || stepped < -slack)
	return r.at.Add(passed), !steps
}

// next is the reckoning that follows with a look that found a clock out of step.
func (r *reckoning) next(l look) *reckoning {
	passed, slept, stepped := l.since(r.look)
	if slept < gain { // not yet counted, so still to be
		slept, l.slept = 0, r.slept
	}
	if stepped < gain {
		stepped = 0
	}
	n := &reckoning{look: l, jump: r.jump, from: r.from, to: r.to}
	from := r.at.Add(passed)
	n.at = from.Add(slept).Add(stepped)
	if n.at > from {
		n.from, n.to = from, n.at
		n.jump = Jump{By: n.at.Sub(from), At: l.mono, Suspended: slept >= stepped}
	}
	return n
}

func newClock() *clock {
	c := &clock{}
	c.last.Store(&reckoning{look: steady()})
	return c
}

// now is the instant as far as the monotonic and the wall clock show, which is
// all that is cheap to read. A suspension that the wall clock does not show, since
// it was set back meanwhile, is seen by check.
func (c *clock) now() Instant {
	last, now := c.last.Load(), time.Now()
	if i, ok := last.instant(look{mono: now, wall: now.Round(0), slept: last.slept}); ok {
		return i
	}
	return c.reckon(steady)
}

// check is now by all clocks.
func (c *clock) check() Instant {
	if now, ok := c.last.Load().instant(see()); ok {
		return now
	}
	return c.reckon(steady)
}

// reckon is now by looks of its own, which it takes after it has read the last
// reckoning: it must not take a wall clock from before a step for one that was
// set back since.
func (c *clock) reckon(see func() look) Instant {
	for {
		last := c.last.Load()
		l := see()
		now, ok := last.instant(l)
		if ok {
			return now
		}
		if next := last.next(l); c.last.CompareAndSwap(last, next) {
			return next.at
		}
	}
}

// jumped is the end of what the last jump skipped: another one after each jump.
func (c *clock) jumped() Instant { return c.last.Load().to }

// over is the last jump, if it skipped the instant; otherwise nil.
func (c *clock) over(i Instant) *Jump {
	r := c.last.Load()
	if i <= r.from || i > r.to {
		return nil
	}
	jump := r.jump
	return &jump
}

// time is the instant as a time with a monotonic reading: for one that was
// skipped, the time of the jump. Only the last jump is known.
func (c *clock) time(i Instant) time.Time {
	r := c.last.Load()
	switch {
	case i <= r.from:
		i = i.Add(r.to.Sub(r.from))
	case i <= r.to:
		i = r.to
	}
	return r.mono.Add(i.Sub(r.at))
}
