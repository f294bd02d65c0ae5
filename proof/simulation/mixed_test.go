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
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/memnode"
)

var simMixed = flag.Int("sim.mixed", fewer(100, 10), "histories of Lockers that come and go to simulate")

// mixed runs Lockers that come and go. They try once, wait, and wait without queues, over ways that
// lose and delay calls, and are cut. No two locks may be valid at once, fences must grow, and a
// closed Locker must leave no key. With open, Lockers stay open until all is healed.
func mixed(t *testing.T, seed uint64, open bool) (locks, left int) {
	r := rand.New(rand.NewPCG(seed, 11))
	var mu sync.Mutex
	random := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
	n := []int{1, 2, 3, 3, 3, 4, 5, 7}[r.IntN(8)]
	fenced := r.IntN(2) == 0
	faulty := r.IntN(3) > 0
	stores := make([]*memnode.Backend, n)
	healed := false
	for i := range stores {
		stores[i] = &memnode.Backend{Mute: r.IntN(3) == 0, Rate: 0.9905 + 0.019*r.Float64()}
		bad := r.Float64() * 0.2
		if !faulty {
			bad = 0
		}
		stores[i].Faults(func(memnode.Op, int) memnode.Fault {
			mu.Lock()
			defer mu.Unlock()
			f := memnode.Fault{Request: time.Duration(r.Int64N(int64(ms))), Reply: time.Duration(r.Int64N(int64(ms)))}
			if !healed && r.Float64() < bad {
				switch r.IntN(5) {
				case 0:
					f.LoseRequest = true
				case 1:
					f.LoseReply = true
				case 2:
					f.Reply = time.Duration(r.Int64N(int64(800 * ms)))
				case 3:
					f.Request = time.Duration(r.Int64N(int64(800 * ms)))
				case 4:
					f.NotRun = true
				}
			}
			return f
		})
		stores[i].Pushes(func() (time.Duration, bool) {
			mu.Lock()
			defer mu.Unlock()
			if !healed && r.Float64() < bad {
				return time.Duration(r.Int64N(int64(800 * ms))), r.IntN(3) == 0
			}
			return time.Duration(r.Int64N(int64(ms))), false
		})
	}
	var lockers []*redlock.Locker
	lifetime := func(d int) time.Duration {
		if open {
			return time.Hour
		}
		return time.Duration(1+d) * ms
	}
	var current []*redlock.Lock
	var lastFence int64
	got := func(lock *redlock.Lock, began time.Time, fenceBefore int64) {
		mu.Lock()
		defer mu.Unlock()
		locks++
		alive := current[:0]
		for _, c := range current {
			if c.Valid() {
				if lock.Valid() {
					t.Errorf("seed %d: two valid locks: %s until %v, %s until %v, now %v", seed, c.Token(), c.Until(), lock.Token(), lock.Until(), time.Now())
				}
				alive = append(alive, c)
			}
		}
		current = append(alive, lock)
		if fenced && lock.Fence() <= fenceBefore {
			t.Errorf("seed %d: fence %d after %d", seed, lock.Fence(), fenceBefore)
		}
		lastFence = max(lastFence, lock.Fence())
	}
	fence := func() int64 { mu.Lock(); defer mu.Unlock(); return lastFence }
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 2 + r.IntN(4) {
		all.Go(func() {
			for ctx.Err() == nil {
				ways := lockertest.Ways(stores, func() time.Duration { return time.Duration(random(int(5 * ms))) })
				opts := []redlock.Option{redlock.WithLocalHandoff(random(4))}
				if fenced {
					opts = append(opts, redlock.WithFence())
				}
				if random(4) == 0 {
					opts = append(opts, redlock.WithoutWaitQueue())
				}
				l := lockertest.Over(t, ways, opts...)
				life, end := context.WithTimeout(ctx, lifetime(random(4000)))
				var work sync.WaitGroup
				work.Go(func() {
					for life.Err() == nil && faulty {
						wait(life, time.Duration(random(1500))*ms)
						how := random(4)
						for i, w := range ways {
							switch how {
							case 0:
								w.Cut()
							case 1:
								w.Set(time.Duration(random(int(400 * ms))))
							case 2:
								if i > n/3 {
									w.Cut()
								}
							default:
								w.Set(2 * ms)
							}
						}
					}
				})
				for range 1 + random(3) {
					work.Go(func() {
						for life.Err() == nil {
							ttl := []time.Duration{30 * time.Second, 30 * time.Second, time.Second, 10 * ms, 100 * ms}[random(5)]
							var o []redlock.LockOption
							if random(4) == 0 {
								o = append(o, redlock.WithMetadata("x"))
							}
							if random(4) == 0 {
								o = append(o, redlock.WithGrace(ttl/4))
							}
							if random(6) == 0 {
								o = append(o, redlock.WithMaxHold(ttl/2))
							}
							began, f := time.Now(), fence()
							c, stop := life, context.CancelFunc(func() {})
							if random(3) == 0 {
								c, stop = context.WithTimeout(life, time.Duration(random(500))*ms)
							}
							switch random(4) {
							case 0:
								if lock, err := l.TryAcquire(c, "k", ttl, o...); err == nil {
									got(lock, began, f)
									wait(life, time.Duration(random(20))*ms)
									_ = lock.Release(context.Background())
								}
							case 1:
								if lock, err := l.Acquire(c, "k", ttl, append(o, lockertest.Patient)...); err == nil {
									got(lock, began, f)
									wait(life, time.Duration(random(20))*ms)
									if open || random(8) > 0 {
										_ = lock.Release(context.Background())
									}
								}
							case 2:
								if lock, err := l.Acquire(c, "k", ttl, o...); err == nil {
									got(lock, began, f)
									wait(life, time.Duration(random(20))*ms)
									_ = lock.Release(context.Background())
								}
							default:
								_ = redlock.Do(c, l, "k", ttl, func(ctx context.Context) error {
									lock, _ := redlock.FromContext(ctx)
									got(lock, began, f)
									wait(ctx, time.Duration(random(20))*ms)
									return nil
								}, o...)
							}
							stop()
							wait(life, time.Duration(random(30))*ms)
						}
					})
				}
				if open {
					<-ctx.Done()
					end()
					work.Wait()
					setAll(ways, ms)
					mu.Lock()
					lockers = append(lockers, l)
					mu.Unlock()
					return
				}
				if random(2) == 0 { // closed in the middle of its work
					<-life.Done()
				} else {
					wait(life, time.Duration(random(2000))*ms)
				}
				setAll(ways, ms)
				done := make(chan struct{})
				go func() {
					if err := l.Close(); err != nil && !faulty {
						t.Errorf("seed %d: close: %v", seed, err)
					}
					close(done)
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Errorf("seed %d: Close hangs", seed)
				}
				end()
				work.Wait()
			}
		})
	}
	all.Wait()
	mu.Lock()
	healed = true
	mu.Unlock()
	time.Sleep(6 * time.Second)
	for i, s := range stores {
		if s.Len() > 0 {
			left++
			tok, _ := s.Get("k")
			if !faulty || open {
				t.Errorf("seed %d: keys left on node %d of %d: %s", seed, i, n, tok)
			}
		}
	}
	for _, l := range lockers {
		if err := l.Close(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	time.Sleep(time.Minute)
	return locks, left
}

// Lockers of all kinds come and go, and try in all ways at once: no two of them have a lock
// at the same time, fences grow, and no key is left where nothing went wrong.
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
