package redlock

import (
	"errors"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// errUnsupported ends an acquisition that no quorum of these nodes can ever grant.
var errUnsupported error = unsupportedError{}

type unsupportedError struct{}

func (unsupportedError) Error() string { return "trying again would change nothing" }

// Is makes it match [errors.ErrUnsupported].
func (unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// unsupportedTime is how long a quorum must have lacked a command for a wait to end. One answer may
// be a proxy's that is starting, or a server's that is just being set up: its operator gives a user
// one permission after the other.
const unsupportedTime = time.Second

// noteLacking notes which nodes have answered that they lack a command without which they grant
// no lock. A node that has granted or refused since then lacks it no longer; one that has said
// nothing since, or could not be reached, does.
func (a *acquisition) noteLacking(replies []quorum.Reply) {
	for i, r := range replies {
		switch {
		case errors.Is(r.Err, node.ErrLacking):
			if a.lacking == nil { // nearly never: the usual acquisition allocates nothing
				a.lacking = make([]error, len(replies))
			}
			a.lacking[i] = r.Err
		case a.lacking != nil && (r.Vote == quorum.Granted || r.Vote == quorum.Refused):
			a.lacking[i] = nil
		}
	}
}

// unsupported reports whether so many nodes lack a command that no quorum is possible.
func (a *acquisition) unsupported() bool {
	lacking := 0
	for _, err := range a.lacking {
		if err != nil {
			lacking++
		}
	}
	return lacking > a.locker.nodes.Len()-a.locker.nodes.Need()
}

// hopeless reports whether the acquisition ends because it is unsupported. It is asked after each
// attempt.
func (a *acquisition) hopeless() bool {
	now := a.locker.clock.Now()
	switch {
	case !a.unsupported():
		a.unsupportedSince = 0
	case !a.waits:
		return true
	case a.unsupportedSince == 0:
		a.unsupportedSince = now
	default:
		return now.Sub(a.unsupportedSince) >= unsupportedTime
	}
	return false
}

// whyUnsupported returns errUnsupported if the acquisition, which ends anyway, is unsupported.
func (a *acquisition) whyUnsupported() []error {
	if a.unsupported() {
		return []error{errUnsupported}
	}
	return nil
}

// withLacking returns the votes with what each node lacks, even if its latest vote does not say it.
func (a *acquisition) withLacking(tally *quorum.Tally) *quorum.Tally {
	full := quorum.NewTally(len(tally.Replies))
	for i, r := range tally.Replies {
		if err := a.lacking[i]; err != nil {
			r = quorum.Reply{Vote: quorum.Failed, Err: err}
		}
		full.Cast(i, r)
	}
	return full
}
