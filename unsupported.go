package redlock

import (
	"errors"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// errUnsupported ends an acquisition that no quorum of these nodes can ever grant.
var errUnsupported error = unsupportedError{}

type unsupportedError struct{}

func (unsupportedError) Error() string { return "trying again would change nothing" }

// Is makes it match [errors.ErrUnsupported].
func (unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

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
