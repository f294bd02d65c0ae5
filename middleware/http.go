package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
)

// ErrKey means that a request has no key to lock, or one that cannot be locked, as the
// library uses the name itself, or that the key function failed. In that case the error
// matches the function's error too.
var ErrKey = errors.New("redlock: the request has no key to lock")

// HTTP returns middleware for [net/http] handlers: it serves each request under the
// lock on its key, from before the handler runs until it returns. It fits everything
// that takes a func(http.Handler) http.Handler, such as chi and gorilla/mux.
//
// The request's ctx ends when the lock is lost, with a cause that matches
// [redlock.ErrLost], and when the client goes away, which net/http notices once the
// request's body has been read. [redlock.FromContext] returns the lock.
//
// The lock is extended for as long as the handler runs. So a client that stalls in the
// middle of its body keeps the key for as long as the handler waits for the rest. Set a
// limit: ReadTimeout of the [http.Server], or [http.ResponseController.SetReadDeadline] in
// the handler. [redlock.WithMaxHold], given by [WithLock], ends the lock and the request's
// ctx after a time, but not a handler that does not look at its ctx.
//
// If clients choose the keys, they also choose how many keys there are. A released lock
// leaves nothing on the nodes, except that a lock with [redlock.WithFence] leaves a
// counter for the time of [redlock.WithFenceRetention]: see docs/operations.md.
//
// HTTP makes one attempt to acquire the lock, whatever the retry policy of the Locker
// is: clients can come back. With [WithLock] and [redlock.WithRetry] a request waits,
// for as long as its ctx allows.
//
// If the handler has not answered, HTTP does, with a [Problem]:
//
//	400               the request has no key that can be locked: ErrKey
//	423, Retry-After  another owner holds the lock: redlock.ErrNotAcquired
//	503, Retry-After  too many nodes failed or timed out: redlock.ErrNoQuorum
//	503, Retry-After  the Locker was closed: redlock.ErrClosed
//	503               the lock was lost before the handler wrote: redlock.ErrLost
//	500               any other error, such as redlock.ErrAlreadyHeld or that of
//	                  another redlock.Middleware
//
// A request whose ctx ends while it waits is answered too: with 423 or 503, according to
// the last answers of the nodes, and with 503 if they had not been asked. A client that
// has gone does not read the answer. But if a timeout ended ctx, the client may still be
// there, and must not take an empty answer for success.
//
// The handler has answered once it has sent a status (other than 1xx), a part of the
// body or a flush, or has hijacked the connection. From then on its answer stands. If
// the lock is lost before that, HTTP answers instead. It drops the headers that the
// handler has set, and the handler's writes fail with redlock.ErrLost.
//
// The handler's [http.ResponseWriter] is an [http.Flusher], an [http.Hijacker] if the
// server's is one, and works with [http.ResponseController]. A panic in the handler
// releases the lock and reaches the server unchanged. The lock is released when the
// handler returns, even if it has hijacked the connection. Shut the server down before
// you close the Locker.
//
// HTTP panics if locker, key or an option is nil, or if ttl is not between
// [redlock.MinTTL] and [redlock.MaxTTL]. The function that it returns panics if the
// handler is nil.
func HTTP(locker *redlock.Locker, ttl time.Duration, key func(*http.Request) (string, error), opts ...HTTPOption) func(http.Handler) http.Handler {
	switch {
	case locker == nil:
		panic("redlock: middleware.HTTP: locker is nil: must be a *redlock.Locker")
	case ttl < redlock.MinTTL || ttl > redlock.MaxTTL:
		panic(fmt.Sprintf("redlock: middleware.HTTP: ttl %v: must be from %v to %v", ttl, redlock.MinTTL, redlock.MaxTTL))
	case key == nil:
		panic("redlock: middleware.HTTP: key is nil: must be a function")
	}
	config := httpConfig{
		lock:       []redlock.LockOption{redlock.WithRetry(redlock.NoRetry())},
		otherwise:  http.StatusInternalServerError,
		retryAfter: min(ttl, maxRetryAfter),
		render:     func(w http.ResponseWriter, r *http.Request, p Problem) { p.ServeHTTP(w, r) },
	}
	for i, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("redlock: middleware.HTTP: option %d is nil", i))
		}
		config = o.applyHTTP(config)
	}
	g := &gate{httpConfig: config, locker: locker, ttl: ttl, key: key}
	return func(next http.Handler) http.Handler {
		if f, ok := next.(http.HandlerFunc); next == nil || ok && f == nil {
			panic("redlock: middleware.HTTP: the handler is nil: must be an http.Handler")
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}
}

type gate struct {
	httpConfig
	locker *redlock.Locker
	ttl    time.Duration
	key    func(*http.Request) (string, error)
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	key, err := g.key(r)
	switch {
	case err != nil:
		g.answer(w, r, fmt.Errorf("%w: %w", ErrKey, err))
		return
	case key == "" && g.optional:
		next.ServeHTTP(w, r)
		return
	case key == "":
		g.answer(w, r, ErrKey)
		return
	}
	before := w.Header().Clone()
	guarded := &writer{ResponseWriter: w}
	err = redlock.Do(r.Context(), g.locker, key, g.ttl, func(ctx context.Context) error {
		guarded.lock, _ = redlock.FromContext(ctx)
		inner := r.WithContext(ctx)
		// The server removes a form's files only from its own request.
		defer func() { r.MultipartForm = inner.MultipartForm }()
		next.ServeHTTP(guarded.asIs(), inner)
		return nil
	}, g.lock...)
	if errors.Is(err, node.ErrReserved) { // as the request says, after the Locker's prefix
		err = fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err == nil && guarded.closed() { // a middleware has swallowed the loss
		err = redlock.ErrLost
	}
	if err == nil || guarded.wrote {
		return
	}
	clear(w.Header())
	maps.Copy(w.Header(), before)
	g.answer(w, r, err)
}
