package otelhook_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/otelhook"
)

// everyMetric makes a point of every instrument.
func everyMetric(t *testing.T, b *bench) {
	l := b.open()
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }))
	_, err := l.Acquire(t.Context(), "lost", brief, persist())
	require.NoError(t, err)
	eventually.True(t, "lost", func() bool { return len(b.points("redlock.lost")) > 0 })
	b.servers[0].Kill()
	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
}

func TestTheInstrumentsAreTheOnesOfTheDoc(t *testing.T) {
	b := start(t, 1)
	everyMetric(t, b)
	var table []string
	for _, m := range b.collect() {
		kind := ""
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			kind = "histogram"
			require.NotEmpty(t, data.DataPoints[0].Bounds)
			bounds := map[string][]float64{
				"redlock.acquire.duration": {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
				"redlock.hold.duration":    {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600},
			}
			require.Equal(t, bounds[m.Name], data.DataPoints[0].Bounds, m.Name)
		case metricdata.Histogram[int64]:
			kind = "histogram"
			require.Equal(t, []float64{0, 1, 2, 3, 5, 10, 20, 50, 100}, data.DataPoints[0].Bounds, m.Name)
		case metricdata.Sum[int64]:
			kind = "counter"
			if !data.IsMonotonic {
				kind = "updowncounter"
			}
		}
		table = append(table, strings.Join([]string{m.Name, kind, m.Unit, m.Description}, " "))
	}
	require.ElementsMatch(t, []string{
		"redlock.acquire.duration histogram s Duration of acquisitions, with the wait.",
		"redlock.acquire.attempts histogram {attempt} Number of times the nodes were asked in an acquisition.",
		"redlock.hold.duration histogram s Duration of the functions that With runs under a lock.",
		"redlock.held updowncounter {lock} Number of locks that are held now.",
		"redlock.lost counter {lock} Number of locks that ended before they were released.",
		"redlock.node.failures counter {failure} Number of times a node did not answer, or answered with an error.",
	}, table)

	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	flat := strings.Join(strings.Fields(string(doc)), " ")
	for _, row := range table {
		require.Contains(t, flat, row)
	}
}

func TestDurationsAndAttemptsAreWhatTheyWere(t *testing.T) {
	b := start(t, 1)
	l := b.open(redlock.WithoutWaitQueue(), redlock.WithRetry(redlock.FixedRetry(100*ms, 0, 2)))
	b.do(b.servers[0], "SET", "k", "another")
	began := time.Now()
	_, err := l.Acquire(t.Context(), "k", time.Minute)
	outside := time.Since(began)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	all := b.collect()
	waited := all["redlock.acquire.duration"].Data.(metricdata.Histogram[float64]).DataPoints[0].Sum
	require.GreaterOrEqual(t, waited, 0.2, "two pauses of 100 ms, in seconds")
	require.LessOrEqual(t, waited, outside.Seconds())
	require.Equal(t, int64(3), all["redlock.acquire.attempts"].Data.(metricdata.Histogram[int64]).DataPoints[0].Sum)

	var inside time.Duration
	began = time.Now()
	require.NoError(t, redlock.Do(t.Context(), l, "k2", time.Minute, func(ctx context.Context) error {
		began := time.Now()
		_, err := l.Acquire(ctx, "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		inside = time.Since(began)
		return nil
	}))
	outside = time.Since(began)
	hold := b.collect()["redlock.hold.duration"].Data.(metricdata.Histogram[float64]).DataPoints[0].Sum
	require.GreaterOrEqual(t, hold, inside.Seconds())
	require.LessOrEqual(t, hold, outside.Seconds())
}

func TestKeysAreNoMetricAttributesUnlessAskedFor(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprint("asked=", asked), func(t *testing.T) {
			var opts []otelhook.Option
			if asked {
				opts = append(opts, otelhook.WithMetricKeys())
			}
			b := start(t, 1, opts...)
			everyMetric(t, b)
			l := b.open()
			b.servers[0].Restart()
			lock, err := l.Acquire(t.Context(), "now", time.Minute, persist())
			require.NoError(t, err)
			for _, name := range []string{"redlock.acquire.duration", "redlock.acquire.attempts", "redlock.hold.duration", "redlock.held", "redlock.lost", "redlock.node.failures"} {
				points := b.points(name)
				require.NotEmpty(t, points, name)
				for set := range points {
					require.Equal(t, asked && name != "redlock.node.failures", strings.Contains(set, "redlock.keys="), "%s: %s", name, set)
				}
			}
			if asked {
				require.Equal(t, map[string]int64{`redlock.keys=["now"]`: 1}, b.points("redlock.held"))
			}
			require.NoError(t, lock.Release(t.Context()))
			b.noneHeld()
		})
	}
}

