package node

import (
	"context"
	"errors"
	"time"
)

// Backend runs lock commands on one deployment. Its methods are safe for concurrent use.
type Backend interface {
	// Do runs the commands of batch in order, in one pipeline, and fills in
	// what came of each. It may block for as long as it likes: nobody waits for
	// it without a timer. It returns the error of the connection if the server
	// answered none of them.
	//
	// All commands of a batch are for one server, as far as Server tells.
	Do(ctx context.Context, batch []Command) error
	// Server names the server of the deployment that has these keys. It does not
	// block, and may be wrong: it decides which commands wait for each other, not
	// where they go.
	Server(keys []string) string
	// Samples returns a key of each server that has keys, as far as is known. It
	// does not block.
	Samples() []string
	// CanPush reports whether the deployment can tell waiters of grants. If it cannot, the
	// node keeps no queues.
	CanPush() bool
	// Listen has heard called for each push on channel, until ctx ends or the
	// connection breaks, and ready when it has begun to. It returns ErrNoPush if the
	// deployment cannot push.
	Listen(ctx context.Context, channel string, ready func(), heard func(Push)) error
	// Check says why a lock over these keys can never be taken here, if so.
	Check(keys []string) error
	// Close ends all calls and connections that are the Store's own.
	Close()
}

// Kind is what a Command does.
type Kind uint8

const (
	Acquire Kind = iota // sets all keys to the claim's token for TTL if none of them exists
	Extend              // makes all keys live for at least TTL
	Release             // deletes the keys that hold the claim's token
	Leave               // Release of one key, which is given to the first in its queue if somebody waits
	Confirm             // raises the counters of all keys to Fence, if all keys are the claim's
	Trust               // ends the quarantine of the node
	Join                // enters the queue of a key, or renews the place in it; takes the key if it is its turn
	Ping                // asks the server that would have the key whether it may be written to; sets nothing
	Look                // is Refused if somebody may stand in the queue of a key, and Done if nobody does
	Read                // asks who owns the keys: is Done if all are free
)

// Command is one command for one claim, and what came of it.
type Command struct {
	Kind  Kind
	Claim *Claim
	TTL   time.Duration // of Acquire and Extend
	// Script has an Acquire run as a script even where a plain command would do: that
	// tells the owner.
	Script bool

	Outcome Outcome
	Err     error // why the outcome is Unknown
	Fence   int64 // of Confirm; and what the counters came to, where Acquire, Confirm or Join is Done

	Entry *Entry // of Join
	Nonce string // of Join: what pushes of this node carry
	// Filled in if a Join is Refused, which means that the claim waits:
	Held time.Duration // how long the key is still held; below 0 if that is not known
	Rank int           // how many places are before the claim's; below 0 if that is not known
	// Of a Join, a Read or an Acquire that is Refused: the token of the key's owner, or
	// Foreign; empty if that is not known.
	Owner string

	joiner Joiner    // of Join: is told of the outcome
	voter  Voter     // of the others: is told of the outcome; nil if nobody is
	until  time.Time // Release: the keys have expired by then, if the server is right
	// Release: what the claim may have had here when the command was taken from
	// the queue.
	acquired, extended bool
}

// Entry is a claim's entry in the queue of its key.
type Entry struct {
	Number  int64         // of this Join; the node has the largest that has come
	Order   int64         // the wall clock when the wait began, in ms: who is first
	Waited  time.Duration // how long the wait has lasted: no clock can be further behind than that, and keep its place
	Floor   int64         // of the fence, for a claim that has one: that of this Join, as a grant may come long after the first
	Channel string        // where pushes go
	Window  time.Duration // how long a grant sets the key
	Lease   time.Duration // how long the entry stands
}

// Push is what a node says to a claim in one of its queues. Every field comes from the
// node's Listen connection: a push counts only with the nonce that the claim gave this
// node (see docs/design.md).
type Push struct {
	Token  string
	Nonce  string
	Number int64 // of the Join with which the node granted the key; 0 if the claim is to join again
	Fence  int64 // what the grant is numbered; 0 without a fence
}

// Foreign is the owner of a key that holds no text, and so no token.
const Foreign = "-"

// Outcome is what a Command came to.
type Outcome uint8

const (
	// Unknown: the command failed. If Err is ErrNotRun, it certainly did not run
	// and never will; otherwise it may have run, or may do so later.
	Unknown Outcome = iota
	// Done: all keys were acquired, were ours and were extended, were deleted; nobody
	// waits for the key.
	Done
	// Refilled: an extension found some keys gone, and set them again. It is not a vote.
	Refilled
	// Refused: a key is another owner's, and nothing was changed; or, of a
	// release, not all keys were there to delete.
	Refused
)

// ErrNotRun marks an error after which it is certain that the command did not
// run and never will.
var ErrNotRun = errors.New("not run")

// ErrNotConnected marks the error of a command for which there is no connection
// to the server. It is ErrNotRun, too.
var ErrNotConnected = errors.New("not connected")

// ErrNoPush says that a deployment cannot tell of grants.
var ErrNoPush = errors.New("the deployment cannot push")

// ErrUnasked marks the error of a node that was not asked, because there was
// nothing to ask it.
var ErrUnasked = errors.New("not asked")

// NotRun returns err marked as ErrNotRun, with err's text.
func NotRun(err error) error { return marked{err, ErrNotRun} }

// NotConnected returns err marked as ErrNotConnected, and says so.
func NotConnected(err error) error { return notConnected{err} }

// marked is an error with err's text that is also mark.
type marked struct{ err, mark error }

func (e marked) Error() string        { return e.err.Error() }
func (e marked) Unwrap() error        { return e.err }
func (e marked) Is(target error) bool { return target == e.mark }

type notConnected struct{ err error }

func (e notConnected) Error() string        { return "not connected: " + e.err.Error() }
func (e notConnected) Unwrap() error        { return e.err }
func (e notConnected) Is(target error) bool { return target == ErrNotConnected || target == ErrNotRun }

// IsPlain reports whether c needs no script. Then it may be that it is not told whose a key is: from Redis 7.0 on it is,
// where the Store has counted the connections and the server has proven it.
func (c *Command) IsPlain() bool {
	return c.Kind == Acquire && !c.Script && len(c.Claim.Keys) == 1 && c.Claim.asked == nil
}
