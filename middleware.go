package redlock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Kind is what an Op is.
type Kind uint8

const (
	// OpAcquire is an Acquire or TryAcquire, with the whole wait.
	OpAcquire Kind = iota + 1
	// OpHold is the function that With runs under the lock.
	OpHold
	// OpExtend is one extension, asked for or automatic.
	OpExtend
	// OpRelease is a Release, also the one that ends a With.
	OpRelease
	// OpLost tells that a lock ended without being released: it is lost, or its
	// Locker was closed. The handler's error is the cause. Nothing can be
	// refused or altered any more.
	OpLost
)

var kindNames = [...]string{OpAcquire: "acquire", OpHold: "hold", OpExtend: "extend", OpRelease: "release", OpLost: "lost"}

func (k Kind) String() string {
	if k < OpAcquire || k > OpLost {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Op is one operation, as middleware sees it. It is the operation's own: a
// Middleware must not keep it, nor change Keys.
type Op struct {
	Kind Kind
	Keys []string
	// TTL is what is asked for. A middleware may change it before it calls the
	// next handler, for OpAcquire and OpExtend.
	TTL time.Duration
	// Lock is nil for OpAcquire until it has succeeded.
	Lock *Lock

	// Filled in by the time the handler returns:

	Attempts int           // OpAcquire: how often the nodes were asked
	Waited   time.Duration // OpAcquire: the time spent between attempts
	Tries    []Try         // OpAcquire, OpExtend, OpRelease: what was asked of the nodes, and their votes; the last 100

	locker     *Locker
	run        Handler // carries the operation out, as the innermost handler
	request    request // OpAcquire
	acquired   *Lock   // OpAcquire: what must be released should the chain fail
	ran        bool    // OpExtend: a middleware has not kept it from being tried
	background bool    // it is on a goroutine of the Locker's
	first      [1]Try  // where Tries begins: most operations need no more
}

// Try is one question put to all nodes.
type Try struct {
	Start time.Time
	Took  time.Duration
	Votes []Vote // one per node, in the order they were given
}

// Vote is one node's part in a Try.
type Vote struct {
	Node string // its address
	Kind VoteKind
	Err  error // why it did not grant; nil if it did
}

// VoteKind is what a Vote is.
type VoteKind uint8

const (
	// VoteSilent: there was no answer when the operation was over, which may
	// have been before the node could give one.
	VoteSilent VoteKind = iota
	// VoteUnasked: there was nothing to ask the node, for no fault of its own.
	VoteUnasked
	// VoteGranted: the node did as it was asked.
	VoteGranted
	// VoteRefused: the node answered that it does not.
	VoteRefused
	// VoteFailed: the node did not answer in time, or answered with an error.
	VoteFailed
)

// Handler carries out an operation.
type Handler func(ctx context.Context, op *Op) error

// Middleware wraps the handler of every operation of a Locker. What it passes
// on as ctx is what the next one sees and, for OpHold, what fn gets.
//
// It is called on the caller's goroutine for OpAcquire, OpHold, OpRelease and
// an Extend that was asked for; on one of the Locker's for automatic extension
// and OpLost, and must not block there, nor close the Locker: it can hold up the
// extension of that lock, but never the end of its context. It is called
// concurrently.
//
// A middleware that returns an error without calling next refuses the
// operation; only a release cannot be refused: the lock ends all the same. If
// it fails an acquisition that succeeded, the lock is released.
//
// A middleware calls next on its own goroutine, and returns when next has
// returned. One that returns before, on OpHold, leaves fn to run without the
// lock: With releases it and returns, with an error, and fn's ctx ends.
//
// A panic passes to the caller, with the lock released. On a goroutine of the
// Locker's, where it would end the process, it becomes the middleware's error, a
// PanicError. The middleware further out gets it from next: so the one that logs
// should be given first. If an automatic extension was not tried for it, it is
// in the cause of the loss that may follow. And Close returns the first.
type Middleware func(next Handler) Handler

// PanicError is what becomes of a panic of a middleware on a goroutine of the
// Locker's, on automatic extension and OpLost. Find it with errors.As. On
// OpLost it is joined with the cause of the loss.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // as debug.Stack formats it
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("redlock: a middleware panicked: %v", e.Value)
}

// WithMiddleware wraps every operation of the Locker. The first is the
// outermost, and the option may be given several times:
//
//	WithMiddleware(a, b), WithMiddleware(c)
//
//	a before ─ b before ─ c before ─ operation ─ c after ─ b after ─ a after
//
// The chain is built once, by New or Open. Without middleware an operation
// costs nothing for it.
func WithMiddleware(middleware ...Middleware) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.middleware = append(slices.Clip(c.middleware), middleware...)
		return c
	})
}

// chain builds the handler of all operations; nil without middleware.
func chain(middleware []Middleware) Handler {
	if len(middleware) == 0 {
		return nil
	}
	handler := Handler(func(ctx context.Context, op *Op) error { return op.run(ctx, op) })
	for i := len(middleware) - 1; i >= 0; i-- {
		handler = guarded(middleware[i](handler))
	}
	return handler
}

// guarded is the handler of one middleware, whose panics do not leave it on the
// Locker's own goroutines.
func guarded(handler Handler) Handler {
	return func(ctx context.Context, op *Op) (err error) {
		if op.background {
			// op is the middleware's to spoil from here on.
			defer op.Lock.recovered(op.Kind, &err)
		}
		return handler(ctx, op)
	}
}

// recovered is deferred around a middleware.
func (l *Lock) recovered(kind Kind, err *error) {
	value := recover()
	if value == nil {
		return
	}
	panicked := &PanicError{Value: value, Stack: debug.Stack()}
	l.locker.panicked.CompareAndSwap(nil, panicked)
	*err = panicked
	if kind == OpLost {
		*err = errors.Join(panicked, l.ended())
	}
}

