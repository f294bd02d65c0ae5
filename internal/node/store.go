package node

import (
	"context"
	"errors"
	"time"
)

// Store is one Redis deployment, as the commands that a lock needs. Its
// methods may block for as long as they like: Node bounds nothing, and its
// callers wait for no Store. They are safe for concurrent use.
type Store interface {
	// Acquire sets all keys to token for ttl if none of them exists, and
	// tells whether it did. An error that is ErrNotRun says for certain that
	// nothing was set; any other leaves it open.
	Acquire(ctx context.Context, keys []string, token string, ttl time.Duration) (bool, error)
	// Extend fills in Outcome and Err of each extension, one pipeline for all.
	Extend(ctx context.Context, batch []Extension)
	// Release deletes those keys of each claim that hold its token, and fills
	// in Deleted and Err, one pipeline for all.
	Release(ctx context.Context, batch []Deletion)
	// Check says why a lock over these keys can never be taken here, if so.
	Check(keys []string) error
	// Close ends all calls and connections that are the Store's own.
	Close()
}

// ErrNotRun marks an error after which it is certain that the command did not
// run and never will.
var ErrNotRun = errors.New("not run")

// notRun wraps err so that it is also ErrNotRun, with err's text.
type notRun struct{ error }

func (e notRun) Unwrap() []error { return []error{e.error, ErrNotRun} }

// ErrUnasked marks the error of a node that was not asked, for no fault of its own.
var ErrUnasked = errors.New("not asked")

// unasked wraps err so that it is also ErrUnasked, with err's text.
type unasked struct{ error }

func (e unasked) Unwrap() []error { return []error{e.error, ErrUnasked} }

// Outcome is what an extension came to on one node.
type Outcome uint8

const (
	Unknown  Outcome = iota // Err says why
	Extended                // all keys were ours, and live for at least ttl
	Refilled                // some were gone and are ours again; not a vote
	Taken                   // some are another owner's; nothing was changed
)

// Extension is one claim to be extended, and what came of it.
type Extension struct {
	Claim *Claim
	TTL   time.Duration

	Outcome Outcome
	Err     error
}

// Deletion is one claim to be released, and what came of it.
type Deletion struct {
	Claim *Claim

	Deleted int // keys
	Err     error
}
