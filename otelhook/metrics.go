package otelhook

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/redis-kit/redlock"
)

// metrics are the instruments, as the package's doc lists them.
type metrics struct {
	keys bool // redlock.keys is an attribute

	acquireDuration metric.Float64Histogram
	acquireAttempts metric.Int64Histogram
	holdDuration    metric.Float64Histogram
	held            metric.Int64UpDownCounter
	lost            metric.Int64Counter
	nodeFailures    metric.Int64Counter
}

func newMetrics(keys bool, meter metric.Meter) metrics {
	m := metrics{keys: keys}
	var errs [6]error
	m.acquireDuration, errs[0] = meter.Float64Histogram("redlock.acquire.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of acquisitions, with the wait."),
		metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
	m.acquireAttempts, errs[1] = meter.Int64Histogram("redlock.acquire.attempts",
		metric.WithUnit("{attempt}"),
		metric.WithDescription("Number of times the nodes were asked in an acquisition."),
		metric.WithExplicitBucketBoundaries(0, 1, 2, 3, 5, 10, 20, 50, 100))
	m.holdDuration, errs[2] = meter.Float64Histogram("redlock.hold.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of the functions that With runs under a lock."),
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600))
	m.held, errs[3] = meter.Int64UpDownCounter("redlock.held",
		metric.WithUnit("{lock}"),
		metric.WithDescription("Number of locks that are held now."))
	m.lost, errs[4] = meter.Int64Counter("redlock.lost",
		metric.WithUnit("{lock}"),
		metric.WithDescription("Number of locks that ended before they were released."))
	m.nodeFailures, errs[5] = meter.Int64Counter("redlock.node.failures",
		metric.WithUnit("{failure}"),
		metric.WithDescription("Number of times a node did not answer, or answered with an error."))
	if err := errors.Join(errs[:]...); err != nil {
		otel.Handle(err)
		return newMetrics(keys, noop.Meter{}) // an instrument that failed may be nil
	}
	return m
}

// record measures an operation that has ended.
func (m *metrics) record(ctx context.Context, op *redlock.Op, took time.Duration, outcome outcome, err error) {
	switch op.Kind {
	case redlock.OpAcquire:
		m.acquireDuration.Record(ctx, took.Seconds(), m.with(op, outcome.attributes(err)...))
		m.acquireAttempts.Record(ctx, int64(op.Attempts), m.with(op, outcome.attribute()))
		if outcome == acquired && op.Lock != nil {
			m.countHeld(ctx, op)
		}
	case redlock.OpHold:
		m.holdDuration.Record(ctx, took.Seconds(), m.with(op, outcome.attributes(err)...))
	}
	for _, try := range op.Tries {
		m.countFailures(ctx, op.Kind, try, outcome)
	}
}

// countHeld relies on the lock's context, which ends exactly once, and not on the
// operations that end a lock. A lock also ends without an operation, where a middleware
// fails its acquisition or refuses its release.
func (m *metrics) countHeld(ctx context.Context, op *redlock.Op) {
	attributes := m.with(op)
	m.held.Add(ctx, 1, attributes)
	context.AfterFunc(op.Lock.Context(), func() { m.held.Add(ctx, -1, attributes) })
}

func (m *metrics) countLost(ctx context.Context, op *redlock.Op) {
	if loss, _ := lossOf(op.Lock); loss == lost {
		m.lost.Add(ctx, 1, m.with(op))
	}
}

// countFailures also counts silence, where an attempt failed because of it: an automatic
// extension gives up on nodes that do not answer. An attempt that was interrupted has
// another outcome.
func (m *metrics) countFailures(ctx context.Context, kind redlock.Kind, try redlock.Try, outcome outcome) {
	silence := outcome == noQuorum && awaited(try)
	for _, vote := range try.Votes {
		if vote.Kind == redlock.VoteFailed || vote.Kind == redlock.VoteSilent && silence {
			attributes := append(server(vote.Node), attribute.String("redlock.operation", kind.String()))
			m.nodeFailures.Add(ctx, 1, metric.WithAttributes(attributes...))
		}
	}
}

// with returns the attributes of a measurement, with the keys if they are wanted.
func (m *metrics) with(op *redlock.Op, attributes ...attribute.KeyValue) metric.MeasurementOption {
	if m.keys {
		attributes = append(attributes, keysOf(op))
	}
	return metric.WithAttributes(attributes...)
}
