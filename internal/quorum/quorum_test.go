package quorum

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func TestNeedIsAMajorityForEvenNToo(t *testing.T) {
	for n, need := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4} {
		require.Equal(t, need, Need(n), "n = %d", n)
		require.Greater(t, 2*need, n, "two quorums of %d nodes share one", n)
	}
}

// Every multiset of votes, for up to six nodes: the verdict must be exactly
// what its definition says.
func TestVerdictFollowsItsDefinition(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for g := 0; g <= n; g++ {
			for r := 0; g+r <= n; r++ {
				for f := 0; g+r+f <= n; f++ {
					b := NewBallot(n)
					for i := range n {
						switch {
						case i < g:
							b.Cast(i, Reply{Vote: Granted})
						case i < g+r:
							b.Cast(i, Reply{Refused, errDown})
						case i < g+r+f:
							b.Cast(i, Reply{Failed, errDown})
						}
					}
					want := Open
					switch pending := n - g - r - f; {
					case g > n/2:
						want = Carried
					case g+pending > n/2: // could still be carried
					case n-f > n/2: // enough nodes answer: it was the refusals
						want = Rejected
					default:
						want = Unreachable
					}
					require.Equal(t, want, b.Verdict(), "n=%d granted=%d refused=%d failed=%d", n, g, r, f)
				}
			}
		}
	}
}

func TestANodeVotesOnce(t *testing.T) {
	b := NewBallot(3)
	b.Cast(0, Reply{Vote: Granted})
	b.Cast(0, Reply{Vote: Granted})
	require.Equal(t, 1, b.Granted())
	require.Equal(t, Open, b.Verdict())
}

// after answers r once d has passed, in virtual time.
func after(d time.Duration, r Reply) Reply {
	time.Sleep(d)
	return r
}

func TestAskSettlesWithoutWaitingForTheSlow(t *testing.T) {
	const ms = time.Millisecond
	grant, refuse, fail := Reply{Vote: Granted}, Reply{Refused, errDown}, Reply{Failed, errDown}
	type answer struct {
		after time.Duration
		reply Reply
	}
	for _, c := range []struct {
		name    string
		answers []answer
		verdict Verdict
		took    time.Duration
	}{
		{"one hung of three", []answer{{1 * ms, grant}, {2 * ms, grant}, {time.Hour, grant}}, Carried, 2 * ms},
		{"one hung of five", []answer{{1 * ms, grant}, {3 * ms, grant}, {time.Hour, grant}, {2 * ms, grant}, {4 * ms, refuse}}, Carried, 3 * ms},
		{"two refuse, one hung", []answer{{1 * ms, refuse}, {2 * ms, refuse}, {time.Hour, grant}}, Rejected, 2 * ms},
		{"two down, one hung", []answer{{1 * ms, fail}, {2 * ms, fail}, {time.Hour, grant}}, Unreachable, 2 * ms},
		{"quorum hung", []answer{{1 * ms, grant}, {time.Hour, grant}, {time.Hour, grant}}, Unreachable, 100 * ms},
		{"even n, a tie", []answer{{1 * ms, grant}, {2 * ms, refuse}, {3 * ms, grant}, {4 * ms, refuse}}, Rejected, 4 * ms},
		{"n of two, one hung", []answer{{1 * ms, grant}, {time.Hour, grant}}, Unreachable, 100 * ms},
		{"n of two, one refuses", []answer{{time.Hour, grant}, {1 * ms, refuse}}, Rejected, 1 * ms},
		{"late for the timeout", []answer{{1 * ms, grant}, {101 * ms, grant}, {102 * ms, grant}}, Unreachable, 100 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPanel(len(c.answers))
				start := time.Now()
				b := p.Ask(t.Context(), nil, 100*ms, func(i int) Reply {
					return after(c.answers[i].after, c.answers[i].reply)
				})
				require.Equal(t, c.verdict, b.Verdict())
				require.Equal(t, c.took, time.Since(start))
				p.Wait()
			})
		})
	}
}

func TestSilentNodesAreNamedAndNotContextErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPanel(3)
		b := p.Ask(t.Context(), nil, 250*time.Millisecond, func(i int) Reply {
			if i == 1 {
				return Reply{Vote: Granted}
			}
			return after(time.Second, Reply{Vote: Granted})
		})
		for _, i := range []int{0, 2} {
			require.Equal(t, Failed, b.Replies[i].Vote)
			require.ErrorIs(t, b.Replies[i].Err, ErrNoReply)
			require.NotErrorIs(t, b.Replies[i].Err, context.DeadlineExceeded)
			require.EqualError(t, b.Replies[i].Err, "no reply within 250ms")
		}
		p.Wait()
	})
}

func TestAskEndsWithItsContextAndWithStop(t *testing.T) {
	for _, how := range []string{"ctx", "stop"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stop := make(chan struct{})
				time.AfterFunc(10*time.Millisecond, func() {
					if how == "ctx" {
						cancel()
					} else {
						close(stop)
					}
				})
				p := NewPanel(3)
				start := time.Now()
				b := p.Ask(ctx, stop, time.Second, func(int) Reply { return after(time.Minute, Reply{Vote: Granted}) })
				require.Equal(t, 10*time.Millisecond, time.Since(start))
				require.Equal(t, Open, b.Verdict())
				p.Wait()
				require.Equal(t, time.Minute, time.Since(start), "Wait owns the stragglers")
			})
		})
	}
}

func ExampleBallot() {
	b := NewBallot(3)
	b.Cast(0, Reply{Vote: Granted})
	b.Cast(1, Reply{Failed, errDown})
	fmt.Println(b.Verdict() == Open)
	b.Cast(2, Reply{Vote: Granted})
	fmt.Println(b.Verdict() == Carried)
	// Output:
	// true
	// true
}
