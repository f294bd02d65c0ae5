package otelhook_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

func failed(description string) sdktrace.Status {
	return sdktrace.Status{Code: codes.Error, Description: description}
}

func TestWithIsASpanForEachOperationAndTheWorkIsUnderTheHold(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	ctx, program := b.program()
	_, err := redlock.WithAll(ctx, l, []string{"k2", "k1"}, 30*time.Second, func(ctx context.Context) (int, error) {
		_, work := b.tracer.Start(ctx, "work")
		defer work.End()
		lock, _ := redlock.FromContext(ctx)
		return 1, lock.Extend(ctx, time.Minute)
	})
	require.NoError(t, err)
	program.End()

	keys := []string{"k1", "k2"}
	attempt := []event{{"redlock.attempt", attributes{"redlock.nodes": int64(1), "redlock.votes": int64(1)}}}
	require.Equal(t, span{
		"redlock.acquire", "program", trace.SpanKindClient, unset,
		attributes{"redlock.keys": keys, "redlock.outcome": "acquired", "redlock.ttl": 30.0, "redlock.attempts": int64(1)},
		attempt,
	}, b.view(b.only("redlock.acquire")))
	require.Equal(t, span{
		"redlock.hold", "program", trace.SpanKindInternal, unset,
		attributes{"redlock.keys": keys, "redlock.outcome": "completed"},
		nil,
	}, b.view(b.only("redlock.hold")))
	require.Equal(t, span{
		"redlock.extend", "redlock.hold", trace.SpanKindClient, unset,
		attributes{"redlock.keys": keys, "redlock.outcome": "extended", "redlock.ttl": 60.0},
		attempt,
	}, b.view(b.only("redlock.extend")))
	require.Equal(t, span{
		"redlock.release", "program", trace.SpanKindClient, unset,
		attributes{"redlock.keys": keys, "redlock.outcome": "released"},
		attempt,
	}, b.view(b.only("redlock.release")))
	require.Equal(t, "redlock.hold", b.parent(b.only("work")))
	require.Len(t, b.spans.Ended(), 6)
	for _, s := range b.spans.Ended() {
		require.Equal(t, program.SpanContext().TraceID(), s.SpanContext().TraceID())
		if s.Name() != "program" && s.Name() != "work" {
			require.Equal(t, scope, s.InstrumentationScope().Name)
			require.NotEmpty(t, s.InstrumentationScope().Version)
			require.Contains(t, s.InstrumentationScope().SchemaURL, "opentelemetry.io/schemas/")
		}
	}
}

func TestEveryAttemptOfAWaitIsAnEventAtItsStart(t *testing.T) {
	b := start(t, 1)
	var tries []redlock.Try
	l := b.openWith([]redlock.Middleware{b.hook, lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		err := next(ctx, op)
		tries = op.Tries
		return err
	})}, redlock.WithoutWaitQueue())
	b.do(b.servers[0], "SET", "k", "another", "PX", "500")
	lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, -1)))
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))

	s := b.only("redlock.acquire")
	require.Equal(t, "polled", attributesOf(s.Attributes())["redlock.wait"])
	v := b.view(s)
	require.Greater(t, len(tries), 1)
	require.Equal(t, int64(len(tries)), v.Attributes["redlock.attempts"])
	require.GreaterOrEqual(t, attributesOf(s.Attributes())["redlock.waited"], 0.05)
	require.Len(t, v.Events, len(tries))
	for i, try := range tries {
		require.True(t, s.Events()[i].Time.Equal(try.Start))
		require.Equal(t, try.Took.Seconds(), attributesOf(s.Events()[i].Attributes)["redlock.attempt.duration"])
		want := event{"redlock.attempt", attributes{"redlock.nodes": int64(1), "redlock.votes": int64(0),
			"redlock.refusals": []string{b.servers[0].Addr() + ": held by another owner"}}}
		if i == len(tries)-1 {
			want.Attributes = attributes{"redlock.nodes": int64(1), "redlock.votes": int64(1)}
		}
		require.Equal(t, want, v.Events[i])
	}
	require.Equal(t, map[string]int64{"redlock.outcome=acquired": 1}, b.points("redlock.acquire.attempts"))
}

