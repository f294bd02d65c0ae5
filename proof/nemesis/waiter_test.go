//go:build unix

package nemesis

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

const (
	window    = 500 * ms // the ttl that a grant sets
	lease     = 750 * ms // the time for which a queue keeps a place
	heartbeat = 250 * ms
	// loaded is the time that a loaded machine may add to any of these.
	loaded = time.Second
)

// queued polls so rarely that only a queue can end a wait in time.
var queued = redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1))

// A process that is stopped while it waits loses its place after its lease,
// and delays no other process. When it goes on it waits again.
func TestAProcessThatIsStoppedWhileItWaits(t *testing.T) {
	s := newScene(t, 10*time.Second)
	for range 3 {
		holder, rival := s.waits()
		s.child.stop()
		time.Sleep(lease + 50*ms) // while it is stopped
		released := time.Now()
		s.release(holder)
		x, took := s.gets(rival, released, heartbeat)
		t.Logf("the rival has the lock %v after the release", took)
		s.child.signal(syscall.SIGCONT)
		eventually.True(t, "it waits again", s.testbed.queueLen(1), s.testbed.queues)
		s.release(x)
		s.child.heard("holding")
		s.child.goOn()
		_, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
	}
	s.check()
}

// A process that is stopped before it is granted the lock, or while it is, keeps
// others from it for a window. When it goes on it finds that its grants are over.
func TestAProcessThatIsStoppedWhenItIsGranted(t *testing.T) {
	s := newScene(t, 10*time.Second)
	random := rand.New(rand.NewPCG(1, 0))
	var longest time.Duration
	for i := range 12 {
		holder, rival := s.waits()
		released := time.Now()
		if i < 4 {
			s.child.stop()
			released = time.Now()
			s.release(holder)
		} else { // somewhere between the push and the first extension
			done := make(chan struct{})
			go func() { defer close(done); s.release(holder) }()
			time.Sleep(between(random, 0, ms/2)) // when it is stopped
			s.child.stop()
			<-done
		}
		var x held
		select {
		case x = <-rival:
			took := x.at.Sub(released)
			longest = max(longest, took)
			require.Less(t, took, window+heartbeat+loaded)
			s.child.signal(syscall.SIGCONT)
			time.Sleep(between(random, 50*ms, window+100*ms)) // while it is watched
			require.True(t, x.lock.Valid(), "%v", context.Cause(x.lock.Context()))
			s.release(x)
		case <-time.After(window + heartbeat + loaded): // it was stopped when it had extended already
			t.Logf("round %d: it was stopped when it had extended already", i)
			s.child.signal(syscall.SIGCONT)
			select {
			case x = <-rival: // it has found that its grant is over, and given the lock back
				s.release(x)
			case line := <-s.child.out:
				s.child.said = line
			}
		}
		s.child.heard("holding")
		s.child.goOn()
		b, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
		t.Logf("round %d: it believed for %v; lost: %q", i, hold.Until-hold.Returned, b.Lost)
		if x.lock == nil {
			x, _ = s.gets(rival, time.Now(), heartbeat)
			s.release(x)
		}
		eventually.True(t, "nothing is left", func() bool { return s.testbed.Keys() == 0 })
	}
	t.Logf("the rival had the lock at most %v after the release", longest)
	s.check()
}

// A process that is stopped while it holds the lock loses it, and knows before it
// does anything.
func TestAProcessThatIsStoppedWhileItHolds(t *testing.T) {
	s := newScene(t, time.Second)
	for range 3 {
		holder, rival := s.waits()
		s.release(holder)
		s.child.heard("holding")
		eventually.True(t, "extended to its ttl", s.testbed.extended, s.testbed.queues)
		stopped := time.Now()
		s.child.stop()
		x, took := s.gets(rival, stopped, s.testbed.TTL+300*ms)
		t.Logf("the rival has the lock %v after the stop, ttl %v", took, s.testbed.TTL)
		s.child.signal(syscall.SIGCONT)
		b, hold := s.child.believed(s.h)
		s.h.AddHold(hold)
		s.child.goOn()
		require.NotEmpty(t, b.Lost)
		require.Less(t, time.Unix(0, b.Last), stopped.Add(loaded))
		require.True(t, x.lock.Valid(), "%v", context.Cause(x.lock.Context()))
		s.release(x)
	}
	s.check()
}

func TestAWaiterThatIsKilledDelaysNoOtherProcess(t *testing.T) {
	for _, killed := range []string{"before the release", "after it"} {
		t.Run(killed, func(t *testing.T) {
			s := newScene(t, 10*time.Second)
			holder, rival := s.waits()
			if killed == "before the release" {
				channel := s.testbed.channel()
				s.child.signal(syscall.SIGKILL)
				eventually.True(t, "the servers have noticed", func() bool { return s.testbed.deserted(channel) })
			} else {
				s.child.stop() // its grant is not answered
			}
			released := time.Now()
			s.release(holder)
			s.child.signal(syscall.SIGKILL)
			x, took := s.gets(rival, released, window)
			t.Logf("the rival has the lock %v after the release", took)
			s.release(x)
			s.check()
		})
	}
}

func TestAHolderThatIsKilledDelaysTheNextByItsTTL(t *testing.T) {
	s := newScene(t, time.Second)
	holder, rival := s.waits()
	s.release(holder)
	s.child.heard("holding")
	eventually.True(t, "extended to its ttl", s.testbed.extended, s.testbed.queues)
	killed := time.Now()
	s.child.signal(syscall.SIGKILL)
	x, took := s.gets(rival, killed, s.testbed.TTL+300*ms)
	t.Logf("the rival has the lock %v after the kill, ttl %v", took, s.testbed.TTL)
	s.release(x)
	s.check()
}
