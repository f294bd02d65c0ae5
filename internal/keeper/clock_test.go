package keeper

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const h = time.Hour

// at is now for these readings of the monotonic and of the wall clock, of a
// machine that was not suspended.
func (c *clock) at(mono, wall time.Time) Instant {
	return c.lookedAt(look{mono: mono, wall: wall, slept: c.last.Load().slept})
}

func (c *clock) lookedAt(l look) Instant { return c.reckon(func() look { return l }) }

// A suspended machine: the wall clock has run on, the monotonic one has not.
func TestTheWallClockEndsAHoldSoonerAndNeverLater(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", Terms{TTL: time.Minute})
		h.Auto(40 * time.Second)
		synctest.Wait() // nobody else looks at the clocks, whose wall clock is right
		now := time.Now()
		require.Equal(t, b.Now(), b.clock.at(now, now.Round(0).Add(-time.Hour)), "set back: nothing changes")
		require.NoError(t, h.Context().Err())
		b.clock.at(now, now.Round(0).Add(-time.Hour+time.Minute))
		require.False(t, h.Valid(), "ahead: validity has passed, at once for whoever asks")
		at, cause := ended(h)
		require.LessOrEqual(t, at.Sub(now), tick, "and within a tick for its context")
		require.ErrorIs(t, cause, errLost)
	})
}

func TestTheClockNeverGoesBack(t *testing.T) {
	c := newClock()
	epoch := c.last.Load().mono
	for _, skew := range []time.Duration{0, time.Hour, -time.Hour, time.Minute, 2 * time.Hour, 0} {
		mono := epoch.Add(time.Second)
		before := c.at(epoch, epoch.Round(0))
		now := c.at(mono, mono.Round(0).Add(skew))
		require.GreaterOrEqual(t, now, before.Add(time.Second), "never less than monotonic time")
	}
	require.Equal(t, epoch.Add(time.Second), c.time(c.at(epoch.Add(time.Second), epoch.Round(0))), "as a time, an instant is monotonic time")
}

// stepper is a clock with hands to set: mono, wall and slept are by how much
// each of the machine's has gone on since the clock was made.
type stepper struct {
	*clock
	first look
	last  Instant
}

func newStepper() *stepper {
	c := newClock()
	return &stepper{clock: c, first: c.last.Load().look}
}

// look is by how much the clock goes on to a look.
func (s *stepper) look(mono, wall, slept time.Duration) time.Duration {
	now := s.lookedAt(look{mono: s.first.mono.Add(mono), wall: s.first.wall.Add(wall), slept: s.first.slept + slept})
	passed := now.Sub(s.last)
	s.last = now
	return passed
}

func TestAWallClockThatWasSetBackHidesNoSuspension(t *testing.T) {
	c := newStepper()
	require.Equal(t, h, c.look(h, -4*h, 0), "set back by 5 h: an hour is an hour")
	require.Equal(t, h, c.look(2*h, -3*h, 0))
	require.Equal(t, 3*h, c.look(3*h, 0, 0), "suspended for 2 h: the wall clock gained them")
	require.Equal(t, h, c.look(4*h, h, 0))
}

func TestASuspensionCountsOnceThoughBothClocksTellOfIt(t *testing.T) {
	c := newStepper()
	require.Equal(t, 3*h, c.look(h, 3*h, 2*h), "suspended for 2 h")
	require.Equal(t, h, c.look(2*h, 4*h, 2*h))
	require.Equal(t, 3*h, c.look(3*h, 4*h, 4*h), "and again, with the wall clock set back by as much meanwhile")
	require.Equal(t, 4*h, c.look(4*h, 8*h, 4*h), "set ahead by 3 h")
	require.Equal(t, 4*h, c.look(5*h, 12*h, 5*h), "suspended for 1 h, and set ahead by 2 h")
}

// Readings that are late by a little must not add up.
func TestAnUnsteadyWallClockGainsNothing(t *testing.T) {
	c := newStepper()
	for i := range 1000 {
		hours := time.Duration(i) * h
		c.look(hours, hours-time.Duration(i%2)*slack, 0)
	}
	require.Equal(t, Instant(999*h), c.last)

	for i := range 100 {
		c.look(999*h, 999*h+time.Duration(i)*gain/2, 0)
	}
	require.InDelta(t, 99*gain/2, c.last.Sub(Instant(999*h)), float64(gain), "but what is not late does")
}

// A look from before a step, of a goroutine that was held up since, is not a
// wall clock that was set back.
func TestALateLookIsNotNews(t *testing.T) {
	c := newStepper()
	require.Equal(t, 3*h, c.look(2*h, 3*h, 0))
	require.Equal(t, -h, c.look(h, h, 0))
	require.Equal(t, 2*h, c.look(3*h, 4*h, 0))
}

func TestAnInstantThatWasSkippedIsTheTimeOfTheJump(t *testing.T) {
	c := newStepper()
	c.look(h, h, 0)
	require.Nil(t, c.over(Instant(h)))
	c.look(2*h, 5*h, 0)
	for _, x := range []struct {
		at, mono time.Duration
		skipped  bool
	}{{h, h, false}, {2 * h, 2 * h, false}, {2*h + 1, 2 * h, true}, {5 * h, 2 * h, true}, {5*h + 1, 2*h + 1, false}} {
		require.Equal(t, c.first.mono.Add(x.mono), c.time(Instant(x.at)), x.at)
		jump := c.over(Instant(x.at))
		require.Equal(t, x.skipped, jump != nil, x.at)
		if jump != nil {
			require.Equal(t, Jump{By: 3 * h, At: c.time(Instant(5 * h))}, *jump)
		}
	}
	c.look(2*h, 2*h, 1) // set back, and a reading that is a little late
	require.Equal(t, 3*h, c.over(Instant(5*h)).By, "no jump")
	c.look(3*h, 4*h, h)
	require.Equal(t, Jump{By: h, At: c.first.mono.Add(3 * h), Suspended: true}, *c.over(Instant(7 * h)))
}

func TestALossSaysWhichJumpItWas(t *testing.T) {
	run(t, 3, func(t *testing.T, b *bench) {
		h := b.hold("k", Terms{TTL: time.Minute})
		time.Sleep(time.Second)
		synctest.Wait()
		now := time.Now()
		b.clock.at(now, now.Round(0).Add(time.Hour))
		ended(h)
		loss := b.loss.Load()
		require.Equal(t, &Jump{By: time.Hour, At: now}, loss.Jump)
		require.Equal(t, now, loss.Until, "not an hour before the lock was taken")
		require.Equal(t, now, h.Until())
	})
	run(t, 3, func(t *testing.T, b *bench) {
		now := time.Now()
		b.clock.at(now, now.Round(0).Add(time.Hour))
		ended(b.hold("k", Terms{}))
		require.Nil(t, b.loss.Load().Jump, "it was over before")
	})
}

// The clocks of the machine that runs the test, which is not suspended.
func TestLookingAtTheClocksFindsThemInStep(t *testing.T) {
	first := steady()
	for range 1000 {
		_, slept, stepped := steady().since(first)
		require.Less(t, slept.Abs(), slack)
		require.Less(t, stepped.Abs(), slack)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		time.Sleep(time.Hour)
		require.Equal(t, Instant(time.Hour), c.now(), "virtual time is no suspension")
	})
}

func BenchmarkNow(b *testing.B) {
	c := newClock()
	for b.Loop() {
		c.now()
	}
}
