//go:build unix

package nemesis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/proof/history"
)

// queueLen reports whether n processes wait for k on a majority of the nodes. A node may have
// granted k to a waiter for a moment, before the holder had it.
func (bed *Testbed) queueLen(n int64) func() bool {
	return func() bool {
		nodes := 0
		for _, s := range bed.Servers {
			if size, err := s.Do("ZCARD", "{k}:redlock:queue"); err == nil && size == n {
				nodes++
			}
		}
		return nodes >= bed.most()
	}
}

// extended reports whether k has a longer ttl than a grant sets, on a majority of the nodes.
func (bed *Testbed) extended() bool {
	nodes := 0
	for _, s := range bed.Servers {
		if left, err := s.Do("PTTL", "k"); err == nil && left.(int64) > window.Milliseconds() {
			nodes++
		}
	}
	return nodes >= bed.most()
}

// channel returns the channel on which the first waiter for k hears of grants.
func (bed *Testbed) channel() string {
	for _, s := range bed.Servers {
		first, err := s.Do("ZRANGE", "{k}:redlock:queue", "0", "0")
		require.NoError(bed.t, err)
		if tokens := first.([]any); len(tokens) == 1 {
			entry, err := s.Do("HGET", "{k}:redlock:waiters", tokens[0].(string))
			require.NoError(bed.t, err)
			return strings.Fields(entry.(string))[8] // see internal/redisnode/queue.lua
		}
	}
	require.FailNow(bed.t, "no process waits", bed.queues())
	return ""
}

// deserted reports whether a channel has no listener left.
func (bed *Testbed) deserted(channel string) bool {
	for _, s := range bed.Servers {
		count, err := s.Do("PUBSUB", "NUMSUB", channel)
		require.NoError(bed.t, err)
		if count.([]any)[1] != int64(0) {
			return false
		}
	}
	return true
}

// queues returns the owner of k and its waiters, on every node.
func (bed *Testbed) queues() string {
	var text strings.Builder
	for i, s := range bed.Servers {
		for _, command := range [][]string{{"GET", "k"}, {"PTTL", "k"}, {"ZRANGE", "{k}:redlock:queue", "0", "-1", "WITHSCORES"}, {"HGETALL", "{k}:redlock:waiters"}} {
			reply, err := s.Do(command...)
			fmt.Fprintln(&text, i, command, reply, err)
		}
	}
	return text.String()
}

// scene has a lock, its holder, a waiter, and a rival that comes after the waiter.
type scene struct {
	t       *testing.T
	testbed *Testbed
	h       *history.History
	holder  *redlock.Locker
	other   *redlock.Locker
	child   *waiter
}

func newScene(t *testing.T, ttl time.Duration) *scene {
	bed := NewTestbed(t, 3, ttl)
	s := &scene{t: t, testbed: bed, h: history.New(), holder: bed.Open(), other: bed.Open(), child: bed.waiter(t)}
	t.Cleanup(func() { _, _ = s.holder.Close(), s.other.Close() })
	return s
}

// held is a lock of a Locker of this process.
type held struct {
	lock *redlock.Lock
	hold history.Hold
	at   time.Time
}

func (s *scene) acquire(l *redlock.Locker, contender int) (held, error) {
	hold := history.Hold{Key: "k", Contender: contender, Sent: s.h.Now()}
	lock, err := l.Acquire(s.t.Context(), "k", s.testbed.TTL, queued)
	if err != nil {
		return held{}, err
	}
	hold.Returned, hold.Token = s.h.Now(), lock.Token()
	return held{lock, hold, time.Now()}, lock.AutoExtend(0)
}

func (s *scene) release(x held) {
	s.t.Helper()
	x.hold.Until, x.hold.Released = s.h.At(x.lock.Until()), s.h.Now()
	s.h.AddHold(x.hold)
	require.NoError(s.t, x.lock.Release(s.t.Context()))
}

// waits has the child wait behind a holder, and the rival behind the child.
func (s *scene) waits() (holder held, rival <-chan held) {
	s.t.Helper()
	holder, err := s.acquire(s.holder, 0)
	require.NoError(s.t, err)
	s.child.goOn()
	s.child.heard("waiting")
	eventually.True(s.t, "the child waits", s.testbed.queueLen(1), s.testbed.queues)
	began := time.Now().UnixMilli()
	eventually.True(s.t, "the rival comes in a later millisecond", func() bool { return time.Now().UnixMilli() > began })
	return holder, s.rival(2)
}

// rival waits, as the last of n processes.
func (s *scene) rival(of int64) <-chan held {
	s.t.Helper()
	rival := make(chan held, 1)
	go func() {
		x, err := s.acquire(s.other, 2)
		if err != nil {
			s.t.Error(err)
		}
		rival <- x
	}()
	eventually.True(s.t, "the rival waits", s.testbed.queueLen(of), s.testbed.queues)
	return rival
}

// gets waits until the rival has the lock, and returns the time since since.
func (s *scene) gets(rival <-chan held, since time.Time, within time.Duration) (held, time.Duration) {
	s.t.Helper()
	select {
	case x := <-rival:
		took := x.at.Sub(since)
		require.Less(s.t, took, within+loaded)
		return x, took
	case <-time.After(patience):
		require.FailNow(s.t, "the rival waits for ever")
		return held{}, 0
	}
}

func (s *scene) check() {
	s.t.Helper()
	require.Empty(s.t, s.h.Check())
	eventually.True(s.t, "no key is left", func() bool { return s.testbed.Keys() == 0 })
}
