// Package redlock is distributed locks for Go, by quorum over independent Redis
// or Valkey nodes: the Redlock algorithm
// (https://redis.io/docs/latest/develop/use/patterns/distributed-locks/).
//
//	locker, err := redlock.Open(ctx, []string{"redis://r1:6379", "redis://r2:6379", "redis://r3:6379"})
//	defer locker.Close()
//
//	profile, err := redlock.With(ctx, locker, "user:123:profile", 30*time.Second,
//		func(ctx context.Context) (Profile, error) { return update(ctx) })
//
// With acquires the lock, keeps it extended, runs the function and releases the
// lock. The function's ctx ends, with a cause, before any other process can own
// the lock, under the conditions that follow. A Lock from Locker.Acquire gives the same by hand.
//
// # What is promised
//
// A lock is held by whoever set a key of its name on more than half of the
// nodes, and is valid until the ttl has passed from the start of that attempt,
// less an allowance for clocks that drift. If clocks run within that allowance,
// and no node loses its data, the holds of one key do not overlap.
//
// A node that crashed and came back without its last writes votes twice: keep
// it away for longer than the longest ttl plus twice the clock skew. And a lock alone cannot stop the
// late write of a holder that was paused, which may reach a resource after the
// lock has passed on; what protects data must not rest on the lock alone.
//
// # How a lock ends
//
// Lock.Context, and the ctx that With gives to its function, end with a cause
// (context.Cause) that matches one of
//
//   - ErrLost: validity has ended without a successful extension, or enough
//     nodes answered that they no longer hold the lock for no quorum to be left;
//   - ErrReleased: it was released;
//   - ErrClosed: the Locker was closed.
//
// The end of validity is kept by a local timer, which waits for no node. A
// process that does not get to run (it was stopped, starved of CPU, or its
// machine suspended) runs the timer late, and its contexts may look alive when
// another process owns the lock; Lock.Valid goes by the clock and not by the
// timer.
//
// Time is the monotonic clock of the process. If the wall clock is set ahead, by
// NTP for example, the validity of every lock ends sooner by as much, as after a
// suspension, which looks the same; the cause of a loss says so. Setting it back
// changes nothing.
//
// # Middleware
//
// Every operation of a Locker (acquire, hold, extend, release, and being told of
// a loss) passes through the middleware given to WithMiddleware, the first
// outermost:
//
//	logging ┐                                   ┌ logging
//	 tracing ┐                                 ┌ tracing
//	   yours  ──── the operation, or your fn ────  yours
//
// Package middleware has logging and an HTTP wrapper, package otelhook traces
// and metrics.
package redlock
