package waitqueue

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Any waiter can be removed at any time.
func TestAListKeepsItsOrderWhenAnyWaiterLeaves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var l waiterList
	var want, gone []*Waiter
	check := func() {
		t.Helper()
		require.Equal(t, len(want), l.n)
		var there, back []*Waiter
		for w := l.first; w != nil && w.queued; w = w.after {
			there = append(there, w)
		}
		for w := l.last; w != nil; w = w.before {
			back = append(back, w)
		}
		slices.Reverse(back)
		require.True(t, slices.Equal(want, there))
		require.True(t, slices.Equal(want, back))
	}
	for range 1000 {
		switch w := new(Waiter); random.IntN(5) {
		case 0, 1:
			l.push(w)
			want = append(want, w)
		case 2:
			l.pushFront(w)
			want = slices.Insert(want, 0, w)
		case 3:
			if len(want) > 0 {
				require.Same(t, want[0], l.pop())
				gone, want = append(gone, want[0]), want[1:]
			}
		case 4:
			if len(want) > 0 {
				i := random.IntN(len(want))
				l.remove(want[i])
				gone, want = append(gone, want[i]), slices.Delete(slices.Clone(want), i, i+1)
			}
		}
		check()
	}
	for _, w := range gone {
		require.False(t, w.queued)
		require.Nil(t, w.before)
		require.Nil(t, w.after)
		l.remove(w) // is no longer there
	}
	check()
	for len(want) > 0 {
		require.Same(t, want[0], l.pop())
		want = want[1:]
	}
	check()
}