func TestHeldIsExactWhateverOtherMiddlewareDoes(t *testing.T) {
	refused := errors.New("refused")
	refuse := func(context.Context, *redlock.Op, redlock.Handler) error { return refused }
	failAfter := func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		return errors.Join(next(ctx, op), refused)
	}
	panicAfter := func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		_ = next(ctx, op)
		panic(refused)
	}
	lie := func(context.Context, *redlock.Op, redlock.Handler) error { return nil }
	b := start(t, 1)
	hold := func(l *redlock.Locker) {
		defer func() { _ = recover() }()
		if lock, err := l.TryAcquire(t.Context(), "k", time.Minute); err == nil {
			require.Equal(t, map[string]int64{"": 1}, b.points("redlock.held"))
			_ = lock.Release(t.Context())
		}
	}
	for _, kind := range []redlock.Kind{redlock.OpAcquire, redlock.OpRelease} {
		for i, do := range []func(context.Context, *redlock.Op, redlock.Handler) error{refuse, failAfter, panicAfter, lie} {
			m := lockertest.On(kind, do)
			for _, chain := range [][]redlock.Middleware{{b.hook, m}, {m, b.hook}} {
				l := b.openWith(chain)
				hold(l)
				b.noneHeld()
				require.NoError(t, l.Close(), "%v %d", kind, i)
				eventually.True(t, "no key is left", func() bool { return len(b.servers[0].Keys(t)) == 0 })
			}
		}
	}
}

func TestNoFailureOfANode(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	// The key is gone: a release finds nothing, an extension sets it again.
	for _, name := range []string{"release", "extend"} {
		lock, err := l.TryAcquire(t.Context(), name, time.Minute)
		require.NoError(t, err)
		eventually.True(t, "all nodes hold it", b.holdAll(lock))
		for _, s := range b.servers {
			b.do(s, "DEL", name)
		}
		if name == "release" {
			require.ErrorContains(t, lock.Release(t.Context()), "not held here")
		} else {
			require.ErrorContains(t, lock.Extend(t.Context(), 0), "key was missing")
		}
	}
	// A node that is not waited for, since the caller gave up.
	b.servers[1].Pause()
	b.servers[2].Pause()
	time.AfterFunc(50*ms, cancel)
	_, err := l.TryAcquire(ctx, "k", time.Hour)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "not waited for")
	b.servers[1].Resume()
	b.servers[2].Resume()
	require.Empty(t, b.points("redlock.node.failures"))
}

// An extension that a lock's end overtook was not sent, or not waited for.
func TestAnExtensionOvertakenByTheReleaseIsNoFailure(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	for i := range 50 { // a key each: what the extension has set again is gone only later
		lock, err := l.TryAcquire(t.Context(), fmt.Sprint("k", i), time.Minute)
		require.NoError(t, err)
		var both sync.WaitGroup
		both.Go(func() { _ = lock.Extend(t.Context(), 0) })
		both.Go(func() { _ = lock.Release(t.Context()) })
		both.Wait()
	}
	require.Empty(t, b.points("redlock.node.failures"))
	require.Empty(t, b.points("redlock.lost"))
	b.noneHeld()
}

func TestConcurrentUseCountsEverything(t *testing.T) {
	b := start(t, 3)
	var mu sync.Mutex
	ops := make(map[string]int) // as the innermost middleware sees them
	var held, losses atomic.Int64
	count := func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			err := next(ctx, op)
			mu.Lock()
			ops["redlock."+op.Kind.String()]++
			mu.Unlock()
			switch {
			case op.Kind == redlock.OpAcquire && err == nil:
				held.Add(1)
			case op.Kind == redlock.OpLost && errors.Is(err, redlock.ErrLost):
				losses.Add(1)
			}
			return err
		}
	}
	ctx, program := b.program()
	var all sync.WaitGroup
	for range 2 { // one hook for several Lockers
		l := b.openWith([]redlock.Middleware{b.hook, count})
		for worker := range 4 {
			all.Go(func() {
				for i := range 10 {
					key := fmt.Sprint("k", (worker+i)%3)
					_ = redlock.Do(ctx, l, key, time.Minute, func(ctx context.Context) error {
						lock, _ := redlock.FromContext(ctx)
						return lock.Extend(ctx, 0)
					}, redlock.WithRetry(redlock.FixedRetry(ms, ms, 3)))
				}
			})
			all.Go(func() {
				for i := range 5 {
					lock, err := l.Acquire(ctx, fmt.Sprint("brief", worker, i), brief, persist())
					if !assert.NoError(t, err) {
						return
					}
					if i%2 == 0 {
						_ = lock.AutoExtend(0)
						_ = lock.Extend(ctx, 0)
						_ = lock.Release(ctx)
						continue
					}
					<-lock.Context().Done()
				}
			})
		}
	}
	all.Wait()
	eventually.True(t, "all losses are told", func() bool { return b.points("redlock.lost")[""] == losses.Load() && losses.Load() > 0 })
	b.noneHeld()
	program.End()

	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"redlock.acquire", "redlock.hold", "redlock.extend", "redlock.release"} {
		assert.Len(t, b.named(name), ops[name], name)
	}
	require.Equal(t, held.Load(), b.points("redlock.acquire.duration")["redlock.outcome=acquired"])
}
