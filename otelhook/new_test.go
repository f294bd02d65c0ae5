package otelhook_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/otelhook"
)

// global is a hook made before the global providers are set, and those. It is
// made once: otel hands over to the first that are set, and never again.
var global = sync.OnceValues(func() (redlock.Middleware, sdk) {
	hook, sdk := otelhook.New(), newSDK()
	otel.SetTracerProvider(sdk.tp)
	otel.SetMeterProvider(sdk.mp)
	return hook, sdk
})

func TestTheDefaultIsTheGlobalProvidersEvenIfSetLater(t *testing.T) {
	b := start(t, 1)
	b.hook, b.sdk = global()
	for name, hook := range map[string]redlock.Middleware{"before": b.hook, "after": otelhook.New()} {
		b.spans.Reset()
		acquired := b.points("redlock.acquire.duration")["redlock.outcome=acquired"]
		l := b.openWith([]redlock.Middleware{hook})
		require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }), name)
		for _, s := range []string{"redlock.acquire", "redlock.hold", "redlock.release"} {
			b.only(s)
		}
		require.Equal(t, acquired+1, b.points("redlock.acquire.duration")["redlock.outcome=acquired"], name)
	}
}

func TestNilIsRefusedAtConstruction(t *testing.T) {
	require.PanicsWithValue(t, "otelhook: WithTracerProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/trace/noop", func() { otelhook.WithTracerProvider(nil) })
	require.PanicsWithValue(t, "otelhook: WithMeterProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/metric/noop", func() { otelhook.WithMeterProvider(nil) })
	require.PanicsWithValue(t, "otelhook: option 1 is nil", func() { otelhook.New(otelhook.WithMetricKeys(), nil) })
}

// Spans go on without metrics, and metrics without spans.
func TestOneSignalDoesWithoutTheOther(t *testing.T) {
	for name, opt := range map[string]otelhook.Option{
		"no metrics": otelhook.WithMeterProvider(metricnoop.NewMeterProvider()),
		"no spans":   otelhook.WithTracerProvider(tracenoop.NewTracerProvider()),
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, 1, opt)
			l := b.open()
			require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }))
			err := redlock.Do(t.Context(), l, "k", brief, func(ctx context.Context) error { <-ctx.Done(); return nil }, redlock.WithoutAutoExtend(), persist())
			require.ErrorIs(t, err, redlock.ErrLost)
			if name == "no metrics" {
				require.Len(t, b.named("redlock.hold"), 2)
				require.Empty(t, b.collect())
				return
			}
			require.Empty(t, b.spans.Ended())
			require.Equal(t, map[string]int64{"redlock.outcome=completed": 1, "error.type=lost,redlock.outcome=lost": 1}, b.points("redlock.hold.duration"))
		})
	}
}

// brokenMeters makes meters that create no instruments.
type brokenMeters struct{ metricnoop.MeterProvider }

func (brokenMeters) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

type brokenMeter struct{ metricnoop.Meter }

var errBroken = errors.New("out of instruments")

func (brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errBroken
}

func TestAMeterThatFailsIsToldToOtelAndHarmsNothing(t *testing.T) {
	var told []error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { told = append(told, err) }))
	t.Cleanup(func() { otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) })
	b := start(t, 1, otelhook.WithMeterProvider(brokenMeters{}))
	require.Len(t, told, 1)
	require.ErrorIs(t, told[0], errBroken)
	require.NoError(t, redlock.Do(t.Context(), b.open(), "k", time.Minute, func(context.Context) error { return nil }))
	b.only("redlock.hold")
}

func TestOnlyTheAPIIsImported(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	deps := strings.Fields(string(out))
	require.Contains(t, deps, "go.opentelemetry.io/otel/trace")
	for _, dep := range deps {
		require.False(t, strings.HasPrefix(dep+"/", "go.opentelemetry.io/otel/sdk/"), dep)
		require.False(t, strings.HasPrefix(dep, "go.opentelemetry.io/otel/exporters"), dep)
	}
}
