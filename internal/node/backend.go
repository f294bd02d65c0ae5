package node

import (
	"context"
	"time"
)

// Backend runs lock commands on one deployment. Its methods are safe for concurrent use.
type Backend interface {
	// Do runs the commands of batch in order, in one pipeline, and fills in the result of
	// each. It may block without a limit: every caller that waits has a timer of its own. It
	// returns the error of the connection if the server answered none of the commands.
	//
	// All commands of a batch are for one server, as far as Server tells.
	Do(ctx context.Context, batch []Command) error
	// Server names the server of the deployment that has these keys. It does not block, and it
	// may be wrong: the name decides which commands wait for each other, not where they go.
	Server(keys []string) string
	// Samples returns one key of each server that has keys, as far as is known. It does not
	// block.
	Samples() []string
	// Channels returns how many channels carry grants to the waiters of a Locker.
	Channels() Channels
	// Listen calls ready once subscribed to channel, and heard for each push, until ctx ends,
	// the connection breaks, or another server has the channel (ErrMoved). It returns
	// ErrNoPush if the deployment cannot push. Two calls for one channel must not overlap.
	Listen(ctx context.Context, channel string, ready func(), heard func(Push)) error
	// Check returns why a lock over these keys can never be acquired here, if so.
	Check(keys []string) error
	// Close ends all calls, and closes the connections that the Backend owns.
	Close()
}

// Channels is the number of channels that the pushes of a deployment need.
type Channels uint8

const (
	NoChannels       Channels = iota // it cannot push: no process waits in a queue
	ChannelPerLocker                 // a Locker has one channel for all its keys
	ChannelPerKey                    // a Locker has a KeyChannel for each key that it waits for
)

// Kind is what a Command does.
type Kind uint8

const (
	Acquire Kind = iota // sets all keys to the claim's token for TTL if none of them exists
	Extend              // makes all keys live for at least TTL
	Release             // deletes the keys that hold the claim's token
	Leave               // releases one key, and grants it to the first waiter in its queue if there is one
	Confirm             // raises the counters of all keys to Fence, if all keys are the claim's
	Trust               // ends the quarantine of the node
	Join                // enters the queue of a key or renews the entry; acquires the key if it is the claim's turn
	Ping                // asks the server that would have the key whether it may be written to; sets nothing
	Look                // is Refused if the queue of a key may have an entry, and Done if it is empty
	Read                // asks who owns the keys; is Done if all are free
)

// sets reports whether a command of this kind may set keys.
func (k Kind) sets() bool { return k == Acquire || k == Extend || k == Join }

// Command is one command for one claim, with its result.
type Command struct {
	Kind  Kind
	Claim *Claim
	TTL   time.Duration // of Acquire and Extend
	// Script has an Acquire run as a script even where a plain command would do: the answer to
	// a script names the owner.
	Script bool

	Outcome Outcome
	Err     error // why the outcome is Unknown
	Fence   int64 // of Confirm; and the value of the counters, where Acquire, Confirm or Join is Done

	Entry *Entry // of Join
	Nonce string // of Join: the pushes of this node carry it
	// Filled in if a Join is Refused, which means that the claim waits:
	Held time.Duration // the key's remaining ttl; below 0 if that is not known
	Rank int           // the number of entries before the claim's; below 0 if that is not known
	// Of a Join, a Read or an Acquire that is Refused: the token of the key's owner, or
	// Foreign; empty if that is not known.
	Owner string
	// Partial is set where a Backend has run the command key by key. Of an Extend: some keys may
	// have been set, even if it is Refused; otherwise a refusal has changed nothing. Of a Leave:
	// the key was released alone, if it was the claim's, and the claim may still be in its queue.
	Partial bool

	joiner  Joiner       // of Join: is called with the result
	handler ReplyHandler // of the others: is called with the result; nil if no caller waits for it
	until   time.Time    // of a release: the keys have expired by then, if the server's clock is right
	behind  claimSet     // of an Acquire or a Read: were being released in the background when it was sent
	again   bool         // it was postponed: see again.go
	// Of a release: what the claim may have had here when the command was taken from the
	// queue.
	acquired, extended, joined bool
}

// IsPlain reports whether c needs no script. The answer to a plain command may not name the
// key's owner. From Redis 7.0 on it does, where the Backend counts its connections and the
// server has proven it.
func (c *Command) IsPlain() bool {
	return c.Kind == Acquire && !c.Script && len(c.Claim.Keys) == 1 && c.Claim.options == nil
}

// releases reports whether c takes back what a claim has.
func (c *Command) releases() bool { return c.Kind == Release || c.Kind == Leave }

// lifetime bounds how long the keys set by c can exist.
func (c *Command) lifetime() time.Duration {
	if c.Entry == nil {
		return c.TTL
	}
	return 2*c.Entry.Lease + c.Entry.Window // the queue may grant the key when the lease is about to end
}

// Entry is a claim's entry in the queue of its key.
type Entry struct {
	Number  int64         // of this Join; the node keeps the largest that has arrived
	Order   int64         // the wall clock when the wait began, in ms: it decides who is first
	Waited  time.Duration // how long the wait has lasted; an Order that is further back counts only as far as this
	Floor   int64         // of the fence, if the claim has one: of this Join, as a grant may come long after the first
	Channel string        // where pushes go
	Window  time.Duration // the ttl that a grant gives the key
	Lease   time.Duration // how long the entry is valid
}

// Push is a message of a node to a claim in one of its queues. Every field comes from the
// node's Listen connection: a push counts only with the nonce that the claim gave this node
// (see docs/design.md).
type Push struct {
	Token  string
	Nonce  string
	Number int64 // of the Join with which the node granted the key; 0 if the claim is to join again
	Fence  int64 // of the grant; 0 without a fence
}

// Foreign is the owner of a key that holds no text, and so no token.
const Foreign = "-"

// Outcome is the result of a Command.
type Outcome uint8

const (
	// Unknown: the command failed. If Err is ErrNotRun, it did not run and never will;
	// otherwise it may have run, or may run later.
	Unknown Outcome = iota
	// Done: all keys were acquired; or were the claim's and were extended; or were deleted; or
	// the queue of the key is empty.
	Done
	// Refilled: an extension found some keys missing, and set them again. It is not a vote.
	Refilled
	// Refused: a key is another owner's, and nothing was changed; or, of a release, some of the
	// keys were not there to delete.
	Refused
)
