package redlock

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// Kind says which operation an [Op] is.
type Kind uint8

const (
	// OpAcquire is one acquire ([Locker.Acquire], [Locker.TryAcquire], [With], …), with
	// the whole wait.
	OpAcquire Kind = iota + 1
	// OpHold is the function that [With] runs under the lock.
	OpHold
	// OpExtend is one extension, by [Lock.Extend] or automatic.
	OpExtend
	// OpRelease is a [Lock.Release], including the one at the end of [With].
	OpRelease
	// OpLost is the notice that a lock ended without being released: it was lost, or its
	// [Locker] was closed. next returns the cause. A middleware cannot prevent the loss.
	OpLost
)

var kindNames = [...]string{OpAcquire: "acquire", OpHold: "hold", OpExtend: "extend", OpRelease: "release", OpLost: "lost"}

// String returns the name of the operation: "acquire", "hold", "extend", "release" or
// "lost".
func (k Kind) String() string {
	if k < OpAcquire || k > OpLost {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Op is one operation, as a [Middleware] sees it. A Middleware must not keep it after it
// returns, and must not change Keys.
type Op struct {
	Kind Kind
	Keys []string
	// TTL is the requested ttl. For OpAcquire and OpExtend, a middleware may change it
	// before it calls next.
	TTL time.Duration
	// Lock is nil for OpAcquire until it has succeeded.
	Lock *Lock

	// The following are set by the time next returns:

	Attempts int           // OpAcquire: how often the nodes were asked
	Waited   time.Duration // OpAcquire: the time spent between attempts
	Wait     WaitKind      // OpAcquire: how the wait ended
	Confirms int           // OpAcquire: how often nodes were asked to agree on the fence
	QueueErr error         // OpAcquire: why the nodes' queues cannot be used; set once per Locker
	Tries    []Try         // OpAcquire, OpExtend, OpRelease: the rounds of votes; the last 100

	locker     *Locker
	run        Handler // carries the operation out, as the innermost handler
	request    request // OpAcquire
	acquired   *Lock   // OpAcquire: must be released if the chain fails
	ran        bool    // OpExtend: it was tried: no middleware prevented it
	background bool    // it runs on a goroutine of the Locker
	first      [1]Try  // where Tries begins: most operations need no more
}

// Try is one round in which all nodes were asked.
type Try struct {
	Start time.Time
	Took  time.Duration
	Votes []Vote // one per node, in the order they were given
}

// Vote is the answer of one node in a [Try].
type Vote struct {
	Node string // its address
	Kind VoteKind
	Err  error // why it did not grant; nil if it did
}

// VoteKind is the kind of a [Vote].
type VoteKind uint8

const (
	// VoteSilent means that there was no answer when the operation ended. The other nodes
	// may have decided it before this one could answer.
	VoteSilent VoteKind = iota
	// VoteUnasked means that the operation had no question for the node. That is not a failure.
	VoteUnasked
	// VoteGranted means that the node did what it was asked to.
	VoteGranted
	// VoteRefused means that the node answered no: another owner holds a key, or, for an
	// extension or a release, the key is not there.
	VoteRefused
	// VoteFailed means that the node did not answer in time, or answered with an error.
	VoteFailed
)

// maxTries bounds Op.Tries: a wait may make any number of attempts.
const maxTries = 100

// The methods below record an operation for the middleware. Without middleware op is nil
// and they do nothing.

func (op *Op) now() (t time.Time) {
	if op != nil {
		t = time.Now()
	}
	return t
}

// attempted records an attempt: its contest, or its poll where there was none.
func (op *Op) attempted(start time.Time, poll *quorum.Poll, settled *quorum.Tally) {
	switch {
	case op == nil:
	case settled != nil:
		op.Attempts++
		op.record(start, settled)
	default:
		op.Attempts++
		op.recordPoll(start, poll)
	}
}

func (op *Op) confirmed(start time.Time, poll *quorum.Poll) {
	if op != nil {
		op.Confirms++
		op.recordPoll(start, poll)
	}
}

func (op *Op) waited(since time.Time) {
	if op != nil {
		op.Waited += time.Since(since)
	}
}

func (op *Op) gotBy(how WaitKind) {
	if op != nil {
		op.Wait = how
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

func (op *Op) recordPoll(start time.Time, poll *quorum.Poll) {
	if op != nil {
		poll.Read(func(tally *quorum.Tally) { op.record(start, tally) })
	}
}

func (op *Op) record(start time.Time, tally *quorum.Tally) {
	if op == nil {
		return
	}
	votes := make([]Vote, len(tally.Replies))
	for i, r := range tally.Replies {
		votes[i] = vote(op.locker.nodes.Name(i), r)
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
	v := Vote{Node: name, Err: nodeError(r.Err)}
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
