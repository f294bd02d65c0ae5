package simulation

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

var simMixed = flag.Int("sim.mixed", fewer(100, 10), "histories of Lockers that come and go to simulate")

// Lockers of all kinds come and go, and acquire in all ways at once: no two of them have
// a lock at the same time, fences grow, and no key is left where nothing went wrong.
func TestLockersThatComeAndGoShareTheLocks(t *testing.T) {
	locks, left := 0, 0
	for i := range *simMixed {
		synctest.Test(t, func(t *testing.T) {
			a, b := mixed(t, *simSeed+uint64(i), i%2 == 0)
			locks, left = locks+a, left+b*(i%2)
		})
	}
	t.Logf("%d locks, keys left on %d nodes (faulty histories, after Close)", locks, left)
}

// mixture is one history. Its processes open Lockers, which try once, wait, and wait without queues,
// over ways that lose and delay calls, and are cut.
type mixture struct {
	t      *testing.T
	seed   uint64
	open   bool // Lockers stay open until all is healed
	stores []*memnode.Backend
	fenced bool // locks have fences
	faulty bool

	mu        sync.Mutex // guards what follows
	r         *rand.Rand
	healed    bool
	current   []*redlock.Lock // those that may be valid
	lastFence int64
	locks     int
	lockers   []*redlock.Locker // those that stay open
}

