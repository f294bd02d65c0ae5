package redlock

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// The errors of this package, for [errors.Is].
var (
	// ErrNotAcquired means that the lock was not acquired because another owner has a
	// quorum of the nodes, or may have one.
	ErrNotAcquired = errors.New("redlock: lock not acquired")
	// ErrNoQuorum means that so many nodes failed or timed out that there was no
	// decision, or that keys left by processes that died make a quorum impossible. The
	// error matches [errors.ErrUnsupported] too if so many nodes lack a command, or deny it
	// to their user, that trying again would change nothing: each node's error names it.
	ErrNoQuorum = errors.New("redlock: no quorum of nodes")
	// ErrLost means that the lock ended before it was released. The cause of the
	// lock's context matches it too.
	ErrLost = errors.New("redlock: lock lost")
	// ErrReleased is the cause of a lock's context after [Lock.Release].
	ErrReleased = errors.New("redlock: lock released")
	// ErrNotHeld means that [Lock.Extend], [Lock.AutoExtend] or [Lock.Release] was
	// called on a lock that has ended, or that the nodes no longer hold.
	ErrNotHeld = errors.New("redlock: lock not held")
	// ErrAlreadyHeld means that the ctx of an acquire already holds the key, so that
	// waiting for it would be a deadlock.
	ErrAlreadyHeld = errors.New("redlock: key already held by this context")
	// ErrClosed means that the [Locker] was closed. It is also the cause of the
	// contexts of the locks that were held then.
	ErrClosed = errors.New("redlock: locker closed")
)

// QuorumError describes an operation that a quorum of nodes did not grant, and what
// each node answered. Find it with [errors.As].
//
// It matches the error of this package for the outcome, such as [ErrNotAcquired],
// [ErrNoQuorum] or [ErrNotHeld], and, if a ctx ended the operation, the ctx's error, or
// [errors.ErrUnsupported] as [ErrNoQuorum] says.
// It does not match the errors of the nodes, which are only in Nodes: the timeout of
// a node is never mistaken for the end of your ctx.
type QuorumError struct {
	Op    string      // "acquire", "extend", "release", "ping", "trust" or "close"
	Keys  []string    // of the lock, sorted; none for "ping", "trust" and "close"
	Total int         // number of nodes
	Need  int         // how many had to grant
	Got   int         // how many did
	Nodes []NodeError // the nodes that did not, in the order they were given

	reasons []error
}

// NodeError says why one node did not grant an operation.
type NodeError struct {
	Node string // its address
	Err  error  // what it answered, or why there was no answer
}

// Error returns the address and the text of Err.
func (e NodeError) Error() string { return e.Node + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e NodeError) Unwrap() error { return e.Err }

// HeldError is the error of a node on which another owner holds a key. Find it with
// [errors.As], in the [NodeError] of a [QuorumError].
type HeldError struct {
	// Metadata is the owner's text from [WithMetadata]. It is empty if the owner has none,
	// or if the node was not asked for it.
	Metadata string
}

// Error says that another owner holds a key, and gives its metadata.
func (e *HeldError) Error() string { return (*node.Owned)(e).Error() }

// Holder returns the metadata of the lock's holder ([WithMetadata]) that most nodes gave, or
// "" if none gave any.
func (e *QuorumError) Holder() string {
	votes, holder := make(map[string]int), ""
	for _, n := range e.Nodes {
		var held *HeldError
		if !errors.As(n.Err, &held) || held.Metadata == "" {
			continue
		}
		if votes[held.Metadata]++; votes[held.Metadata] > votes[holder] {
			holder = held.Metadata
		}
	}
	return holder
}

// Error returns one line: the operation, its keys, the votes, and what each node that
// did not grant answered.
func (e *QuorumError) Error() string {
	var b strings.Builder
	b.WriteString("redlock: " + e.Op)
	if len(e.Keys) > 0 {
		b.WriteString(" " + quoted(e.Keys))
	}
	b.WriteString(": ")
	did := "granted"
	if e.Op == "ping" {
		did = "answered"
	}
	if e.Got >= e.Need {
		fmt.Fprintf(&b, "%d of %d nodes %s, but too late", e.Got, e.Total, did)
	} else {
		fmt.Fprintf(&b, "%d of %d nodes %s, %d needed", e.Got, e.Total, did, e.Need)
	}
	for i, node := range e.Nodes {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + node.Error())
	}
	for _, reason := range e.reasons {
		if !isSentinel(reason) {
			b.WriteString(": " + bare(reason))
		}
	}
	return b.String()
}

// Unwrap returns the errors that e matches: those of this package, and the ctx's
// error if a ctx ended the operation.
func (e *QuorumError) Unwrap() []error { return e.reasons }

