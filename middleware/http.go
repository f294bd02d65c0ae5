package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/redis-kit/redlock"
)

// ErrKey is what went wrong if a request has no key to lock, or if the key
// function failed; it is then that function's error too.
var ErrKey = errors.New("redlock: the request has no key to lock")

// HTTP makes middleware that serves each request under the lock on its key,
// from before the handler runs until it has returned. It fits whatever takes a
// func(http.Handler) http.Handler, such as chi and gorilla/mux.
//
// The request's ctx ends when the client goes away, which net/http notices once
// the request's body has been read, and, with a cause that is redlock.ErrLost,
// when the lock is lost. redlock.FromContext finds the lock.
//
// It tries once to take the lock, whatever the Locker's retry policy says:
// clients can come back. With WithLock(redlock.WithRetry(…)) a request waits,
// for no longer than its ctx.
//
// Where the handler has not answered, HTTP does, with a Problem:
//
//	400               the request has no key: ErrKey
//	423, Retry-After  others hold the lock: redlock.ErrNotAcquired
//	503, Retry-After  too many nodes failed to decide: redlock.ErrNoQuorum
//	503, Retry-After  the Locker was closed: redlock.ErrClosed
//	503               the lock was lost before the handler wrote: redlock.ErrLost
//	500               any other error, such as redlock.ErrAlreadyHeld or that of
//	                  another redlock.Middleware
//
// The same goes for a request whose ctx ends while it waits: it gets 423 or 503
// by what the nodes last said, and 503 if they had not been asked. A client
// that has gone reads neither, but one that is still there, with a timeout
// around HTTP, must not take silence for success.
//
// The handler has written once it has sent a status (1xx apart), some of the
// body or a flush, or has hijacked the connection. From then on its answer
// stands. If the lock is lost before, the headers that it has set are dropped,
// and its attempts to write discarded, with redlock.ErrLost: they would be of a
// handler that has not noticed, or its error for what HTTP answers better.
//
// The http.ResponseWriter that it gets is an http.Flusher, an http.Hijacker if
// the server's is one, and works with http.ResponseController. A panic in it
// releases the lock and reaches the server unchanged. The lock is released when
// the handler returns, also if it has hijacked the connection. The server is
// to be shut down before the Locker is closed.
//
// HTTP panics if locker, key or an option is nil or ttl is not one that
// redlock accepts. What it returns panics if the handler is nil.
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
		// The server removes the files of a form from the request that it made.
		defer func() { r.MultipartForm = inner.MultipartForm }()
		next.ServeHTTP(guarded.asIs(), inner)
		return nil
	}, g.lock...)
	if err == nil && guarded.closed() { // a middleware has kept the loss to itself
		err = redlock.ErrLost
	}
	if err == nil || guarded.wrote {
		return
	}
	clear(w.Header())
	maps.Copy(w.Header(), before)
	g.answer(w, r, err)
}