func TestASpanTellsHowAWaitEnded(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	b.do(b.servers[0], "SET", "k", "another", "PX", "100")
	lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	require.Equal(t, "granted", attributesOf(b.only("redlock.acquire").Attributes())["redlock.wait"])
}

func TestASpanTellsTheFence(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute, redlock.WithFence())
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	require.Equal(t, lock.Fence(), attributesOf(b.only("redlock.acquire").Attributes())["redlock.fence"])
}

func TestContentionIsNoErrorAndNoFailureOfANode(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	b.do(b.servers[0], "SET", "k", "another")
	ctx, _ := b.program()
	_, err := l.TryAcquire(ctx, "k", time.Second)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.Equal(t, span{
		"redlock.acquire", "program", trace.SpanKindClient, unset,
		attributes{"redlock.keys": keyK, "redlock.outcome": "contended", "redlock.ttl": 1.0, "redlock.attempts": int64(1)},
		[]event{{"redlock.attempt", attributes{"redlock.nodes": int64(1), "redlock.votes": int64(0),
			"redlock.refusals": []string{b.servers[0].Addr() + ": held by another owner"}}}},
	}, b.view(b.only("redlock.acquire")))
	require.Equal(t, map[string]int64{"redlock.outcome=contended": 1}, b.points("redlock.acquire.duration"))
	require.Equal(t, map[string]int64{"redlock.outcome=contended": 1}, b.points("redlock.acquire.attempts"))
	require.Empty(t, b.points("redlock.node.failures"))
	require.Empty(t, b.points("redlock.held"))
}

