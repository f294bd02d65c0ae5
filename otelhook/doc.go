// Package otelhook provides OpenTelemetry traces and metrics of what a
// [redlock.Locker] does. [New] returns a middleware. It uses only the API of
// OpenTelemetry: the program chooses the SDK, if any.
//
//	locker, err := redlock.Open(ctx, urls, redlock.WithMiddleware(otelhook.New()))
//
// # Spans
//
//	the caller's span
//	├─ redlock.acquire     CLIENT    one acquire, with the whole wait
//	├─ redlock.hold        INTERNAL  the function that With runs
//	│  └─ what the function does
//	├─ redlock.extend      CLIENT    one extension
//	└─ redlock.release     CLIENT    one release
//
// The parent is the span in the ctx of the call. The parent of an automatic extension is
// the span in the ctx that acquired the lock, even if that span has ended.
//
// Attributes of the spans:
//
//	redlock.keys      string[]  all: the keys, sorted
//	redlock.outcome   string    all: see below
//	error.type        string    all, if the status is Error: see below
//	redlock.ttl       double    acquire, extend: the requested ttl, in seconds
//	redlock.attempts  int       acquire: how often the nodes were asked
//	redlock.waited    double    acquire: the time spent between attempts, in seconds
//	redlock.wait      string    acquire: how a wait ended: polled, granted, handed over; absent without one
//	redlock.fence     int       acquire: the lock's fencing token; absent without one
//
// Events:
//
//	redlock.attempt   on acquire, extend and release: the nodes were asked
//	  redlock.nodes             int       how many there are
//	  redlock.votes             int       how many granted before the attempt was decided
//	  redlock.refusals          string[]  the other answers, by node; absent if there are none
//	  redlock.attempt.duration  double    seconds
//	redlock.queue.failed  on acquire: the nodes' queues cannot be used; once for each Locker
//	  redlock.cause             string    why
//	redlock.lost      the lock ended before it was released
//	redlock.closed    the lock ended because its Locker was closed
//	  redlock.keys              string[]  its keys
//	  redlock.cause             string    the cause of its context
//
// The event of an attempt has the time at which the attempt began. A node whose answer
// was not needed, because the others had decided, counts neither as a vote nor as a
// refusal. The end of a lock is an event on the span of the hold, if there is one, and on
// the span that the lock was acquired under, unless that has ended. It is not on
// redlock.acquire.
//
// # Metrics
//
//	redlock.acquire.duration  histogram      s          Duration of acquisitions, with the wait.
//	redlock.acquire.attempts  histogram      {attempt}  Number of times the nodes were asked in an acquisition.
//	redlock.hold.duration     histogram      s          Duration of the functions that With runs under a lock.
//	redlock.held              updowncounter  {lock}     Number of locks that are held now.
//	redlock.lost              counter        {lock}     Number of locks that ended before they were released.
//	redlock.node.failures     counter        {failure}  Number of times a node did not answer, or answered with an error.
//
// Their attributes, besides redlock.keys if [WithMetricKeys] is given:
//
//	redlock.acquire.duration  redlock.outcome, and error.type if it is an error
//	redlock.acquire.attempts  redlock.outcome
//	redlock.hold.duration     redlock.outcome, and error.type if it is an error
//	redlock.node.failures     redlock.operation (acquire, extend, release), server.address, server.port
//
// redlock.held counts a lock until its context ends. It is updated at once, but on
// another goroutine: an export at that very moment may still count the lock. Locks that
// ended because their Locker was closed are not counted as lost. A node has not failed if
// it answers that another owner holds the key, or if it hangs while a quorum of the
// others answers: then no operation waits for it.
//
// # Outcomes
//
//	acquired   acquire          the lock is held
//	completed  hold             the function returned no error
//	extended   extend           the lock is extended
//	released   release          the lock is released
//	contended  acquire          another owner holds the lock
//	ended      extend, release  the lock was released or its Locker closed before
//	not_held   extend, release  the lock was lost before, or the nodes answer that it is
//	lost       hold             the lock was lost before the function returned
//	closed     acquire, hold    the Locker was closed
//	no_quorum  all but hold     too many nodes failed or timed out
//	timeout    all but release  the error is context.DeadlineExceeded
//	cancelled  all but release  the error is context.Canceled
//	aborted    all              a panic or runtime.Goexit
//	error      all              any other error
//
// The outcomes from not_held on are errors: the span has the status Error with the
// error's text. error.type is the outcome, or the Go type of the error if the outcome is
// error. The others leave the status unset: it is normal that another owner holds a lock.
// A wait that its ctx ended is a timeout or cancelled, whatever the nodes answered
// before; the answers are in its events.
//
// No token of a lock appears in any of this. Tokens are cut out of the texts of errors.
package otelhook
