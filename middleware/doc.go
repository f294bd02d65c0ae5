// Package middleware provides [Log], which logs what a [redlock.Locker] does, and
// [HTTP], which serves requests under a lock:
//
//	locker, err := redlock.Open(ctx, urls, redlock.WithMiddleware(middleware.Log(slog.Default())))
//
//	locked := middleware.HTTP(locker, 30*time.Second, middleware.PathKey("account:", "id"))
//	mux.Handle("POST /accounts/{id}/deposits", locked(deposits))
package middleware
