package node_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestCloseWaitsForWhatIsOwedAndNoLonger(t *testing.T) {
	for _, hung := range []bool{false, true} {
		t.Run(fmt.Sprint("hung=", hung), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &memnode.Backend{}
				n := node.New(0, "n", s, false)
				a := claim(1)
				acquire(n, a, time.Hour)
				s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{Request: 10 * ms} })
				if hung {
					s.Pause()
				}
				a.End()
				n.Abandon(a)
				start := time.Now()
				err := n.Close(time.Second)
				if hung {
					require.EqualError(t, err, "no reply within 1s")
					require.Equal(t, time.Second, time.Since(start))
				} else {
					require.NoError(t, err)
					require.Equal(t, 10*ms, time.Since(start))
				}
				require.Equal(t, quorum.Failed, acquire(n, claim(2), time.Hour).Vote)
				s.Resume()
				synctest.Wait()
				require.Zero(t, s.Len(), "what was sent before runs")
			})
		})
	}
}

// The claim ends, and is abandoned, while the acquisition fails for certain.
func TestNoDebtRemainsOfACallThatDidNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		s.Faults(func(op memnode.Op, _ int) memnode.Fault {
			if op == memnode.Acquire {
				time.Sleep(10 * ms)
			}
			return memnode.Fault{NotRun: true}
		})
		a := claim(1)
		go acquire(n, a, time.Hour)
		time.Sleep(5 * ms)
		a.End()
		n.Abandon(a)
		start := time.Now()
		require.NoError(t, n.Close(time.Minute))
		require.Less(t, time.Since(start), time.Second)
	})
}

func TestCloseSaysWhyKeysWereNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		a := claim(1)
		acquire(n, a, time.Hour)
		s.Faults(func(memnode.Op, int) memnode.Fault { return memnode.Fault{NotRun: true} })
		a.End()
		n.Abandon(a)
		require.ErrorContains(t, n.Close(time.Second), "keys not released within 1s: connection refused")
	})
}
