package quorum

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

var errQueued = errors.New("not sent: others are before it")

// answer is what a node does with a question: it is sent, and answered.
type answer struct {
	sent, after time.Duration // from the start; sent < 0: never
	reply       Reply
}

// noProgress is that of a question before which nothing else is answered: since it was sent.
type noProgress time.Time

func (p noProgress) Since() time.Time { return time.Time(p) }

// progress is that of a question before which others are answered, until a time.
type progress struct{ until time.Time }

func (p progress) Since() time.Time {
	if now := time.Now(); now.Before(p.until) {
		return now
	}
	return p.until
}

// give has the answers come, in virtual time.
func give(p *Poll, answers []answer) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for i, a := range answers {
		all.Go(func() {
			if a.sent >= 0 {
				time.Sleep(a.sent)
				p.Sent(i, noProgress(time.Now()))
			}
			time.Sleep(a.after - max(a.sent, 0))
			p.Cast(i, a.reply)
		})
	}
	return all
}

// quiet is a node from which nothing was ever heard.
func quiet(int) (time.Time, error) { return time.Time{}, errQueued }

func TestWaitSettlesWithoutWaitingForTheSlow(t *testing.T) {
	grant, refuse, fail := Reply{Vote: Granted}, Reply{Vote: Refused, Err: errDown}, Reply{Vote: Failed, Err: errDown}
	for _, c := range []struct {
		name    string
		answers []answer
		verdict Verdict
		took    time.Duration
	}{
		{"one hung of three", []answer{{0, 1 * ms, grant}, {0, 2 * ms, grant}, {0, time.Hour, grant}}, Won, 2 * ms},
		{"one hung of five", []answer{{0, 1 * ms, grant}, {0, 3 * ms, grant}, {0, time.Hour, grant}, {0, 2 * ms, grant}, {0, 4 * ms, refuse}}, Won, 3 * ms},
		{"one not sent of three", []answer{{0, 1 * ms, grant}, {0, 2 * ms, grant}, {-1, time.Hour, grant}}, Won, 2 * ms},
		{"two refuse, one hung", []answer{{0, 1 * ms, refuse}, {0, 2 * ms, refuse}, {0, time.Hour, grant}}, Lost, 2 * ms},
		{"two down, one hung", []answer{{0, 1 * ms, fail}, {0, 2 * ms, fail}, {0, time.Hour, grant}}, Unreachable, 2 * ms},
		{"quorum hung", []answer{{0, 1 * ms, grant}, {0, time.Hour, grant}, {0, time.Hour, grant}}, Unreachable, 100 * ms},
		{"even n, a tie", []answer{{0, 1 * ms, grant}, {0, 2 * ms, refuse}, {0, 3 * ms, grant}, {0, 4 * ms, refuse}}, Lost, 4 * ms},
		{"n of two, one hung", []answer{{0, 1 * ms, grant}, {0, time.Hour, grant}}, Unreachable, 100 * ms},
		{"n of two, one refuses", []answer{{0, time.Hour, grant}, {0, 1 * ms, refuse}}, Lost, 1 * ms},
		{"late for the timeout", []answer{{0, 1 * ms, grant}, {0, 101 * ms, grant}, {0, 102 * ms, grant}}, Unreachable, 100 * ms},
		{"sent late, to a node from which nothing was heard", []answer{{0, 1 * ms, grant}, {200 * ms, 210 * ms, grant}, {-1, time.Hour, grant}}, Unreachable, 100 * ms},
		{"the timeout counts from when it was sent", []answer{{90 * ms, 91 * ms, fail}, {90 * ms, 189 * ms, grant}, {90 * ms, 189 * ms, grant}}, Won, 189 * ms},
		{"and no longer", []answer{{90 * ms, 91 * ms, fail}, {90 * ms, 191 * ms, grant}, {90 * ms, 300 * ms, grant}}, Unreachable, 190 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPanel(len(c.answers)).Open()
				start := time.Now()
				defer give(p, c.answers).Wait()
				require.Equal(t, c.verdict, p.Wait(t.Context(), nil, 100*ms, time.Hour, quiet))
				require.Equal(t, c.took, time.Since(start))
				p.Close()
			})
		})
	}
}

