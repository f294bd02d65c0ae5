package simulation

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// fewer is the default number of histories: few under the race detector, which copes badly with
// very many timers in one process.
func fewer(usually, few int) int {
	if raceDetector {
		return few
	}
	return usually
}

// dice is the source of randomness of a history, for several goroutines.
type dice struct {
	mu sync.Mutex // guards r
	r  *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, stream))} }

func (d *dice) below(n int) int { d.mu.Lock(); defer d.mu.Unlock(); return d.r.IntN(n) }

// within returns a duration from 0 to less than most.
func (d *dice) within(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.r.Int64N(int64(most)))
}

// drifting returns the rate of a clock within the allowance of drift.
func drifting(r *rand.Rand) float64 { return 0.9905 + 0.019*r.Float64() }

// setAll gives all ways the same round trip.
func setAll(ways []*lockertest.Way, trip time.Duration) {
	for _, w := range ways {
		w.Set(trip)
	}
}

// spoil gives a call one of five faults. request and reply bound its delays.
func spoil(f *memnode.Fault, r *rand.Rand, how int, request, reply time.Duration) {
	switch how {
	case 0:
		f.LoseRequest = true
	case 1:
		f.LoseReply = true
	case 2:
		f.Reply = time.Duration(r.Int64N(int64(reply)))
	case 3:
		f.Request = time.Duration(r.Int64N(int64(request)))
	case 4:
		f.NotRun = true
	}
}

// wait lets d pass, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
