package nemesis

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/proof/history"
)

var fencedHolds = flag.Int64("nemesis.fences", 4_000, "holds for which fences are checked")

// Row 13: acquisitions are held back on their way and land late, while 16 contenders of
// four processes take locks, release them, or let them expire. Fences are unique and in
// order, and a register that refuses writes below the highest fence loses no update.
func TestFencesAreUniqueAndInOrderAmongStragglers(t *testing.T) {
	const shortTTL = 100 * ms
	bed := NewTestbed(t, 5, shortTTL)
	h := history.New()
	keys := []string{"a", "b", "c", "d"}
	registers := make(map[string]*register)
	for _, key := range keys {
		registers[key] = new(register)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all, stragglers sync.WaitGroup
	var held, confirms, expired atomic.Int64
	for process := range 4 {
		l := bed.Open(redlock.WithFence(), redlock.WithMiddleware(func(next redlock.Handler) redlock.Handler {
			return func(ctx context.Context, op *redlock.Op) error {
				err := next(ctx, op)
				if op.Kind == redlock.OpAcquire && err == nil {
					confirms.Add(int64(op.Confirms))
				}
				return err
			}
		}))
		defer l.Close()
		for i := range 4 {
			id := process*4 + i
			all.Go(func() {
				random := rand.New(rand.NewPCG(13, uint64(id)))
				for held.Load() < *fencedHolds && !t.Failed() {
					key := keys[random.IntN(len(keys))]
					hold := history.Hold{Key: key, Contender: id, Sent: h.Now()}
					lock, err := l.Acquire(ctx, key, bed.TTL, redlock.WithRetry(redlock.FixedRetry(bed.TTL, bed.TTL, -1)))
					if err != nil {
						continue // the nodes were delayed for too long
					}
					held.Add(1)
					hold.Returned, hold.Token, hold.Fence, hold.Until = h.Now(), lock.Token(), lock.Fence(), h.At(lock.Until())
					if random.IntN(100) == 0 {
						expired.Add(1)
						<-lock.Context().Done()
						hold.Ended = h.Now()
					} else if lock.Valid() {
						registers[key].write(t, lock)
					}
					hold.Released = h.Now()
					_ = lock.Release(ctx)
					h.AddHold(hold)
				}
			})
		}
	}
	random := rand.New(rand.NewPCG(13, 13))
	stragglers.Go(func() {
		for ctx.Err() == nil {
			proxies := bed.some(random, 1+random.IntN(bed.minority()))
			bed.each(proxies, func(i int) { bed.Proxies[i].HoldRequests(true) })
			pause(ctx, between(random, ms, bed.TTL/2))
			bed.each(proxies, func(i int) { bed.Proxies[i].HoldRequests(false) })
			pause(ctx, between(random, ms, bed.TTL/4))
		}
	})
	began := time.Now()
	all.Wait()
	cancel()
	stragglers.Wait()
	require.Empty(t, h.Check())
	t.Logf("%d holds in %v, %d of them let expire, %d more round trips for their fences", held.Load(), time.Since(began).Round(ms), expired.Load(), confirms.Load())
}

// register is a resource that refuses a fence below the highest that it has seen.
type register struct {
	mu      sync.Mutex // guards highest
	highest int64
}

var errStale = errors.New("the fence is below the highest")

func (r *register) set(fence int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if fence < r.highest {
		return errStale
	}
	r.highest = fence
	return nil
}

// write writes under a lock that is valid; if it still is after that, it must not have been
// refused.
func (r *register) write(t *testing.T, lock *redlock.Lock) {
	if err := r.set(lock.Fence()); err != nil && lock.Valid() {
		t.Errorf("the holder of a valid lock was refused: %v", err)
	}
}
