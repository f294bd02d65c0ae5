package redisnode

import (
	"errors"
	"sync/atomic"
)

// ability is what one server of a deployment has shown on the connection in use. It decides how
// a single key is acquired: by a script, by SET NX PX, or by SET NX PX GET, which costs what
// SET NX PX does and also names the owner of a key that is held.
//
// A server may lack EVAL, or not allow it. On such a server a SET leaves a key that no release
// can delete. So until a script has succeeded keys are acquired by a script, and the server
// refuses that.
//
// Redis and Valkey answer SET NX PX GET with nil if the key was free and has been set, and with
// its value otherwise. A proxy or an older server may ignore GET, and then nil means the
// opposite: counted as a vote it would make two holders. So nil is a vote on a connection only
// after both answers have been seen there, for keys that are known to be ours: see
// Redis.finish. If the command may have gone over a newer connection, nil is verified by asking
// again: a key that holds our token is ours.
//
// An ability is one word: the number of the connection and, in the lowest bits, the proof. So a
// caller that read the word before sending a command can check afterwards whether the command
// may have gone elsewhere. A nil ability shows nothing, and learns nothing.
type ability struct {
	word atomic.Uint64
	// counted means that reset is called for each connection before anything is sent on it, and
	// that one connection carries all commands. Otherwise GET is not used.
	counted bool
}

// proof is what a connection has shown.
type proof uint64

const (
	unproven proof = iota // no script has succeeded
	echoes                // a script has; and SET NX GET of a key that was ours returned its value
	tells                 // and that of a free key returned nil: nil is a vote
	mute                  // a script has succeeded; SET does not name the owner
)

const (
	proofBits = 2
	proofMask = 1<<proofBits - 1
)

// shown is an ability at one moment.
type shown uint64

func (s shown) proof() proof       { return proof(s & proofMask) }
func (s shown) connection() uint64 { return uint64(s) >> proofBits }

// now returns the ability at this moment. It is read before a command is built.
func (a *ability) now() shown {
	if a == nil {
		return 0
	}
	return shown(a.word.Load())
}

func (a *ability) isCounted() bool { return a != nil && a.counted }

// note records a proof of the connection that was in use at seen. It does nothing if the ability
// has changed since.
func (a *ability) note(seen shown, p proof) {
	if a != nil {
		a.word.CompareAndSwap(uint64(seen), uint64(seen)&^proofMask|uint64(p))
	}
}

// reset records that a connection was made or closed, or that the one in use can no longer be
// relied on: nothing is proven.
func (a *ability) reset() {
	for a != nil {
		before := a.word.Load()
		if a.word.CompareAndSwap(before, (before>>proofBits+1)<<proofBits) {
			return
		}
	}
}

// votes reports whether nil, as the answer to a SET NX GET that was built at seen, is a vote.
func (a *ability) votes(seen shown) bool {
	now := a.now()
	return now.connection() == seen.connection() && now.proof() == tells
}

var errNotProven = errors.New("the connection was replaced, or its server ignores GET in SET: whether the key was set is unknown")
