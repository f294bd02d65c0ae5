package redlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// instant is a node that grants everything at once: what remains is our own
// cost.
type instant struct{}

func (instant) Do(_ context.Context, batch []node.Command) error {
	for i := range batch {
		batch[i].Outcome = node.Done
	}
	return nil
}

func (instant) Server([]string) string { return "" }

func (instant) Listen(context.Context, string, func(), func(node.Push)) error {
	return node.ErrNoPush
}
func (instant) Samples() []string    { return []string{"k"} }
func (instant) CanPush() bool        { return true } // as servers can: keys are released through their queues
func (instant) Check([]string) error { return nil }
func (instant) Close()               {}

// cycle is a TryAcquire and a Release over three instant nodes.
func cycle(t testing.TB, opts ...Option) func() {
	config, err := configure(3, opts)
	require.NoError(t, err)
	l := newLocker(config, []voter{{"a", instant{}}, {"b", instant{}}, {"c", instant{}}})
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	ctx := context.Background()
	return func() {
		lock, err := l.TryAcquire(ctx, "k", time.Minute)
		if err == nil {
			err = lock.Release(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func passOn(next Handler) Handler {
	return func(ctx context.Context, op *Op) error { return next(ctx, op) }
}

func TestWithoutMiddlewareACycleAllocatesNothingForIt(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(2000, cycle(t)), float64(allocsPerCycle))
}

func TestAMiddlewareCostsTwoAllocationsPerOperation(t *testing.T) {
	const operations = 2 // acquire and release
	none, one := testing.AllocsPerRun(2000, cycle(t)), testing.AllocsPerRun(2000, cycle(t, WithMiddleware(passOn)))
	require.LessOrEqual(t, one, none+2*operations)
}

func BenchmarkMiddleware(b *testing.B) {
	for name, opts := range map[string][]Option{"none": nil, "one": {WithMiddleware(passOn)}} {
		b.Run("middleware="+name, func(b *testing.B) {
			run := cycle(b, opts...)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
