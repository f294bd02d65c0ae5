package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/redis-kit/redlock"
)

// HTTPOption configures [HTTP].
type HTTPOption interface {
	applyHTTP(httpConfig) httpConfig
}

// WithLock gives options to each request's lock, such as [redlock.WithMaxHold], or
// [redlock.WithRetry] to have requests wait. They take precedence over the Locker's
// defaults. WithLock panics if an option is nil. An option that does not fit, such as a
// grace above the ttl, is detected only when a lock is acquired: every request then gets
// 500.
func WithLock(opts ...redlock.LockOption) HTTPOption {
	if i := slices.Index(opts, nil); i >= 0 {
		panic(fmt.Sprintf("redlock: middleware.WithLock: option %d is nil", i))
	}
	return httpOption(func(c httpConfig) httpConfig {
		c.lock = append(slices.Clip(c.lock), opts...)
		return c
	})
}

// WithOptionalKey serves requests whose key is empty without a lock. By default such
// requests are refused with [ErrKey]. A request for which the key function fails is
// always refused.
func WithOptionalKey() HTTPOption {
	return httpOption(func(c httpConfig) httpConfig { c.optional = true; return c })
}

// WithStatus answers with status if the error matches one of errs ([errors.Is]). Without
// errs, status replaces 500. If several WithStatus match, the last one counts:
//
//	WithStatus(http.StatusConflict, redlock.ErrNotAcquired)
//	WithStatus(http.StatusTooManyRequests, errOfAnotherMiddleware)
//	WithStatus(499, context.Canceled) // the client has gone: for the log
//
// The rest of the answer stays the same. WithStatus panics if status is not between 200
// and 599, or if one of errs is nil.
func WithStatus(status int, errs ...error) HTTPOption {
	if status < 200 || status > 599 {
		panic(fmt.Sprintf("redlock: middleware.WithStatus(%d): must be between 200 and 599", status))
	}
	if i := slices.Index(errs, nil); i >= 0 {
		panic(fmt.Sprintf("redlock: middleware.WithStatus(%d): error %d is nil", status, i))
	}
	return httpOption(func(c httpConfig) httpConfig {
		if len(errs) == 0 {
			c.otherwise = status
			return c
		}
		c.statuses = append(slices.Clip(c.statuses), statusOf{status, errs})
		return c
	})
}

// WithRetryAfter sets the Retry-After header, rounded up to whole seconds; 0 leaves it
// out. The default is the ttl, but at most 5 s: if the holder has died the lock is free
// after the ttl, and otherwise it may be free at any moment. WithRetryAfter panics if d
// is negative.
func WithRetryAfter(d time.Duration) HTTPOption {
	if d < 0 {
		panic(fmt.Sprintf("redlock: middleware.WithRetryAfter(%v): must not be negative", d))
	}
	return httpOption(func(c httpConfig) httpConfig { c.retryAfter = d; return c })
}

// WithRenderer answers with render instead of [Problem.ServeHTTP], which render may call.
// Retry-After has been set by then. If render writes nothing, p.Status is sent without a
// body. render is called concurrently. WithRenderer panics if render is nil.
func WithRenderer(render func(w http.ResponseWriter, r *http.Request, p Problem)) HTTPOption {
	if render == nil {
		panic("redlock: middleware.WithRenderer: render is nil: must be a function")
	}
	return httpOption(func(c httpConfig) httpConfig { c.render = render; return c })
}

const maxRetryAfter = 5 * time.Second

type httpConfig struct {
	lock       []redlock.LockOption
	optional   bool
	statuses   []statusOf
	otherwise  int
	retryAfter time.Duration
	render     func(http.ResponseWriter, *http.Request, Problem)
}

type statusOf struct {
	status int
	errs   []error
}

type httpOption func(httpConfig) httpConfig

func (o httpOption) applyHTTP(c httpConfig) httpConfig { return o(c) }
