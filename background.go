package redlock

import (
	"context"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// releaseInBackground is Release of a lock with WithBackgroundRelease. When it returns, every node
// has the release in its queue, whatever a middleware does.
func (l *Lock) releaseInBackground(ctx context.Context) error {
	if !l.locker.begin() {
		return l.releaseNow(ctx) // which is an error
	}
	defer l.locker.operations.Done()
	keysLeft, err := l.endHold()
	if l.locker.chain == nil {
		if keysLeft {
			l.locker.nodes.ReleaseInBackground(l.claim)
		}
		return err
	}
	began := time.Now()
	var outcome func() (*quorum.Tally, error)
	if !keysLeft {
		outcome = func() (*quorum.Tally, error) { return nil, err } //nolint:unparam // there is nothing to tally
	} else {
		poll := l.locker.nodes.Put(func(_ int, n *node.Node, reply node.ReplyHandler) {
			n.ReleaseInBackground(l.claim, reply)
		})
		// Whichever of the middleware and this package calls it first waits: a middleware may call
		// next never, twice, or too late.
		outcome = sync.OnceValues(func() (*quorum.Tally, error) {
			defer poll.Close()
			verdict := l.locker.nodes.Await(context.Background(), poll, l.claim, l.releasePatience())
			tally := poll.Tally()
			return tally, l.releaseError(verdict, tally)
		})
	}
	op := l.op(OpRelease, l.ttl, func(_ context.Context, op *Op) error {
		tally, err := outcome()
		if tally != nil {
			op.record(began, tally)
		}
		return err
	})
	op.background = true
	// operations cannot be 0 until this function returns, so Go does not race with the Wait of Close.
	l.locker.operations.Go(func() {
		defer outcome() //nolint:errcheck // the middleware has been told
		_ = l.through(context.WithoutCancel(ctx), op)
	})
	return err
}
