package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/redact"
)

// Log returns a middleware that logs the operations of a [redlock.Locker], for
// [redlock.WithMiddleware]:
//
//	DEBUG  lock acquired, lock extended, lock released, work under lock ended
//	INFO   lock acquired, but slowly (WithSlow) or not at the first attempt
//	       lock not acquired: another owner holds it, or the caller cancelled
//	       node answers again
//	WARN   lock lost
//	       lock not acquired, not extended, not released: too many nodes
//	       failed, or no longer hold it; or a middleware further in panicked
//	       on a goroutine of the Locker
//	       node failing
//
// An operation that failed before the nodes were asked, for its arguments or because a
// middleware refused it, is logged at INFO. An operation that failed only because the
// lock had ended, which was logged before, is logged at DEBUG. A failing node is logged
// once, and again only after it has answered. A hung node is reported only after an
// operation has timed out on it.
//
// The attributes, where they apply:
//
//	key        string         of the lock; keys, []string, if it has several
//	ttl        time.Duration  the requested ttl
//	duration   time.Duration  of the operation, including pauses between attempts
//	attempts   int            how many times the nodes were asked
//	waited     time.Duration  the pauses between them
//	until      time.Time      the end of the lock's validity
//	fence      int64          the lock's fencing token, if it has one
//	token      string         the owner token; at DEBUG only
//	error      error          or a string, if something like a token was cut out
//	node       string         the address of the node that fails or answers again
//	operation  string         the operation that the node was asked for: a redlock.Kind
//
// Each record is written after its operation, with its ctx and on its goroutine. A
// [slog.Handler] that blocks delays the operation, but not the end of a lock's context.
// Log panics if logger or an option is nil.
func Log(logger *slog.Logger, opts ...LogOption) redlock.Middleware {
	if logger == nil {
		panic("redlock: middleware.Log: logger is nil: must be a *slog.Logger")
	}
	config := logConfig{slow: time.Second}
	for i, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("redlock: middleware.Log: option %d is nil", i))
		}
		config = o.applyLog(config)
	}
	return func(next redlock.Handler) redlock.Handler {
		var nodes health // of one Locker
		return func(ctx context.Context, op *redlock.Op) error {
			start := time.Now()
			err := next(ctx, op)
			took := time.Since(start)
			nodes.observe(ctx, logger, op)
			if op.QueueErr != nil {
				logger.LogAttrs(ctx, slog.LevelWarn, "wait queues unavailable: polling", errorAttr(op.QueueErr))
			}
			if level := config.level(ctx, op, took, err); logger.Enabled(ctx, level) {
				logger.LogAttrs(ctx, level, message(op.Kind, err), attributes(op, level, took, err)...)
			}
			return err
		}
	}
}

// LogOption configures [Log].
type LogOption interface {
	applyLog(logConfig) logConfig
}

// WithSlow sets how long an acquire may take, including its pauses, before [Log] calls
// it slow. The default is 1 s. WithSlow panics if d is not above 0.
func WithSlow(d time.Duration) LogOption {
	if d <= 0 {
		panic(fmt.Sprintf("redlock: middleware.WithSlow(%v): must be above 0", d))
	}
	return logOption(func(c logConfig) logConfig { c.slow = d; return c })
}

type logConfig struct {
	slow time.Duration
}

type logOption func(logConfig) logConfig

func (o logOption) applyLog(c logConfig) logConfig { return o(c) }

func (c logConfig) level(ctx context.Context, op *redlock.Op, took time.Duration, err error) slog.Level {
	switch {
	case op.Kind == redlock.OpLost:
		return slog.LevelWarn
	case op.Kind == redlock.OpHold: // the error is fn's, or a loss, which OpLost reports
		return slog.LevelDebug
	case err == nil && op.Kind == redlock.OpAcquire && (op.Attempts > 1 || op.Wait == redlock.WaitGranted || took >= c.slow):
		return slog.LevelInfo
	case err == nil:
		return slog.LevelDebug
	case op.Kind == redlock.OpAcquire:
		if errors.Is(err, redlock.ErrNoQuorum) && !errors.Is(err, redlock.ErrClosed) && !cancelled(ctx, op) {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	}
	// An extension or a release failed.
	unasked := len(op.Tries) == 0
	switch {
	case errors.Is(err, redlock.ErrReleased), errors.Is(err, redlock.ErrClosed), unasked && errors.Is(err, redlock.ErrNotHeld):
		return slog.LevelDebug // the lock ended before or during the operation
	case errors.As(err, new(*redlock.PanicError)):
		return slog.LevelWarn
	case unasked, cancelled(ctx, op):
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// cancelled reports whether the caller ended the operation, and not the failure of nodes.
// A deadline does not count: hung nodes may be the reason that it was exceeded.
func cancelled(ctx context.Context, op *redlock.Op) bool {
	if !errors.Is(ctx.Err(), context.Canceled) || len(op.Tries) == 0 ||
		errors.Is(context.Cause(ctx), redlock.ErrLost) { // automatic extension has the lock's own ctx
		return false
	}
	return !slices.ContainsFunc(op.Tries[len(op.Tries)-1].Votes, failed)
}

func message(kind redlock.Kind, err error) string {
	switch {
	case kind == redlock.OpHold:
		return "work under lock ended"
	case kind == redlock.OpLost:
		return "lock lost"
	case err != nil:
		return "lock not " + participles[kind]
	}
	return "lock " + participles[kind]
}

var participles = map[redlock.Kind]string{
	redlock.OpAcquire: "acquired",
	redlock.OpExtend:  "extended",
	redlock.OpRelease: "released",
}

func attributes(op *redlock.Op, level slog.Level, took time.Duration, err error) []slog.Attr {
	attrs := make([]slog.Attr, 0, 8)
	if len(op.Keys) == 1 {
		attrs = append(attrs, slog.String("key", op.Keys[0]))
	} else {
		attrs = append(attrs, slog.Any("keys", slices.Clone(op.Keys))) // op's must not be kept
	}
	attrs = append(attrs, slog.Duration("ttl", op.TTL))
	if op.Kind != redlock.OpLost {
		attrs = append(attrs, slog.Duration("duration", took))
	}
	if op.Kind == redlock.OpAcquire {
		attrs = append(attrs, slog.Int("attempts", op.Attempts), slog.Duration("waited", op.Waited))
		if op.Wait != redlock.WaitNone {
			attrs = append(attrs, slog.String("wait", op.Wait.String()))
		}
	}
	if op.Lock != nil && op.Kind != redlock.OpRelease {
		attrs = append(attrs, slog.Time("until", op.Lock.Until()))
	}
	if op.Lock != nil && op.Lock.Fence() > 0 {
		attrs = append(attrs, slog.Int64("fence", op.Lock.Fence()))
	}
	if op.Lock != nil && level < slog.LevelInfo {
		attrs = append(attrs, slog.String("token", op.Lock.Token()))
	}
	if err != nil {
		attrs = append(attrs, errorAttr(err))
	}
	return attrs
}

func errorAttr(err error) slog.Attr {
	text := err.Error()
	if cut := redact.Tokens(text); cut != text {
		return slog.String("error", cut)
	}
	return slog.Any("error", err)
}
