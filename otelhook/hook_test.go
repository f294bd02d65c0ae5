package otelhook_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/otelhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// bench is real servers, and an SDK that records what the hook makes.
type bench struct {
	t       testing.TB
	servers []*redistest.Server
	hook    redlock.Middleware
	tracer  trace.Tracer // of the program around the Locker
	sdk
}

// sdk is providers, and the spans and metrics that they have received.
type sdk struct {
	tp      *sdktrace.TracerProvider
	spans   *tracetest.SpanRecorder
	mp      *sdkmetric.MeterProvider
	metrics *sdkmetric.ManualReader
}

func newSDK() sdk {
	spans, metrics := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	return sdk{
		sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), spans,
		sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)), metrics,
	}
}

func start(t testing.TB, nodes int, opts ...otelhook.Option) *bench {
	sdk := newSDK()
	return &bench{
		t:       t,
		servers: redistest.StartN(t, nodes),
		hook:    otelhook.New(append([]otelhook.Option{otelhook.WithTracerProvider(sdk.tp), otelhook.WithMeterProvider(sdk.mp)}, opts...)...),
		tracer:  sdk.tp.Tracer("program"),
		sdk:     sdk,
	}
}

// open returns a Locker over the nodes with the hook, which is closed at the end of the test.
func (b *bench) open(opts ...redlock.Option) *redlock.Locker {
	b.t.Helper()
	return b.openWith([]redlock.Middleware{b.hook}, opts...)
}

func (b *bench) openWith(middleware []redlock.Middleware, opts ...redlock.Option) *redlock.Locker {
	b.t.Helper()
	return lockertest.Open(b.t, redistest.URLs(b.servers), append(opts, redlock.WithMiddleware(middleware...))...)
}

// program starts a span of the program, and returns a ctx under it.
func (b *bench) program() (context.Context, trace.Span) {
	return b.tracer.Start(b.t.Context(), "program")
}

// brief is the ttl of locks that are to be lost. A loaded machine may need a
// few attempts to get one; persist lets it.
const brief = 200 * ms

func persist() redlock.LockOption { return redlock.WithRetry(redlock.FixedRetry(10*ms, 10*ms, -1)) }

func (b *bench) do(s *redistest.Server, args ...string) {
	b.t.Helper()
	_, err := s.Do(args...)
	require.NoError(b.t, err)
}

func (b *bench) holdAll(l *redlock.Lock) func() bool {
	return func() bool {
		for _, s := range b.servers {
			if v, _ := s.Get(b.t, l.Key()); v != l.Token() {
				return false
			}
		}
		return true
	}
}

// span is a span as the tests compare it: without the times, and with its
// parent by name.
type span struct {
	Name, Parent string
	Kind         trace.SpanKind
	Status       sdktrace.Status
	Attributes   attributes
	Events       []event
}

type event struct {
	Name       string
	Attributes attributes
}

type attributes map[attribute.Key]any

func attributesOf(kvs []attribute.KeyValue) attributes {
	all := make(attributes)
	for _, kv := range kvs {
		all[kv.Key] = kv.Value.AsInterface()
	}
	return all
}

// named returns the spans of this name that have ended.
func (b *bench) named(name string) []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(b.spans.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != name })
}

// only returns the only span of this name.
func (b *bench) only(name string) sdktrace.ReadOnlySpan {
	b.t.Helper()
	spans := b.named(name)
	require.Len(b.t, spans, 1, name)
	return spans[0]
}

// last returns the span of this name that ended last.
func (b *bench) last(name string) sdktrace.ReadOnlySpan {
	b.t.Helper()
	spans := b.named(name)
	require.NotEmpty(b.t, spans, name)
	return spans[len(spans)-1]
}

// parent returns the name of a span's parent, ended or not.
func (b *bench) parent(s sdktrace.ReadOnlySpan) string {
	for _, p := range b.spans.Started() {
		if p.SpanContext().Equal(s.Parent()) {
			return p.Name()
		}
	}
	return ""
}

// view returns the comparable part of a span. It checks the durations and drops them.
func (b *bench) view(s sdktrace.ReadOnlySpan) span {
	b.t.Helper()
	v := span{s.Name(), b.parent(s), s.SpanKind(), s.Status(), attributesOf(s.Attributes()), nil}
	delete(v.Attributes, "redlock.waited")
	for _, e := range s.Events() {
		seen := event{e.Name, attributesOf(e.Attributes)}
		require.False(b.t, e.Time.Before(s.StartTime()), "%s began before %s", e.Name, s.Name())
		if e.Name == "redlock.attempt" {
			took, ok := seen.Attributes["redlock.attempt.duration"].(float64)
			require.True(b.t, ok)
			require.Positive(b.t, took)
			require.LessOrEqual(b.t, took, s.EndTime().Sub(e.Time).Seconds())
			delete(seen.Attributes, "redlock.attempt.duration")
		}
		v.Events = append(v.Events, seen)
	}
	return v
}

func (b *bench) events(s sdktrace.ReadOnlySpan, name string) []sdktrace.Event {
	return slices.DeleteFunc(slices.Clone(s.Events()), func(e sdktrace.Event) bool { return e.Name != name })
}

// collect returns all metrics of the hook, by name.
func (b *bench) collect() map[string]metricdata.Metrics {
	b.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(b.t, b.metrics.Collect(context.Background(), &all))
	found := make(map[string]metricdata.Metrics)
	for _, s := range all.ScopeMetrics {
		require.Equal(b.t, scope, s.Scope.Name)
		for _, m := range s.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// points returns a metric's values by their attributes, as "a=1,b=2". The value of a
// histogram is the number of its records. A sum of 0 is left out.
func (b *bench) points(name string) map[string]int64 {
	b.t.Helper()
	points := make(map[string]int64)
	put := func(set attribute.Set, n int64) {
		if n != 0 {
			points[set.Encoded(attribute.DefaultEncoder())] = n
		}
	}
	switch data := b.collect()[name].Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			put(p.Attributes, p.Value)
		}
	case metricdata.Histogram[int64]:
		for _, p := range data.DataPoints {
			put(p.Attributes, int64(p.Count))
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			put(p.Attributes, int64(p.Count))
		}
	case nil:
	default:
		b.t.Fatalf("%s is a %T", name, data)
	}
	return points
}

// noneHeld waits until redlock.held is back to 0: it follows the end of a
// lock's context on a goroutine of its own.
func (b *bench) noneHeld() {
	b.t.Helper()
	eventually.True(b.t, "none held", func() bool { return len(b.points("redlock.held")) == 0 })
}

// failuresOf returns redlock.node.failures of a node.
func (b *bench) failuresOf(s *redistest.Server, operation string) int64 {
	b.t.Helper()
	host, port, _ := strings.Cut(s.Addr(), ":")
	return b.points("redlock.node.failures")["redlock.operation="+operation+",server.address="+host+",server.port="+port]
}

var (
	unset = sdktrace.Status{Code: codes.Unset}
	keyK  = []string{"k"}
)

const scope = "github.com/redis-kit/redlock/otelhook"
