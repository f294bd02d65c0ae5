package otelhook

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/redis-kit/redlock"
)

func startSpan(ctx context.Context, tracer trace.Tracer, op *redlock.Op) (context.Context, trace.Span) {
	kind := trace.SpanKindClient
	if op.Kind == redlock.OpHold {
		kind = trace.SpanKindInternal
	}
	// The keys from the start on, for samplers.
	return tracer.Start(ctx, "redlock."+op.Kind.String(), trace.WithSpanKind(kind), trace.WithAttributes(keysOf(op)))
}

func endSpan(span trace.Span, op *redlock.Op, outcome outcome, err error) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	for _, try := range op.Tries {
		addAttempt(span, try)
	}
	span.SetAttributes(outcome.attributes(err)...)
	switch op.Kind {
	case redlock.OpAcquire:
		span.SetAttributes(
			attribute.Float64("redlock.ttl", op.TTL.Seconds()),
			attribute.Int("redlock.attempts", op.Attempts),
			attribute.Float64("redlock.waited", op.Waited.Seconds()))
		if op.Wait != redlock.WaitNone {
			span.SetAttributes(attribute.String("redlock.wait", op.Wait.String()))
		}
		if op.Lock != nil && op.Lock.Fence() > 0 {
			span.SetAttributes(attribute.Int64("redlock.fence", op.Lock.Fence()))
		}
		if op.QueueErr != nil {
			span.AddEvent("redlock.queue.failed", trace.WithAttributes(attribute.String("redlock.cause", printable(op.QueueErr.Error()))))
		}
	case redlock.OpExtend:
		span.SetAttributes(attribute.Float64("redlock.ttl", op.TTL.Seconds()))
	}
	if outcome.isError() {
		span.SetStatus(codes.Error, printable(err.Error()))
	}
}

func addAttempt(span trace.Span, try redlock.Try) {
	votes, awaited := 0, awaited(try)
	var refusals []string
	for _, vote := range try.Votes {
		switch {
		case vote.Kind == redlock.VoteGranted:
			votes++
		case vote.Kind != redlock.VoteSilent || awaited:
			refusals = append(refusals, printable(vote.Node+": "+vote.Err.Error()))
		}
	}
	attributes := []attribute.KeyValue{
		attribute.Int("redlock.nodes", len(try.Votes)),
		attribute.Int("redlock.votes", votes),
		attribute.Float64("redlock.attempt.duration", try.Took.Seconds()),
	}
	if len(refusals) > 0 {
		attributes = append(attributes, attribute.StringSlice("redlock.refusals", refusals))
	}
	span.AddEvent("redlock.attempt", trace.WithTimestamp(try.Start), trace.WithAttributes(attributes...))
}

// noteLoss records on a hold's span that the lock ended under the function, and
// when. The ctx of OpLost does not have that span.
func noteLoss(span trace.Span, next redlock.Handler) redlock.Handler {
	return func(ctx context.Context, op *redlock.Op) error {
		ended := make(chan time.Time, 1)
		stop := context.AfterFunc(op.Lock.Context(), func() { ended <- time.Now() })
		defer func() {
			at := time.Now()
			if !stop() {
				at = <-ended
			}
			addLoss(span, op, trace.WithTimestamp(at))
		}()
		return next(ctx, op)
	}
}

// addLoss does nothing if the lock did not end, or was released.
func addLoss(span trace.Span, op *redlock.Op, opts ...trace.EventOption) {
	loss, cause := lossOf(op.Lock)
	if cause == nil || !span.IsRecording() {
		return
	}
	opts = append(opts, trace.WithAttributes(keysOf(op), attribute.String("redlock.cause", printable(cause.Error()))))
	span.AddEvent("redlock."+string(loss), opts...)
}
