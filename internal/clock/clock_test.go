package clock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const h = time.Hour

func (c *Clock) lookedAt(l look) Instant { return c.reckon(func() look { return l }) }

func TestTheClockNeverGoesBack(t *testing.T) {
	c := New(0.01)
	epoch := c.last.Load().mono
	for _, skew := range []time.Duration{0, time.Hour, -time.Hour, time.Minute, 2 * time.Hour, 0} {
		mono := epoch.Add(time.Second)
		before := c.Observe(epoch, epoch.Round(0))
		now := c.Observe(mono, mono.Round(0).Add(skew))
		require.GreaterOrEqual(t, now, before.Add(time.Second), "never less than monotonic time")
	}
	require.Equal(t, epoch.Add(time.Second), c.Time(c.Observe(epoch.Add(time.Second), epoch.Round(0))), "as a time, an instant is monotonic time")
}

// stepper is a clock with hands to set. mono, wall and slept are the time by each clock of
// the machine since the Clock was made.
type stepper struct {
	*Clock
	first look
	last  Instant
}

func newStepper() *stepper {
	c := New(0.01)
	return &stepper{Clock: c, first: c.last.Load().look}
}

// look returns how far the Clock moves with a look.
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
	require.Equal(t, 3*h, c.look(3*h, 4*h, 4*h), "and again, with the wall clock set back by as much at the same time")
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
	require.Nil(t, c.Skipped(Instant(h)))
	c.look(2*h, 5*h, 0)
	for _, x := range []struct {
		at, mono time.Duration
		skipped  bool
	}{{h, h, false}, {2 * h, 2 * h, false}, {2*h + 1, 2 * h, true}, {5 * h, 2 * h, true}, {5*h + 1, 2*h + 1, false}} {
		require.Equal(t, c.first.mono.Add(x.mono), c.Time(Instant(x.at)), x.at)
		jump := c.Skipped(Instant(x.at))
		require.Equal(t, x.skipped, jump != nil, x.at)
		if jump != nil {
			require.Equal(t, Jump{By: 3 * h, At: c.Time(Instant(5 * h))}, *jump)
		}
	}
	c.look(2*h, 2*h, 1) // set back, and a reading that is a little late
	require.Equal(t, 3*h, c.Skipped(Instant(5*h)).By, "no jump")
	c.look(3*h, 4*h, h)
	require.Equal(t, Jump{By: h, At: c.first.mono.Add(3 * h), Suspended: true}, *c.Skipped(Instant(7 * h)))
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
		c := New(0.01)
		time.Sleep(time.Hour)
		require.Equal(t, Instant(time.Hour), c.Now(), "virtual time is no suspension")
	})
}

func BenchmarkNow(b *testing.B) {
	c := New(0.01)
	for b.Loop() {
		c.Now()
	}
}
