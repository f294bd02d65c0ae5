package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

// jumps returns the jumps of a clock to test, for a ttl.
func jumps(ttl time.Duration) []time.Duration {
	return []time.Duration{ttl, -ttl, time.Hour, -time.Hour}
}

// Row 14, one node: when its clock jumps ahead, or is set right after it was behind, it
// forgets its vote. That is one vote, and the node gives it again.
func TestALockOnAllNodesSurvivesAJumpOfOneClock(t *testing.T) {
	const long = 5 * time.Second // a third of it passes between extensions
	bed := testbed(t, redistest.StartWithClocks(t, 5), long)
	owner, rival := bed.Open(), bed.Open()
	defer owner.Close()
	defer rival.Close()
	for i, jump := range jumps(long) {
		t.Run(fmt.Sprint(jump), func(t *testing.T) {
			s := bed.Servers[i]
			lock, err := owner.Acquire(t.Context(), "k", long)
			require.NoError(t, err)
			onNode := func() bool { token, _ := s.Get(t, "k"); return token == lock.Token() }
			eventually.True(t, "on the node", onNode)
			for _, offset := range []time.Duration{jump, 0} { // away, and back
				s.SetClock(offset)
				_, err = rival.TryAcquire(t.Context(), "k", long)
				require.ErrorIs(t, err, redlock.ErrNotAcquired)
				// The rival's vote of the node may still be on its way back.
				eventually.True(t, "the node has it again", func() bool {
					require.NoError(t, lock.Extend(t.Context(), long))
					return onNode()
				})
				require.True(t, lock.Valid())
			}
			require.NoError(t, lock.Release(t.Context()))
			eventually.True(t, "no key is left", func() bool { return bed.Keys() == 0 })
		})
	}
}

// Row 14, a majority ahead: the keys expire early, and P1 fails, as it must. The test
// sees that, and the owner finds out at its next extension.
func TestAMajorityOfClocksAheadBreaksTheLockAndIsSeen(t *testing.T) {
	bed := testbed(t, redistest.StartWithClocks(t, 5), time.Minute)
	h := history.New()
	first, second := bed.Open(), bed.Open()
	defer first.Close()
	defer second.Close()
	take := func(contender int, l *redlock.Locker) (*redlock.Lock, history.Hold) {
		hold := history.Hold{Key: "k", Contender: contender, Sent: h.Now()}
		lock, err := l.Acquire(t.Context(), "k", bed.TTL)
		require.NoError(t, err)
		hold.Returned, hold.Token, hold.Until = h.Now(), lock.Token(), h.At(lock.Until())
		return lock, hold
	}
	lock, hold := take(1, first)
	eventually.True(t, "all nodes have it", func() bool { return bed.Keys() == len(bed.Servers) })
	for _, s := range bed.Servers[:bed.most()] {
		s.SetClock(bed.TTL)
	}
	other, holdOther := take(2, second)
	require.True(t, lock.Valid() && other.Valid(), "both believe that they hold it")
	hold.Released, holdOther.Released = h.Now(), h.Now()
	h.AddHold(hold)
	h.AddHold(holdOther)
	require.Len(t, h.Overlaps(), 1)
	require.Len(t, h.Unlinearizable(), 1)

	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrLost)
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrLost)
	require.NoError(t, other.Extend(t.Context(), 0), "there is one owner again")
}

// Row 14, a majority behind: the lock of an owner that is gone stays for too
// long, which costs time and not safety, until the clocks are right again.
func TestAMajorityOfClocksBehindKeepsALockTooLong(t *testing.T) {
	bed := testbed(t, redistest.StartWithClocks(t, 5), ttl)
	l := bed.Open()
	defer l.Close()
	for i, s := range bed.Servers {
		_, err := s.Do("SET", "k", "the token of an owner that is gone", "PX", fmt.Sprint(ttl.Milliseconds()))
		require.NoError(t, err)
		if i < bed.most() {
			s.SetClock(-time.Hour)
		}
	}
	eventually.True(t, "the others' keys have expired", func() bool { return bed.Keys() == bed.most() })
	_, err := l.TryAcquire(t.Context(), "k", ttl)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	for _, s := range bed.Servers[:bed.most()] {
		s.SetClock(0)
	}
	lock, err := l.Acquire(t.Context(), "k", ttl)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
}

// Row 14 under contention. A node that forgets a vote may give it twice, and a
// lock that was won by a bare quorum has no other to lose, so P1 is waived as in
// row 3. Nothing leaks, no contender starves, and no key is left.
func TestClocksThatJumpUnderContention(t *testing.T) {
	for _, nodes := range []string{"one", "majority"} {
		t.Run(nodes, func(t *testing.T) {
			bed := testbed(t, redistest.StartWithClocks(t, 5), ttl)
			jump := Fault{"14 clocks jump, " + nodes, func(ctx context.Context, bed *Testbed, random *rand.Rand) {
				n := 1
				if nodes != "one" {
					n = bed.most()
				}
				jumped := bed.some(random, n)
				offset := jumps(bed.TTL)[random.IntN(4)]
				bed.each(jumped, func(i int) { bed.Servers[i].SetClock(offset) })
				pause(ctx, between(random, bed.TTL/4, 2*bed.TTL))
				bed.each(jumped, func(i int) { bed.Servers[i].SetClock(0) })
			}}
			battle{testbed: bed, faults: []Fault{jump}, duration: 3 * time.Second, processes: 4, perProcess: 2, keys: []string{"k"}, seed: 14, waived: true}.run(t)
		})
	}
}
