package redlock

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waiting"
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
	Wait     WaitKind      // OpAcquire: how the wait ended
	QueueErr error         // OpAcquire: why the nodes' queues cannot be used; told once by each Locker
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

func (op *Op) gotBy(g waiting.Grant) {
	switch {
	case op == nil:
	case g.Handed:
		op.Wait = WaitHandedOver
	default:
		op.Wait = WaitGranted
	}
}

func (op *Op) polled() {
	if op != nil && op.Attempts > 1 {
		op.Wait = WaitPolled
	}
}

func (op *Op) queueFailed(err error) {
	if op != nil && err != nil {
		op.QueueErr = err
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