func TestNoQuorumIsAnErrorAndEachNodeThatFailedIsCounted(t *testing.T) {
	b := start(t, 3)
	l := b.open(redlock.WithNodeTimeout(time.Second))
	lock, err := l.TryAcquire(t.Context(), "held", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", b.holdAll(lock))
	b.servers[1].Pause()
	b.servers[2].Pause()
	ctx, _ := b.program()

	_, err = l.TryAcquire(ctx, "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	said := func(i int) string { return b.servers[i].Addr() + ": no reply within 1s" }
	attempt := []event{{"redlock.attempt", attributes{"redlock.nodes": int64(3), "redlock.votes": int64(1),
		"redlock.refusals": []string{said(1), said(2)}}}}
	require.Equal(t, span{
		"redlock.acquire", "program", trace.SpanKindClient,
		failed(fmt.Sprintf(`redlock: acquire "k": 1 of 3 nodes granted, 2 needed: %s; %s`, said(1), said(2))),
		attributes{"redlock.keys": keyK, "redlock.outcome": "no_quorum", "error.type": "no_quorum", "redlock.ttl": 60.0, "redlock.attempts": int64(1)},
		attempt,
	}, b.view(b.last("redlock.acquire")))
	require.Equal(t, map[string]int64{"redlock.outcome=acquired": 1, "error.type=no_quorum,redlock.outcome=no_quorum": 1}, b.points("redlock.acquire.duration"))
	require.Equal(t, map[string]int64{"redlock.outcome=acquired": 1, "redlock.outcome=no_quorum": 1}, b.points("redlock.acquire.attempts"))

	held := []string{"held"}
	err = lock.Extend(ctx, 0)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.Equal(t, span{
		"redlock.extend", "program", trace.SpanKindClient, failed(err.Error()),
		attributes{"redlock.keys": held, "redlock.outcome": "no_quorum", "error.type": "no_quorum", "redlock.ttl": 60.0},
		attempt,
	}, b.view(b.only("redlock.extend")))

	err = lock.Release(ctx)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.Equal(t, span{
		"redlock.release", "program", trace.SpanKindClient, failed(err.Error()),
		attributes{"redlock.keys": held, "redlock.outcome": "no_quorum", "error.type": "no_quorum"},
		attempt,
	}, b.view(b.only("redlock.release")))

	require.Len(t, b.points("redlock.node.failures"), 6)
	for _, operation := range []string{"acquire", "extend", "release"} {
		require.Zero(t, b.failuresOf(b.servers[0], operation), operation)
		require.Equal(t, int64(1), b.failuresOf(b.servers[1], operation), operation)
		require.Equal(t, int64(1), b.failuresOf(b.servers[2], operation), operation)
	}
	b.noneHeld() // though the release failed
	b.servers[1].Resume()
	b.servers[2].Resume()
}

func TestAutomaticExtensionsAreUnderTheSpanThatAcquired(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	ctx, program := b.program()
	err := redlock.Do(ctx, l, "k", 2*time.Second, func(context.Context) error {
		eventually.True(t, "extended", func() bool { return len(b.named("redlock.extend")) > 0 })
		return nil
	})
	require.NoError(t, err)
	v := b.view(b.named("redlock.extend")[0])
	v.Events[0].Attributes["redlock.votes"] = min(v.Events[0].Attributes["redlock.votes"].(int64), 2) // the third may have come
	require.Equal(t, span{
		"redlock.extend", "program", trace.SpanKindClient, unset,
		attributes{"redlock.keys": keyK, "redlock.outcome": "extended", "redlock.ttl": 2.0},
		[]event{{"redlock.attempt", attributes{"redlock.nodes": int64(3), "redlock.votes": int64(2)}}},
	}, v)

	// A manual lock, after the span that acquired it has ended.
	lock, err := l.Acquire(ctx, "manual", 2*time.Second)
	require.NoError(t, err)
	program.End()
	before := len(b.named("redlock.extend"))
	require.NoError(t, lock.AutoExtend(0))
	eventually.True(t, "extended", func() bool { return len(b.named("redlock.extend")) > before })
	require.NoError(t, lock.Release(t.Context()))
	require.Equal(t, program.SpanContext().SpanID(), b.last("redlock.extend").Parent().SpanID())
	require.Equal(t, trace.SpanID{}, b.last("redlock.release").Parent().SpanID(), "the release has the span of its own ctx, which is none")
}

// An automatic extension waits for hung nodes less long than one that the caller asked
// for, and its votes do not show that.
func TestAnAutomaticExtensionThatIsNotAnsweredCountsTheNodes(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	err := redlock.Do(t.Context(), l, "k", 4*time.Second, func(ctx context.Context) error {
		b.servers[1].Pause()
		b.servers[2].Pause()
		eventually.True(t, "not extended", func() bool {
			spans := b.named("redlock.extend")
			return len(spans) > 0 && b.view(spans[len(spans)-1]).Attributes["redlock.outcome"] == "no_quorum"
		})
		b.servers[1].Resume()
		b.servers[2].Resume()
		return context.Cause(ctx)
	})
	require.NoError(t, err)
	require.Positive(t, b.failuresOf(b.servers[1], "extend"))
	require.Positive(t, b.failuresOf(b.servers[2], "extend"))
	require.Zero(t, b.failuresOf(b.servers[0], "extend"))
	for _, s := range b.named("redlock.extend") {
		if v := b.view(s); v.Attributes["redlock.outcome"] == "no_quorum" {
			require.Len(t, v.Events[0].Attributes["redlock.refusals"], 2, "who was silent")
			require.Equal(t, int64(1), v.Events[0].Attributes["redlock.votes"])
		}
	}
}

func TestALossIsToldOnTheHoldWhenItHappens(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	ctx, program := b.program()
	var cause error
	var until, stopped time.Time
	err := redlock.Do(ctx, l, "k", brief, func(ctx context.Context) error {
		for _, s := range b.servers {
			s.Pause()
		}
		<-ctx.Done()
		cause = context.Cause(ctx)
		lock, _ := redlock.FromContext(ctx)
		until = lock.Until()
		for _, s := range b.servers {
			s.Resume()
		}
		eventually.True(t, "counted", func() bool { return len(b.points("redlock.lost")) > 0 && len(b.points("redlock.held")) == 0 })
		for _, s := range b.servers {
			eventually.True(t, "no key is left", func() bool { return len(s.Keys(t)) == 0 })
		}
		stopped = time.Now()
		return nil
	}, persist())
	require.ErrorIs(t, err, redlock.ErrLost)
	program.End()

	loss := event{"redlock.lost", attributes{"redlock.keys": keyK, "redlock.cause": cause.Error()}}
	hold := b.only("redlock.hold")
	require.Equal(t, span{
		"redlock.hold", "program", trace.SpanKindInternal, failed(err.Error()),
		attributes{"redlock.keys": keyK, "redlock.outcome": "lost", "error.type": "lost"},
		[]event{loss},
	}, b.view(hold))
	require.True(t, hold.Events()[0].Time.Before(stopped), "at the time of the loss, not at that of the function's return")
	require.False(t, hold.Events()[0].Time.Before(until), "and not before")
	require.Equal(t, []event{loss}, b.view(b.only("program")).Events)

	release := b.view(b.only("redlock.release"))
	require.Equal(t, codes.Error, release.Status.Code)
	require.Equal(t, attributes{"redlock.keys": keyK, "redlock.outcome": "not_held", "error.type": "not_held"}, release.Attributes)
	require.Empty(t, release.Events, "the nodes were not asked")
	require.Equal(t, map[string]int64{"": 1}, b.points("redlock.lost"))
	require.Equal(t, map[string]int64{"error.type=lost,redlock.outcome=lost": 1}, b.points("redlock.hold.duration"))
}

func TestALossOfAManualLockIsToldOnTheSpanThatAcquiredIt(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	ctx, program := b.program()
	lock, err := l.Acquire(ctx, "k", brief, persist())
	require.NoError(t, err)
	<-lock.Context().Done()
	told := func(n int64) {
		eventually.True(t, "told", func() bool { return b.points("redlock.lost")[""] == n })
		b.noneHeld()
	}
	told(1)
	loss := event{"redlock.lost", attributes{"redlock.keys": keyK, "redlock.cause": context.Cause(lock.Context()).Error()}}
	eventually.True(t, "an event", func() bool { return len(program.(sdktrace.ReadOnlySpan).Events()) == 1 })
	program.End()
	require.Equal(t, []event{loss}, b.view(b.only("program")).Events)
	require.Empty(t, b.events(b.only("redlock.acquire"), "redlock.lost"))

	// With a span that has ended, and without one, the loss is counted.
	_, err = l.Acquire(ctx, "k2", brief, persist())
	require.NoError(t, err)
	told(2)
	_, err = l.Acquire(t.Context(), "k3", brief, persist())
	require.NoError(t, err)
	told(3)
	require.Len(t, program.(sdktrace.ReadOnlySpan).Events(), 1)

	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
	require.Equal(t, "not_held", b.view(b.only("redlock.extend")).Attributes["error.type"])
}

func TestALossThatTheNodesTellIsALossToo(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	take := func(key string) *redlock.Lock {
		lock, err := l.TryAcquire(t.Context(), key, time.Minute)
		require.NoError(t, err)
		eventually.True(t, "all nodes hold it", b.holdAll(lock))
		for _, s := range b.servers {
			b.do(s, "SET", key, "another")
		}
		return lock
	}
	require.ErrorIs(t, take("k").Extend(t.Context(), 0), redlock.ErrNotHeld)
	eventually.True(t, "counted", func() bool { return b.points("redlock.lost")[""] == 1 })
	v := b.view(b.only("redlock.extend"))
	require.Equal(t, "not_held", v.Attributes["redlock.outcome"])
	require.Equal(t, codes.Error, v.Status.Code)
	require.Len(t, v.Events[0].Attributes["redlock.refusals"], 2)

	require.ErrorIs(t, take("k2").Release(t.Context()), redlock.ErrNotHeld)
	v = b.view(b.only("redlock.release"))
	require.Equal(t, "not_held", v.Attributes["redlock.outcome"])
	require.Equal(t, codes.Error, v.Status.Code)
	require.Len(t, v.Events[0].Attributes["redlock.refusals"], 2)

	b.noneHeld()
	require.Equal(t, int64(1), b.points("redlock.lost")[""], "a lock that was released is not lost, even if another had it")
	require.Empty(t, b.points("redlock.node.failures"), "all of them answered")
}

func TestCloseIsNotALoss(t *testing.T) {
	b := start(t, 3)
	l := b.open()
	ctx, program := b.program()
	manual, err := l.TryAcquire(ctx, "manual", time.Minute)
	require.NoError(t, err)
	entered, waiting, done := make(chan struct{}), make(chan error), make(chan error)
	go func() {
		done <- redlock.Do(ctx, l, "k", time.Minute, func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			return nil
		})
	}()
	<-entered
	go func() {
		_, err := l.Acquire(context.Background(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
		waiting <- err
	}()
	eventually.True(t, "it waits", func() bool {
		return len(b.spans.Started()) == 1+2+1+1 // program, two acquisitions, a hold, and the one that waits
	})
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-done, redlock.ErrClosed)
	require.ErrorIs(t, <-waiting, redlock.ErrClosed)
	require.ErrorIs(t, manual.Release(ctx), redlock.ErrClosed)
	require.ErrorIs(t, manual.Extend(ctx, 0), redlock.ErrClosed)
	program.End()

	require.Equal(t, map[string]int64{"error.type=closed,redlock.outcome=closed": 1}, b.points("redlock.hold.duration"))
	require.Equal(t, map[string]int64{"redlock.outcome=acquired": 2, "error.type=closed,redlock.outcome=closed": 1}, b.points("redlock.acquire.duration"))
	hold := b.view(b.only("redlock.hold"))
	require.Equal(t, codes.Error, hold.Status.Code)
	require.Equal(t, []event{{"redlock.closed", attributes{"redlock.keys": keyK, "redlock.cause": "redlock: locker closed"}}}, hold.Events)
	require.Len(t, b.events(b.only("program"), "redlock.closed"), 2)
	for _, name := range []string{"redlock.release", "redlock.extend"} {
		v := b.view(b.last(name))
		require.Equal(t, "ended", v.Attributes["redlock.outcome"])
		require.Equal(t, unset, v.Status, "nothing is wrong")
	}
	require.Empty(t, b.points("redlock.lost"))
	b.noneHeld()
}

func TestAnExtensionAfterTheReleaseIsNoError(t *testing.T) {
	b := start(t, 1)
	lock, err := b.open().TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrReleased)
	v := b.view(b.only("redlock.extend"))
	require.Equal(t, attributes{"redlock.keys": keyK, "redlock.outcome": "ended", "redlock.ttl": 60.0}, v.Attributes)
	require.Equal(t, unset, v.Status)
}

func TestAWaitThatItsContextEndedSaysHow(t *testing.T) {
	b := start(t, 1)
	l := b.open(redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
	b.do(b.servers[0], "SET", "k", "another")
	timeout, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("shutting down"))
	for outcome, ctx := range map[string]context.Context{"timeout": timeout, "cancelled": cancelled} {
		_, err := l.Acquire(ctx, "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		v := b.view(b.last("redlock.acquire"))
		require.Equal(t, outcome, v.Attributes["redlock.outcome"])
		require.Equal(t, outcome, v.Attributes["error.type"])
		require.Equal(t, failed(err.Error()), v.Status)
		require.Equal(t, int64(1), b.points("redlock.acquire.duration")["error.type="+outcome+",redlock.outcome="+outcome])
	}
	// The cancelled acquire had not asked the nodes.
	require.Equal(t, map[string]int64{"redlock.outcome=timeout": 1, "redlock.outcome=cancelled": 1}, b.points("redlock.acquire.attempts"))

	lock, err := l.Acquire(t.Context(), "k2", time.Minute)
	require.NoError(t, err)
	b.servers[0].Pause()
	short, stop := context.WithTimeout(t.Context(), 50*ms)
	defer stop()
	require.ErrorIs(t, lock.Extend(short, 0), context.DeadlineExceeded)
	b.servers[0].Resume()
	v := b.view(b.only("redlock.extend"))
	require.Equal(t, "timeout", v.Attributes["error.type"])
	require.Equal(t, []string{b.servers[0].Addr() + ": not waited for"}, v.Events[0].Attributes["redlock.refusals"], "who was silent")
	require.Empty(t, b.points("redlock.node.failures"), "it was not waited for as long as a node has")
}

type refusal struct{}

func (refusal) Error() string { return "not today" }

func TestOtherErrorsAreToldByTheirType(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	err := redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return fmt.Errorf("work: %w", refusal{}) })
	require.Error(t, err)
	const refusalType = "github.com/redis-kit/redlock/otelhook_test.refusal"
	require.Equal(t, span{
		"redlock.hold", "", trace.SpanKindInternal, failed("work: not today"),
		attributes{"redlock.keys": keyK, "redlock.outcome": "error", "error.type": refusalType},
		nil,
	}, b.view(b.only("redlock.hold")))
	require.Equal(t, map[string]int64{"error.type=" + refusalType + ",redlock.outcome=error": 1}, b.points("redlock.hold.duration"))

	for kind, name := range map[redlock.Kind]string{redlock.OpAcquire: "redlock.acquire", redlock.OpExtend: "redlock.extend", redlock.OpRelease: "redlock.release"} {
		l := b.openWith([]redlock.Middleware{b.hook, lockertest.On(kind, func(context.Context, *redlock.Op, redlock.Handler) error { return refusal{} })})
		if lock, err := l.TryAcquire(t.Context(), name, time.Minute); err == nil {
			_ = lock.Extend(t.Context(), 0)
			_ = lock.Release(t.Context())
		}
		v := b.view(b.last(name))
		require.Equal(t, refusalType, v.Attributes["error.type"], name)
		require.Equal(t, "error", v.Attributes["redlock.outcome"], name)
		require.Equal(t, failed("not today"), v.Status, name)
	}
}

