package node_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// ear counts the calls of a handler.
type ear struct {
	sent, cast atomic.Int32
	late       atomic.Bool // sent after it was cast
}

func (e *ear) Sent(int, quorum.Progress) {
	e.sent.Add(1)
	if e.cast.Load() > 0 {
		e.late.Store(true)
	}
}

func (e *ear) Cast(int, quorum.Reply) { e.cast.Add(1) }

// Whatever happens to the calls, and whenever claims end, each handler gets one reply, and no key
// of a claim stays behind.
func TestEachVoterIsToldOnceAndNoKeyStays(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) { tellEachOnce(t, seed) })
		if t.Failed() {
			return
		}
	}
}

func tellEachOnce(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // guards random
	some := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	delay := func(most time.Duration) time.Duration { return time.Duration(some(int(most))) }
	c := &cluster{Backend: &memnode.Backend{}}
	c.server.Store("a")
	n := node.New(0, "n", c, false)
	bad, far := some(60), time.Duration(some(20))*ms+1
	c.Faults(func(memnode.Op, int) memnode.Fault {
		f := memnode.Fault{Request: delay(far), Reply: delay(far)}
		if some(100) > bad {
			return f
		}
		switch some(6) {
		case 0:
			f.Request = delay(time.Second)
		case 1:
			f.Reply = delay(time.Second)
		case 2:
			f.LoseRequest = true
		case 3:
			f.LoseReply = true
		case 4:
			f.NotRun = true
		case 5:
			f.Refuse = true
		}
		return f
	})
	var ears []*ear
	var earsMu sync.Mutex
	listen := func() *ear {
		e := new(ear)
		earsMu.Lock()
		defer earsMu.Unlock()
		ears = append(ears, e)
		return e
	}
	var all sync.WaitGroup
	claims := 20
	if seed%10 == 0 { // more dead commands than a queue keeps
		claims = 3000
	}
	keys := claims
	if seed%3 == 0 { // claims to the same key
		keys = 1 + some(5)
	}
	for i := range claims {
		start, life := delay(time.Second), delay(time.Second)
		extensions, asks, way := some(3), some(3), some(4)
		all.Go(func() {
			a := node.NewClaim([]string{fmt.Sprint("k", i%keys)}, fmt.Sprint("token", i), 1)
			time.Sleep(start)
			n.Acquire(a, time.Hour, listen())
			for range asks { // as in a contest
				time.Sleep(delay(life/4 + 1))
				n.AcquireAgain(a, time.Hour, listen())
				n.Read(a, listen())
			}
			for range extensions {
				time.Sleep(delay(life + 1))
				n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: a, TTL: time.Hour, Due: time.Now().Add(time.Second), Handler: listen()})
			}
			time.Sleep(life)
			a.End()
			switch way {
			case 0:
				n.Release(a, listen())
			case 1:
				n.Abandon(a)
			case 2:
				n.ReleaseInBackground(a, listen())
			case 3:
				n.ReleaseInBackground(a, nil)
			}
		})
	}
	all.Go(func() {
		for range some(5) {
			time.Sleep(delay(500 * ms))
			c.server.Store(fmt.Sprint(some(3)))
			c.Pause()
			time.Sleep(delay(500 * ms))
			c.Resume()
		}
	})
	all.Wait()
	c.Faults(nil)
	time.Sleep(time.Minute)
	if c.Len() > 0 {
		t.Errorf("seed %d: %d keys are left", seed, c.Len())
	}
	if node.OwnReleases(n) > 0 {
		t.Errorf("seed %d: %d releases and acquisitions behind them are not forgotten", seed, node.OwnReleases(n))
	}
	for i, e := range ears {
		// What is asked again is sent twice, and put off between.
		if e.cast.Load() != 1 || e.sent.Load() > 3 || e.late.Load() {
			t.Errorf("seed %d: handler %d was told %d times, after %d times that it was sent (%v)", seed, i, e.cast.Load(), e.sent.Load(), e.late.Load())
			break
		}
	}
	if err := n.Close(time.Second); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}

// Acquisitions without a waiting caller are dropped when releases are queued behind them, too.
func TestWhatIsDroppedForReleasesIsTold(t *testing.T) {
	run(t, func(t *testing.T, n *node.Node, s *memnode.Backend) {
		var held []*node.Claim
		for i := range 5000 {
			held = append(held, claim(-1-i))
			require.Equal(t, quorum.Granted, acquire(n, held[i], time.Hour).Vote)
		}
		s.Pause()
		ears := make([]ear, 2000)
		for i := range ears {
			a := claim(i)
			n.Acquire(a, time.Hour, &ears[i])
			a.End()
			n.Abandon(a)
		}
		for _, a := range held {
			a.End()
			n.Abandon(a)
		}
		s.Resume()
		time.Sleep(time.Minute)
		require.Zero(t, s.Len())
		for i := range ears {
			require.EqualValues(t, 1, ears[i].cast.Load(), "handler %d", i)
		}
	})
}