// acquireThrough is take through the middleware. A lock that was acquired does
// not outlive a middleware that fails or panics.
func (l *Locker) acquireThrough(ctx context.Context, r request) (*Lock, error) {
	op := &Op{Kind: OpAcquire, Keys: r.keys, TTL: r.ttl, locker: l, run: runAcquire, request: r}
	kept := false
	defer func() {
		if !kept && op.acquired != nil {
			op.acquired.drop()
		}
	}()
	if err := l.chain(ctx, op); err != nil {
		return nil, err
	}
	if op.acquired == nil {
		return nil, argumentError("acquire %s: a middleware returned nil, and there is no lock: it must call next, and return its error", quoted(r.keys))
	}
	kept = true
	return op.acquired, nil
}

func runAcquire(ctx context.Context, op *Op) error {
	if op.acquired != nil {
		return argumentError("acquire %s: a middleware called next again after it had succeeded", quoted(op.Keys))
	}
	r := op.request
	r.ttl = op.TTL
	lock, err := op.locker.take(ctx, r, op)
	op.acquired, op.Lock = lock, lock
	return err
}

// op is an operation on the lock.
func (l *Lock) op(kind Kind, ttl time.Duration, run Handler) *Op {
	return &Op{Kind: kind, Keys: l.claim.Keys, TTL: ttl, Lock: l, locker: l.locker, run: run}
}

// through carries out an operation through the middleware.
func (l *Lock) through(ctx context.Context, op *Op) error { return l.locker.chain(ctx, op) }

// notRun is what becomes of an operation that no middleware refused, and that was
// not carried out.
func (l *Lock) notRun(op *Op) error {
	return argumentError("%s %s: a middleware returned nil without calling next", op.Kind, quoted(op.Keys))
}

func runExtend(ctx context.Context, op *Op) error {
	op.ran = true
	return op.Lock.extend(ctx, op.TTL, op)
}

// errPanicked is the outcome of a release whose middleware panicked.
var errPanicked = fmt.Errorf("%w: release: a middleware panicked", ErrNoQuorum)

func runRelease(_ context.Context, op *Op) error { return op.Lock.release(op) }

func runLost(_ context.Context, op *Op) error { return op.Lock.ended() }

// drop ends the lock, if it has not ended, and has its keys released in the
// background.
func (l *Lock) drop() {
	if !l.locker.begin() {
		return // Close ends it
	}
	defer l.locker.operations.Done()
	if l.hold.End(ErrReleased) {
		l.locker.abandon(&l.claim)
	}
}

// extendDue is an automatic extension through the middleware. The error is
// that of a middleware that kept it from being tried.
func (l *Locker) extendDue(h *keeper.Hold) error {
	lock, _ := FromContext(h.Context())
	op := lock.op(OpExtend, lock.ttl, runDue)
	op.background = true
	if err := lock.through(lock.Context(), op); !op.ran {
		return err
	}
	return nil
}

func runDue(_ context.Context, op *Op) error {
	op.ran = true
	if err := op.Lock.checkExtension(op.TTL); err != nil {
		return err
	}
	start := time.Now()
	ballot, extended := op.Lock.hold.ExtendDue(op.TTL)
	op.asked(start, ballot)
	if extended {
		return nil
	}
	return op.Lock.notExtended(ballot)
}

// tellLost tells the middleware that a lock ended without being released.
func (l *Locker) tellLost(h *keeper.Hold) {
	lock, _ := FromContext(h.Context())
	op := lock.op(OpLost, lock.ttl, runLost)
	op.background = true
	_ = lock.through(lock.Context(), op) // the cause, which the middleware was told
}

// maxTries bounds what is remembered of an endless wait.
const maxTries = 100

// What follows records an operation for the middleware. Without any, op is nil
// and nothing is recorded.

func (op *Op) now() (t time.Time) {
	if op != nil {
		t = time.Now()
	}
	return t
}

func (op *Op) attempted(start time.Time, poll *quorum.Poll) {
	if op != nil {
		op.Attempts++
		op.tried(start, poll)
	}
}

func (op *Op) waited(since time.Time) {
	if op != nil {
		op.Waited += time.Since(since)
	}
}

func (op *Op) tried(start time.Time, poll *quorum.Poll) {
	if op != nil {
		poll.Read(func(ballot *quorum.Ballot) { op.asked(start, ballot) })
	}
}

func (op *Op) asked(start time.Time, ballot *quorum.Ballot) {
	if op == nil {
		return
	}
	votes := make([]Vote, len(ballot.Replies))
	for i, r := range ballot.Replies {
		votes[i] = vote(op.locker.nodes[i].Name(), r)
	}
	switch len(op.Tries) {
	case 0:
		op.Tries = op.first[:0]
	case maxTries:
		op.Tries = slices.Delete(op.Tries, 0, 1)
	}
	op.Tries = append(op.Tries, Try{Start: start, Took: time.Since(start), Votes: votes})
}

func vote(name string, r quorum.Reply) Vote {
	v := Vote{Node: name, Err: r.Err}
	switch {
	case errors.Is(r.Err, node.ErrUnasked):
		v.Kind = VoteUnasked
	case r.Vote == quorum.Granted:
		v.Kind = VoteGranted
	case r.Vote == quorum.Refused:
		v.Kind = VoteRefused
	case r.Vote == quorum.Failed:
		v.Kind = VoteFailed
	default:
		v.Kind, v.Err = VoteSilent, errUnanswered
	}
	return v
}