// A function's error may be another lock's.
func TestAHoldIsNotLostNorContendedByTheErrorsOfOtherLocks(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	for _, sentinel := range []error{redlock.ErrLost, redlock.ErrNotAcquired, redlock.ErrNotHeld, redlock.ErrClosed, redlock.ErrNoQuorum} {
		err := redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return sentinel })
		require.Equal(t, sentinel, err)
		v := b.view(b.last("redlock.hold"))
		require.Equal(t, "error", v.Attributes["redlock.outcome"], sentinel.Error())
		require.Equal(t, codes.Error, v.Status.Code)
		require.Empty(t, v.Events)
	}
	for outcome, ended := range map[string]error{"timeout": context.DeadlineExceeded, "cancelled": context.Canceled} {
		require.Error(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return ended }))
		require.Equal(t, outcome, b.view(b.last("redlock.hold")).Attributes["error.type"])
	}
}

func TestAPanicPassesAndItsSpansEnd(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	require.PanicsWithValue(t, "work", func() {
		_ = redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { panic("work") })
	})
	var exits sync.WaitGroup
	exits.Go(func() {
		_ = redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { runtime.Goexit(); return nil })
	})
	exits.Wait()
	holds := b.named("redlock.hold")
	require.Len(t, holds, 2)
	for _, s := range holds {
		require.Equal(t, span{
			"redlock.hold", "", trace.SpanKindInternal, failed("a panic or runtime.Goexit"),
			attributes{"redlock.keys": keyK, "redlock.outcome": "aborted", "error.type": "aborted"},
			nil,
		}, b.view(s))
	}
	require.Len(t, b.named("redlock.release"), 2)
	require.Equal(t, map[string]int64{"error.type=aborted,redlock.outcome=aborted": 2}, b.points("redlock.hold.duration"))
	b.noneHeld()
}

func TestWhatComesAfterTheHookIsUnderItsSpans(t *testing.T) {
	b := start(t, 1)
	inner := func(next redlock.Handler) redlock.Handler {
		return func(ctx context.Context, op *redlock.Op) error {
			ctx, s := b.tracer.Start(ctx, "inner "+op.Kind.String())
			defer s.End()
			return next(ctx, op)
		}
	}
	l := b.openWith([]redlock.Middleware{b.hook, inner})
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(ctx context.Context) error {
		_, work := b.tracer.Start(ctx, "work")
		work.End()
		return nil
	}))
	for _, kind := range []string{"acquire", "hold", "release"} {
		require.Equal(t, "redlock."+kind, b.parent(b.only("inner "+kind)))
	}
	require.Equal(t, "inner hold", b.parent(b.only("work")))
}
