package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ms  = time.Millisecond
	ttl = 400 * ms
)

// battle runs contenders and faults for some time, and checks everything that can be checked.
type battle struct {
	testbed    *Testbed
	faults     []Fault // at random
	at         int     // the number of them at once; 0 means one
	duration   time.Duration
	processes  int
	perProcess int
	keys       []string
	seed       uint64
	options    []redlock.Option
	guarded    bool                   // options has a restart guard
	waived     bool                   // P1, P2 and the order of fences by grants may fail
	forgets    bool                   // and so may the rest of P3: nodes forget counters
	keep       func(*history.History) // optional: called before anything is checked
}

func (b battle) run(t *testing.T) *history.History {
	t.Helper()
	bed := b.testbed
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	h := history.New()
	c := bed.Contention(b.processes, b.perProcess, b.keys, b.seed, h, b.options...)
	if b.guarded {
		require.NoError(t, c.Lockers[0].TrustNodes(t.Context()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), b.duration)
	defer cancel()
	watching, watched := make(chan struct{}), make(chan struct{})
	go func() { defer close(watched); h.WatchStalls(watching) }()
	var plagues sync.WaitGroup
	for i := range max(b.at, 1) {
		plagues.Go(func() {
			random := rand.New(rand.NewPCG(b.seed, 1<<32+uint64(i)))
			for ctx.Err() == nil && len(b.faults) > 0 {
				f := b.faults[random.IntN(len(b.faults))]
				begin := h.Now()
				f.Inject(ctx, bed, random)
				h.AddFault(history.Fault{Name: f.Name, Start: begin, End: h.Now()})
				pause(ctx, between(random, bed.TTL/4, 2*bed.TTL))
			}
		})
	}
	c.Run(ctx)
	plagues.Wait()
	close(watching)
	<-watched
	if b.keep != nil {
		b.keep(h)
	}

	// P6: after healing, a lone contender acquires.
	lone, cancelLone := context.WithTimeout(t.Context(), patience)
	defer cancelLone()
	lock, err := c.Lockers[0].Acquire(lone, b.keys[0], bed.TTL, redlock.WithRetry(redlock.FixedRetry(10*ms, 10*ms, -1)))
	require.NoError(t, err, "P6")
	_ = lock.Release(t.Context())

	// P5: no key outlives its use. Every key is due to expire by then.
	for _, l := range c.Lockers {
		_ = l.Close() // a release may have gone to a connection that was just cut
	}
	closed := time.Now()
	eventually.True(t, "P5: no key is left", func() bool { return bed.Keys() == 0 })
	t.Logf("no key left %v after Close", time.Since(closed).Round(ms))

	// P4: there are no more goroutines, descriptors and connections than before.
	eventually.True(t, "P4: goroutines", func() bool { return runtime.NumGoroutine() <= goroutines }, stacks)
	// A restarted server may cost the test one or two; each leaked connection of
	// the contenders would cost one, and there are dozens.
	eventually.True(t, "P4: descriptors", func() bool { return len(openFiles(t)) <= len(files)+2 },
		func() string { return fmt.Sprintf("before %q\nafter  %q", files, openFiles(t)) })
	for i, s := range bed.Servers {
		eventually.True(t, fmt.Sprint("P4: clients of node ", i), func() bool {
			info, err := s.Do("INFO", "clients")
			return err == nil && strings.Contains(info.(string), "connected_clients:1\r\n")
		})
	}

	s := h.Summary()
	t.Logf("seed %d: %d acquisitions, %d holds, %d lost, %d faults; longest wait %v; ctx seen ended at most %v after validity, %v without the time that this process was stalled, keys then had at least %v left; stalled for at most %v",
		b.seed, s.Operations, s.Holds, s.Lost, s.Faults, s.LongestWait.Round(ms), s.Lateness.Round(10*time.Microsecond), s.Unexplained.Round(10*time.Microsecond), s.Slack.Round(10*time.Microsecond), s.Stall.Round(10*time.Microsecond))
	waits := bed.Waits()
	t.Logf("how acquisitions ended, in half of the processes: %v", waits)
	if len(b.faults) == 0 && b.processes > 1 {
		require.NotZero(t, waits[redlock.WaitGranted]+waits[redlock.WaitHandedOver], "they wait in queues")
	}
	require.Less(t, s.LongestWait, time.Minute, "P6: starvation")
	require.NotZero(t, s.Operations)
	if violations := h.Check(); b.waived {
		t.Logf("waived: %d violations", len(violations))
	} else {
		require.Empty(t, violations, "seed %d", b.seed)
	}
	if !b.forgets {
		require.Empty(t, h.Unfenced(), "seed %d", b.seed)
	}
	return h
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// openFiles names the file of each descriptor, where the system tells it.
func openFiles(t *testing.T) []string {
	entries, err := os.ReadDir("/dev/fd")
	require.NoError(t, err)
	files := make([]string, len(entries))
	for i, entry := range entries {
		files[i], _ = os.Readlink("/dev/fd/" + entry.Name())
	}
	return files
}

func TestContentionAlone(t *testing.T) {
	bed := NewTestbed(t, 5, ttl)
	for _, contenders := range []int{1, 8, 64} {
		t.Run(fmt.Sprint("contenders=", contenders), func(t *testing.T) {
			battle{testbed: bed, duration: 2 * time.Second, processes: min(contenders, 4), perProcess: max(1, contenders/4), keys: []string{"k"}, seed: 1}.run(t)
		})
	}
}

// debuggable are the arguments of servers that take DEBUG. Redis takes it anyway
// before 7.0, where it has no such argument.
func debuggable(t testing.TB) []string {
	if !redistest.AtLeast(t, 7, 0) {
		return nil
	}
	return []string{"--enable-debug-command", "yes"}
}

// Each row alone. For a longer run see TestSoak.
func TestEachFault(t *testing.T) {
	bed := NewTestbed(t, 5, ttl, debuggable(t)...)
	for i, f := range Faults {
		t.Run(f.Name, func(t *testing.T) {
			battle{testbed: bed, faults: []Fault{f}, duration: 3 * time.Second, processes: 4, perProcess: 2, keys: []string{"k"}, seed: uint64(i + 1)}.run(t)
		})
	}
}

func TestRestartsThatLoseNothing(t *testing.T) {
	bed := NewTestbed(t, 5, ttl, "--appendonly", "yes", "--appendfsync", "always")
	kill := Fault{"2 SIGKILL, AOF always, minority", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		bed.restart(bed.some(random, 1+random.IntN(bed.minority())), between(random, 0, bed.TTL/2))
	}}
	battle{testbed: bed, faults: []Fault{kill}, duration: 4 * time.Second, processes: 4, perProcess: 2, keys: []string{"k"}, seed: 2}.run(t)
}

// restarts kills a minority of the nodes and starts them again soon.
func restarts(name string) Fault {
	return Fault{name, func(_ context.Context, bed *Testbed, random *rand.Rand) {
		bed.restart(bed.some(random, 1+random.IntN(bed.minority())), between(random, 0, bed.TTL/2))
	}}
}

// guard is a restart guard for the ttl of a testbed. The clocks of its servers do not jump.
func guard(bed *Testbed) redlock.Option { return redlock.WithRestartGuard(bed.TTL, bed.TTL/20) }

// A node that may lose its last second may vote twice: the test checks only properties
// that do not rest on its memory. With the restart guard it checks all.
func TestRestartsThatMayLoseASecond(t *testing.T) {
	for name, guarded := range map[string]bool{"without the guard": false, "with the guard": true} {
		t.Run(name, func(t *testing.T) {
			bed := NewTestbed(t, 5, ttl, "--appendonly", "yes", "--appendfsync", "everysec")
			b := battle{testbed: bed, faults: []Fault{restarts("3 SIGKILL, AOF everysec, minority")}, duration: 4 * time.Second, processes: 4, perProcess: 2, keys: []string{"k"}, seed: 3}
			if b.waived, b.forgets = !guarded, !guarded; guarded {
				b.options, b.guarded = []redlock.Option{guard(bed), redlock.WithFence()}, true
			}
			b.run(t)
		})
	}
}

// Row 4: one node of a bare quorum loses its data, and votes at once. Redlock cannot
// survive this, and a suite that does not see it is blind. With the restart guard the node
// does not vote, and the second client does not acquire.
func TestANodeThatForgetsAtOnceBreaksTheLockWithoutTheGuard(t *testing.T) {
	for how, forget := range map[string]func(*redistest.Server){
		"restart": func(s *redistest.Server) { s.Restart() },
		"FLUSHALL": func(s *redistest.Server) {
			_, err := s.Do("FLUSHALL")
			require.NoError(t, err)
		},
	} {
		t.Run(how, func(t *testing.T) {
			bed := NewTestbed(t, 5, time.Minute)
			h := history.New()
			take := func(contender int, unreachable []int, opts ...redlock.Option) (lock *redlock.Lock, hold history.Hold, err error) {
				for _, i := range unreachable {
					bed.Proxies[i].Refuse(true)
					defer bed.Proxies[i].Refuse(false)
				}
				l := bed.Open(opts...)
				t.Cleanup(func() { _ = l.Close() })
				hold = history.Hold{Key: "k", Contender: contender, Sent: h.Now()}
				if lock, err = l.TryAcquire(t.Context(), "k", bed.TTL); err == nil {
					hold.Returned, hold.Token, hold.Until = h.Now(), lock.Token(), h.At(lock.Until())
				}
				return lock, hold, err
			}
			one, holdOne, err := take(1, []int{3, 4})
			require.NoError(t, err)
			forget(bed.Servers[2])
			other, holdOther, err := take(2, []int{0, 1})
			require.NoError(t, err)
			require.True(t, one.Valid() && other.Valid(), "both believe that they hold it")
			holdOne.Released, holdOther.Released = h.Now(), h.Now()
			h.AddHold(holdOne)
			h.AddHold(holdOther)
			require.Len(t, h.Overlaps(), 1)
			require.Len(t, h.Unlinearizable(), 1)
			_, _ = one.Release(t.Context()), other.Release(t.Context())

			admin := bed.Open(guard(bed))
			require.NoError(t, admin.TrustNodes(t.Context()))
			require.NoError(t, admin.Close())
			one, _, err = take(1, []int{3, 4}, guard(bed))
			require.NoError(t, err)
			forget(bed.Servers[2])
			_, _, err = take(2, []int{0, 1}, guard(bed))
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			var failed *redlock.QuorumError
			require.ErrorAs(t, err, &failed)
			var q *redlock.QuarantineError
			require.ErrorAs(t, failed.Nodes[2].Err, &q, "%v", err)
			require.WithinDuration(t, time.Now().Add(bed.TTL+bed.TTL/10), q.Until, patience)
			require.True(t, one.Valid())
		})
	}
}

// Row 4 under contention, with the guard: P1, P2 and all of P3 hold.
func TestTheGuardKeepsNodesThatForgetFromVoting(t *testing.T) {
	bed := NewTestbed(t, 5, ttl)
	flush := Fault{"6 FLUSHALL, one", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		bed.tell(bed.some(random, 1), "FLUSHALL")
		pause(context.Background(), 2*bed.TTL) // a minority at a time
	}}
	restart := Fault{"4 SIGKILL, empty restart, one", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		bed.restart(bed.some(random, 1), 0)
		pause(context.Background(), 2*bed.TTL)
	}}
	battle{
		testbed: bed, faults: []Fault{flush, restart}, duration: 6 * time.Second, processes: 4, perProcess: 2, keys: []string{"k"}, seed: 4,
		options: []redlock.Option{guard(bed), redlock.WithFence()}, guarded: true,
	}.run(t)
}

// Row 17: little processor time.
func TestStarvedOfCPU(t *testing.T) {
	bed := NewTestbed(t, 5, 5*ttl)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	battle{testbed: bed, faults: Faults[1:3], duration: 6 * time.Second, processes: 2, perProcess: 2, keys: []string{"k"}, seed: 17}.run(t)
}