func (e *QuorumError) because(reasons []error) *QuorumError {
	e.reasons = append(e.reasons, reasons...)
	return e
}

func isSentinel(err error) bool {
	switch err {
	case ErrNotAcquired, ErrNoQuorum, ErrLost, ErrReleased, ErrNotHeld, ErrClosed:
		return true
	}
	return false
}

var errUnanswered = errors.New("not waited for")

// quorumError describes votes that made no quorum, or made it too late.
func (l *Locker) quorumError(op string, keys []string, tally *quorum.Tally, reasons ...error) *QuorumError {
	e := &QuorumError{
		Op:      op,
		Keys:    keys,
		Total:   len(tally.Replies),
		Need:    tally.Need(),
		Got:     tally.Granted(),
		reasons: reasons,
	}
	for i, r := range tally.Replies {
		switch r.Vote {
		case quorum.Granted:
		case quorum.Awaited:
			e.Nodes = append(e.Nodes, NodeError{l.nodes.Name(i), errUnanswered})
		default:
			e.Nodes = append(e.Nodes, NodeError{l.nodes.Name(i), nodeError(r.Err)})
		}
	}
	return e
}

// nodeError returns a node's error under the name that users see. Its text is that of the
// node package. It is a copy: users may change the fields, and nodes share their errors.
func nodeError(err error) error {
	switch e := err.(type) {
	case *node.Quarantined:
		public := QuarantineError(*e)
		return &public
	case *node.Owned:
		public := HeldError(*e)
		return &public
	}
	return err
}

// lostError is the cause with which a lost lock's context ends. It is made before the
// context ends, and may hold an error of a middleware, whose Error method may block. So only
// Error makes the text (invariant 2).
type lostError struct {
	keys  []string
	until time.Time
	how   string
	err   error // of the last extension, or nil
}

func (l *Locker) lostError(loss keeper.Loss) error {
	e := &lostError{keys: loss.Claim.Keys, until: loss.Until}
	switch {
	case loss.Capped: // whatever the result of an older extension
		e.how = "WithMaxHold reached"
	case loss.Tally != nil:
		e.err = l.quorumError("extend", loss.Claim.Keys, loss.Tally)
	case loss.Err != nil:
		e.how, e.err = "not extended: ", loss.Err
	default:
		e.how = "not extended"
	}
	if loss.Jump != nil {
		how := jumped(loss.Jump)
		if e.err != nil { // the jump and the failed extension ended the lock together
			how += ": " + e.how
		}
		e.how = how
	}
	return e
}

func jumped(jump *clock.Jump) string {
	by := jump.By.Round(time.Millisecond)
	if jump.Suspended {
		return fmt.Sprintf("the machine was suspended for %v, until %s", by, clockTime(jump.At))
	}
	return fmt.Sprintf("the wall clock jumped ahead by %v at %s", by, clockTime(jump.At))
}

func (e *lostError) Error() string {
	text := fmt.Sprintf("redlock: hold %s: %s: valid until %s: %s", quoted(e.keys), bare(ErrLost), clockTime(e.until), e.how)
	if e.err != nil {
		text += bare(e.err)
	}
	return text
}

func (e *lostError) Unwrap() []error {
	if e.err == nil {
		return []error{ErrLost}
	}
	return []error{ErrLost, e.err}
}

// opError is the error of an operation that failed for another reason than its votes.
type opError struct {
	op   string
	keys []string
	what error  // a sentinel, as a rule
	how  string // or ""
	why  error  // or nil
}

func (e *opError) Error() string {
	text := "redlock: " + e.op
	if len(e.keys) > 0 {
		text += " " + quoted(e.keys)
	}
	text += ": " + bare(e.what)
	if e.how != "" {
		text += ": " + e.how
	}
	if e.why != nil {
		text += ": " + bare(e.why)
	}
	return text
}

func (e *opError) Unwrap() []error {
	if e.why == nil {
		return []error{e.what}
	}
	return []error{e.what, e.why}
}

// opErrorf returns an [opError] whose text follows the operation and its keys.
func opErrorf(op string, keys []string, format string, args ...any) error {
	return &opError{op: op, keys: keys, what: fmt.Errorf(format, args...)}
}

// bare returns an error's text without the package prefix, for use inside another error.
func bare(err error) string { return strings.TrimPrefix(err.Error(), "redlock: ") }

func clockTime(t time.Time) string { return t.Format("15:04:05.000Z07:00") }

func quoted(keys []string) string {
	if len(keys) == 1 {
		return fmt.Sprintf("%q", keys[0])
	}
	return fmt.Sprintf("%q", keys)
}

// argumentError returns the error for an argument outside an operation on keys. Its text says
// what the argument was and what is accepted.
func argumentError(format string, args ...any) error {
	return fmt.Errorf("redlock: "+format, args...)
}