// mixed runs a history. It returns the number of locks, and of nodes with keys after that.
func mixed(t *testing.T, seed uint64, open bool) (locks, left int) {
	r := rand.New(rand.NewPCG(seed, 11))
	n := []int{1, 2, 3, 3, 3, 4, 5, 7}[r.IntN(8)]
	m := &mixture{t: t, seed: seed, open: open, r: r, fenced: r.IntN(2) == 0, faulty: r.IntN(3) > 0, stores: lockertest.Stores(n)}
	for i, s := range m.stores {
		s.PerKey = seed>>i&1 == 1 // as on a Cluster
		s.Mute, s.Rate = r.IntN(3) == 0, drifting(r)
		bad := r.Float64() * 0.2
		if !m.faulty {
			bad = 0
		}
		s.Faults(m.faults(bad))
		s.Pushes(m.pushes(bad))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 2 + r.IntN(4) {
		all.Go(func() {
			for ctx.Err() == nil {
				m.process(ctx)
			}
		})
	}
	all.Wait()
	m.heal()
	time.Sleep(6 * time.Second)
	for i, s := range m.stores {
		if s.Len() == 0 {
			continue
		}
		left++
		if token, _ := s.Get("k"); !m.faulty || open {
			t.Errorf("seed %d: keys left on node %d of %d: %s", seed, i, n, token)
		}
	}
	for _, l := range m.lockers {
		if err := l.Close(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	time.Sleep(time.Minute)
	return m.locks, left
}

func (m *mixture) random(n int) int { m.mu.Lock(); defer m.mu.Unlock(); return m.r.IntN(n) }

// within returns a duration from 0 to less than most.
func (m *mixture) within(most time.Duration) time.Duration { return time.Duration(m.random(int(most))) }

func (m *mixture) heal() { m.mu.Lock(); defer m.mu.Unlock(); m.healed = true }

func (m *mixture) faults(bad float64) func(memnode.Op, int) memnode.Fault {
	return func(memnode.Op, int) memnode.Fault {
		m.mu.Lock()
		defer m.mu.Unlock()
		f := memnode.Fault{Request: time.Duration(m.r.Int64N(int64(ms))), Reply: time.Duration(m.r.Int64N(int64(ms)))}
		if !m.healed && m.r.Float64() < bad {
			spoil(&f, m.r, m.r.IntN(5), 800*ms, 800*ms)
		}
		return f
	}
}

func (m *mixture) pushes(bad float64) func() (time.Duration, bool) {
	return func() (time.Duration, bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.healed && m.r.Float64() < bad {
			return time.Duration(m.r.Int64N(int64(800 * ms))), m.r.IntN(3) == 0
		}
		return time.Duration(m.r.Int64N(int64(ms))), false
	}
}

// process opens a Locker, works with it for its lifetime, and closes it.
func (m *mixture) process(ctx context.Context) {
	ways := lockertest.Ways(m.stores, func() time.Duration { return m.within(5 * ms) })
	opts := []redlock.Option{redlock.WithLocalHandoff(m.random(4))}
	if m.fenced {
		opts = append(opts, redlock.WithFence())
	}
	if m.random(4) == 0 {
		opts = append(opts, redlock.WithoutWaitQueue())
	}
	l := lockertest.Over(m.t, ways, opts...)
	lifetime := time.Hour
	if !m.open {
		lifetime = time.Duration(1+m.random(4000)) * ms
	}
	life, end := context.WithTimeout(ctx, lifetime)
	defer end()
	var work sync.WaitGroup
	work.Go(func() { m.disturb(life, ways) })
	for range 1 + m.random(3) {
		work.Go(func() {
			for life.Err() == nil {
				m.try(life, l)
				wait(life, time.Duration(m.random(30))*ms)
			}
		})
	}
	if m.open {
		<-ctx.Done()
		work.Wait()
		setAll(ways, ms)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lockers = append(m.lockers, l)
		return
	}
	if m.random(2) == 0 {
		<-life.Done()
	} else { // closed while it works
		wait(life, time.Duration(m.random(2000))*ms)
	}
	setAll(ways, ms)
	m.close(l)
	end()
	work.Wait()
}

// disturb changes the ways of a process.
func (m *mixture) disturb(life context.Context, ways []*lockertest.Way) {
	for life.Err() == nil && m.faulty {
		wait(life, time.Duration(m.random(1500))*ms)
		how := m.random(4)
		for i, w := range ways {
			switch how {
			case 0:
				w.Cut()
			case 1:
				w.Set(m.within(400 * ms))
			case 2:
				if i > len(ways)/3 {
					w.Cut()
				}
			default:
				w.Set(2 * ms)
			}
		}
	}
}

// try tries to hold the lock once, in any way.
func (m *mixture) try(life context.Context, l *redlock.Locker) {
	ttl := []time.Duration{30 * time.Second, 30 * time.Second, time.Second, 10 * ms, 100 * ms}[m.random(5)]
	var opts []redlock.LockOption
	if m.random(4) == 0 {
		opts = append(opts, redlock.WithMetadata("x"))
	}
	if m.random(4) == 0 {
		opts = append(opts, redlock.WithGrace(ttl/4))
	}
	if m.random(6) == 0 {
		opts = append(opts, redlock.WithMaxHold(ttl/2))
	}
	if m.random(4) == 0 {
		opts = append(opts, redlock.WithBackgroundRelease())
	}
	began, before := time.Now(), m.highestFence()
	ctx, stop := life, context.CancelFunc(func() {})
	if m.random(3) == 0 {
		ctx, stop = context.WithTimeout(life, time.Duration(m.random(500))*ms)
	}
	defer stop()
	hold := func(lock *redlock.Lock, err error, release bool) {
		if err != nil {
			return
		}
		m.got(lock, began, before)
		wait(life, time.Duration(m.random(20))*ms)
		if release {
			_ = lock.Release(context.Background())
		}
	}
	switch m.random(4) {
	case 0:
		lock, err := l.TryAcquire(ctx, "k", ttl, opts...)
		hold(lock, err, true)
	case 1:
		lock, err := l.Acquire(ctx, "k", ttl, append(opts, lockertest.Patient)...)
		hold(lock, err, m.open || m.random(8) > 0)
	case 2:
		lock, err := l.Acquire(ctx, "k", ttl, opts...)
		hold(lock, err, true)
	default:
		_ = redlock.Do(ctx, l, "k", ttl, func(ctx context.Context) error {
			lock, _ := redlock.FromContext(ctx)
			m.got(lock, began, before)
			wait(ctx, time.Duration(m.random(20))*ms)
			return nil
		}, opts...)
	}
}

func (m *mixture) highestFence() int64 { m.mu.Lock(); defer m.mu.Unlock(); return m.lastFence }

// got checks an acquired lock. The call began at began, when before was the highest fence.
func (m *mixture) got(lock *redlock.Lock, began time.Time, before int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locks++
	alive := m.current[:0]
	for _, c := range m.current {
		if !c.Valid() {
			continue
		}
		if lock.Valid() {
			m.t.Errorf("seed %d: two valid locks: %s until %v, %s until %v, asked for at %v, now %v", m.seed, c.Token(), c.Until(), lock.Token(), lock.Until(), began, time.Now())
		}
		alive = append(alive, c)
	}
	m.current = append(alive, lock)
	if m.fenced && lock.Fence() <= before {
		m.t.Errorf("seed %d: fence %d after %d", m.seed, lock.Fence(), before)
	}
	m.lastFence = max(m.lastFence, lock.Fence())
}

// close closes a Locker, which must not hang.
func (m *mixture) close(l *redlock.Locker) {
	done := make(chan error, 1)
	go func() { done <- l.Close() }()
	select {
	case err := <-done:
		if err != nil && !m.faulty {
			m.t.Errorf("seed %d: close: %v", m.seed, err)
		}
	case <-time.After(20 * time.Second):
		m.t.Errorf("seed %d: Close hangs", m.seed)
	}
}
