package otelhook

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/redis-kit/redlock"
)

// New returns a middleware that records spans and metrics of every operation of a
// [redlock.Locker], for [redlock.WithMiddleware]. It can be given to several Lockers.
// Put it first: then it sees what the other middleware makes of an operation, and spans
// that they start are children of its own.
//
// The middleware never blocks, never changes an operation or its error, and is safe for
// concurrent use. New panics if an option is nil. If the MeterProvider rejects an
// instrument, the error goes to [otel.Handle] and there are no metrics.
func New(opts ...Option) redlock.Middleware {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for i, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("otelhook: option %d is nil", i))
		}
		c = o.apply(c)
	}
	version := version()
	h := &hook{
		tracer: c.tracers.Tracer(scope, trace.WithInstrumentationVersion(version), trace.WithSchemaURL(semconv.SchemaURL)),
		metrics: newMetrics(c.metricKeys, c.meters.Meter(scope,
			metric.WithInstrumentationVersion(version), metric.WithSchemaURL(semconv.SchemaURL))),
	}
	return func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			if op.Kind == redlock.OpLost {
				h.lost(ctx, op)
				return next(ctx, op)
			}
			return h.observe(ctx, op, next)
		}
	}
}

// hook is the state of one middleware made by New.
type hook struct {
	tracer  trace.Tracer
	metrics metrics
}

// observe runs an operation under a span.
func (h *hook) observe(ctx context.Context, op *redlock.Op, next redlock.Handler) (err error) {
	ctx, span := startSpan(ctx, h.tracer, op)
	if op.Kind == redlock.OpHold && span.IsRecording() {
		next = noteLoss(span, next)
	}
	start := time.Now()
	err = errAborted // unless next returns
	// Deferred without recover: a panic keeps its stack, and Goexit passes.
	defer func() {
		took, outcome := time.Since(start), outcomeOf(op, err)
		h.metrics.record(ctx, op, took, outcome, err)
		endSpan(span, op, outcome, err)
	}()
	err = next(ctx, op)
	return err
}

// lost records that a lock ended without being released.
func (h *hook) lost(ctx context.Context, op *redlock.Op) {
	h.metrics.countLost(ctx, op)
	addLoss(trace.SpanFromContext(ctx), op)
}
