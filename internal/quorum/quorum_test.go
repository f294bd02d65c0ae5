package quorum

import (
	"errors"
	"fmt"
	"testing"

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
					b := NewTally(n)
					for i := range n {
						switch {
						case i < g:
							b.Cast(i, Reply{Vote: Granted})
						case i < g+r:
							b.Cast(i, Reply{Vote: Refused, Err: errDown})
						case i < g+r+f:
							b.Cast(i, Reply{Vote: Failed, Err: errDown})
						}
					}
					want := Pending
					switch pending := n - g - r - f; {
					case g > n/2:
						want = Won
					case g+pending > n/2: // could still be won
					case n-f > n/2: // enough nodes answer: it was the refusals
						want = Lost
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
	b := NewTally(3)
	b.Cast(0, Reply{Vote: Granted})
	b.Cast(0, Reply{Vote: Granted})
	require.Equal(t, 1, b.Granted())
	require.Equal(t, Pending, b.Verdict())
}

func ExampleTally() {
	b := NewTally(3)
	b.Cast(0, Reply{Vote: Granted})
	b.Cast(1, Reply{Vote: Failed, Err: errDown})
	fmt.Println(b.Verdict() == Pending)
	b.Cast(2, Reply{Vote: Granted})
	fmt.Println(b.Verdict() == Won)
	// Output:
	// true
	// true
}