// A node that answers others is busy, not sick.
func TestWhatWaitsForABusyNodeIsNotUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grant := Reply{Vote: Granted}
		p := NewPanel(3).Open()
		start := time.Now()
		defer give(p, []answer{{2900 * ms, 2950 * ms, grant}, {2900 * ms, 2950 * ms, grant}, {-1, time.Hour, grant}}).Wait()
		busy := func(int) (time.Time, error) { return time.Now().Add(-10 * ms), errQueued }
		require.Equal(t, Won, p.Wait(t.Context(), nil, 100*ms, time.Minute, busy))
		require.Equal(t, 2950*ms, time.Since(start))
		p.Close()
	})
}

// What was sent to a node that is still busy with what it was sent before is not unanswered.
// Once the node gets no further it is, after the timeout.
func TestWhatWasSentToABusyNodeIsNotUnanswered(t *testing.T) {
	for name, c := range map[string]struct {
		busy, answered time.Duration
		verdict        Verdict
		took           time.Duration
	}{
		"and answers":       {900 * ms, 950 * ms, Won, 950 * ms},
		"and hangs at last": {900 * ms, time.Hour, Unreachable, 1000 * ms},
		"for too long":      {time.Hour, time.Hour, Unreachable, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPanel(2).Open()
				start := time.Now()
				var all sync.WaitGroup
				defer all.Wait()
				for i := range 2 {
					p.Sent(i, progress{start.Add(c.busy)})
					all.Go(func() {
						time.Sleep(c.answered)
						p.Cast(i, Reply{Vote: Granted})
					})
				}
				require.Equal(t, c.verdict, p.Wait(t.Context(), nil, 100*ms, time.Minute, quiet))
				require.Equal(t, c.took, time.Since(start))
				p.Close()
			})
		})
	}
}

// Success may become impossible before a node is overdue.
func TestNothingIsWaitedForBeyondTheLimit(t *testing.T) {
	for name, sent := range map[string]time.Duration{"sent": 0, "not sent": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPanel(1).Open()
				start := time.Now()
				defer give(p, []answer{{sent, time.Hour, Reply{Vote: Granted}}}).Wait()
				busy := func(int) (time.Time, error) { return time.Now(), errQueued }
				require.Equal(t, Unreachable, p.Wait(t.Context(), nil, time.Minute, 250*ms, busy))
				require.Equal(t, 250*ms, time.Since(start))
				p.Close()
			})
		})
	}
}

func TestSilentNodesAreNamedAndNotContextErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPanel(3).Open()
		grant := Reply{Vote: Granted}
		defer give(p, []answer{{0, time.Second, grant}, {0, 0, grant}, {-1, time.Second, grant}}).Wait()
		p.Wait(t.Context(), nil, 250*ms, time.Hour, quiet)
		b := p.Tally()
		p.Close()
		require.Equal(t, Failed, b.Replies[0].Vote)
		require.ErrorIs(t, b.Replies[0].Err, ErrNoReply)
		require.NotErrorIs(t, b.Replies[0].Err, context.DeadlineExceeded)
		require.EqualError(t, b.Replies[0].Err, "no reply within 250ms")
		require.Equal(t, errQueued, b.Replies[2].Err, "what was not sent is not unanswered")
	})
}

func TestWaitEndsWithItsContextAndWithStop(t *testing.T) {
	for _, how := range []string{"ctx", "stop"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop := make(chan struct{})
				time.AfterFunc(10*ms, func() {
					if how == "ctx" {
						cancel()
					} else {
						close(stop)
					}
				})
				p := NewPanel(3).Open()
				grant := Reply{Vote: Granted}
				defer give(p, []answer{{0, time.Minute, grant}, {0, time.Minute, grant}, {0, time.Minute, grant}}).Wait()
				start := time.Now()
				require.Equal(t, Pending, p.Wait(ctx, stop, time.Second, time.Hour, quiet))
				require.Equal(t, 10*ms, time.Since(start))
				p.Close()
			})
		})
	}
}

// A vote that comes when its poll is over counts nowhere, not even in the next
// poll, which may be the same memory.
func TestALateVoteCountsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panel := NewPanel(3)
		for range 1000 {
			p := panel.Open()
			b := p.Tally()
			require.Equal(t, NewTally(3), b)
			p.Cast(0, Reply{Vote: Granted})
			p.Cast(1, Reply{Vote: Granted})
			require.Equal(t, Won, p.Wait(t.Context(), nil, time.Second, time.Hour, quiet))
			p.Close()
			next := panel.Open()
			p.Cast(2, Reply{Vote: Granted})
			require.Zero(t, next.Tally().Granted())
			for i := range 3 {
				next.Cast(i, Reply{Vote: Failed, Err: errDown}) // settles without a Wait
			}
			next.Close()
		}
	})
}
