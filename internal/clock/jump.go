package clock

import "time"

// Jump is time that passed, or may have passed, while the monotonic clock stood still.
type Jump struct {
	By        time.Duration
	At        time.Time // when it was seen
	Suspended bool      // the machine was suspended; otherwise its wall clock was set ahead
}

// Jumped returns the instant to which the last jump went. It changes with each jump.
func (c *Clock) Jumped() Instant { return c.last.Load().to }

// Skipped returns the last jump if it skipped the instant, and otherwise nil.
func (c *Clock) Skipped(i Instant) *Jump {
	r := c.last.Load()
	if i <= r.from || i > r.to {
		return nil
	}
	jump := r.jump
	return &jump
}

const (
	// gain is the smallest step that counts as a jump. Smaller steps are not lost: they count
	// once they add up to gain.
	gain = time.Millisecond
	// slack bounds how far the wall clock may seem to fall back although it was not set: the
	// clocks are read one after the other, and some tick only every 16 ms. If slack were 0,
	// each reading that is a little late would make the next one a gain, and these gains
	// would add up.
	slack = 20 * time.Millisecond
)

// look is one reading of all clocks.
type look struct {
	mono  time.Time     // its monotonic reading counts
	wall  time.Time     // has no monotonic reading
	slept time.Duration // how long the machine has been suspended, see slept
}

func see() look {
	now := time.Now()
	return look{mono: now, wall: now.Round(0), slept: slept()}
}

// steady returns a look that agrees with the look before it. A single look is wrong if this
// goroutine, or the machine, was stopped between two of its readings.
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

// since returns the time that has passed by the monotonic clock, how long the machine was
// suspended in addition, and how far the wall clock was set ahead of the sum.
func (l look) since(before look) (passed, slept, stepped time.Duration) {
	passed = l.mono.Sub(before.mono)
	slept = l.slept - before.slept
	return passed, slept, l.wall.Sub(before.wall) - passed - slept
}

// reckoning is an immutable snapshot: the last look that found a clock out of step, and the
// correction.
type reckoning struct {
	look
	at       Instant // of the look
	jump     Jump    // the last
	from, to Instant // it skipped the instants after from, up to to
}

// instant returns the instant of a look. It reports false if the look finds a clock out of
// step.
func (r *reckoning) instant(l look) (Instant, bool) {
	passed, slept, stepped := l.since(r.look)
	// A look from before r tells nothing new.
	steps := passed >= 0 && (slept >= gain || stepped >= gain || stepped < -slack)
	return r.at.Add(passed), !steps
}

// next returns the reckoning that follows a look that found a clock out of step.
func (r *reckoning) next(l look) *reckoning {
	passed, slept, stepped := l.since(r.look)
	if slept < gain { // not counted now, so a later look must count it
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

// reckon returns the current instant. It reads the last reckoning before it takes its own look.
// In the other order, it could take a look from before a step for a wall clock that was set
// back since.
func (c *Clock) reckon(see func() look) Instant {
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
