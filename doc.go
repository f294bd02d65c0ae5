// Package redlock provides distributed locks by quorum over independent Redis
// or Valkey nodes: the Redlock algorithm
// (https://redis.io/docs/latest/develop/use/patterns/distributed-locks/).
//
//	locker, err := redlock.Open(ctx, []string{"redis://r1:6379", "redis://r2:6379", "redis://r3:6379"})
//	if err != nil {
//		return err
//	}
//	defer locker.Close()
//
//	profile, err := redlock.With(ctx, locker, "user:123:profile", 30*time.Second,
//		func(ctx context.Context) (Profile, error) { return update(ctx) })
//
// [With] acquires the lock, keeps it extended, runs the function and releases
// the lock. The function's ctx ends, with a cause, before another process can
// own the lock, under the conditions that follow. [Locker.Acquire] returns a
// [Lock] to be used without a function. [Campaign] elects a leader.
//
// # What is promised
//
// An owner that has set the lock's key on more than half of the nodes holds the
// lock. The lock is valid for the ttl from the start of that attempt, less an
// allowance for clock drift. If clocks run within that allowance, and no node
// loses its data, the holds of one key do not overlap.
//
// A node that crashes and comes back without its last writes votes twice. Keep
// it away for longer than the longest ttl plus twice the clock skew, or have
// [WithRestartGuard] keep it from voting for that long.
//
// A lock alone cannot stop the late write of a holder that was paused: it may
// reach the resource after the lock has passed on. Data that must never be
// overwritten needs a check of its own at the resource.
//
// # Fences
//
// [WithFence] gives that check a number to compare, [Lock.Fence]. If one acquire
// of a key returned before another was called, the later one has the larger
// fence, even after pauses, expiry or clock jumps. The resource must refuse a
// fence below the highest that it has seen. docs/guarantees.md has the conditions,
// and examples of such resources in SQL, behind HTTP and in files.
//
// # How a lock ends
//
// The contexts of a lock, [Lock.Context] and the one that [With] gives to its
// function, end with a cause ([context.Cause]) that matches one of
//
//   - [ErrLost]: validity ended without a successful extension, or so many
//     nodes answered that they do not hold the lock that no quorum was left;
//   - [ErrReleased]: the lock was released;
//   - [ErrClosed]: the Locker was closed.
//
// A local timer ends them when validity ends; it waits for no node. A process
// that is stopped, starved of CPU, or on a suspended machine runs the timer
// late: its contexts may look alive while another process owns the lock.
// [Lock.Valid] looks at the clock and does not depend on the timer.
//
// Validity is measured by the monotonic clock of the process. If the wall clock is
// set ahead, by NTP for example, the validity of every lock ends that much sooner:
// a machine that was suspended looks the same from inside. The cause of the loss
// reports the jump. Setting the clock back changes nothing.
//
// # Middleware
//
// Every operation of a [Locker] (acquire, hold, extend, release, and the notice
// of a loss) runs inside the middleware given to [WithMiddleware], the first
// outermost:
//
//	logging ┐                                   ┌ logging
//	 tracing ┐                                 ┌ tracing
//	   yours  ──── the operation, or your fn ────  yours
//
// Package middleware provides logging and an HTTP wrapper, package otelhook
// traces and metrics.
package redlock
