package redlock

import (
	"context"
	"errors"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// WithRestartGuard keeps a node that may have lost its data from voting until every lock
// that it may have forgotten has ended: for maxTTL + 2 × skew, by the node's clock, from the
// first acquire after it came back. maxTTL is the longest ttl of any lock on these nodes: a
// longer one is an error. skew bounds how far the clocks of the nodes may jump and, for
// fences, how far those of clients may be wrong. All processes must use the same values.
//
// Without it, a node that crashes and comes back without its last writes votes twice: two
// clients can hold one lock. The guard sees restarts, failovers to a replica, and FLUSHALL:
// each node keeps a marker in the key redlock:guard, which names the run of the server and the
// history of its data. The guard needs the commands INFO and TIME in scripts, which some
// hosted services refuse, and servers or Sentinel groups as nodes: a Cluster is an error.
//
// A node in quarantine counts as failed, and its error is a [QuarantineError]. New nodes
// are in quarantine too: see [Locker.TrustNodes].
func WithRestartGuard(maxTTL, skew time.Duration) Option {
	return lockerOption(func(c lockerConfig) lockerConfig {
		c.guard = restartGuard{set: true, maxTTL: maxTTL, skew: skew}
		return c
	})
}

// restartGuard holds the settings of WithRestartGuard. The zero value disables it.
type restartGuard struct {
	set          bool
	maxTTL, skew time.Duration
}

func (g restartGuard) check() error {
	switch {
	case !g.set:
		return nil
	case outOfRange(g.maxTTL):
		return argumentError("WithRestartGuard: maxTTL %v: must be from %v to %v", g.maxTTL, MinTTL, MaxTTL)
	case g.skew < 0 || g.skew > g.maxTTL:
		return argumentError("WithRestartGuard: skew %v: must be from 0 to maxTTL, %v", g.skew, g.maxTTL)
	}
	return nil
}

// TrustNodes ends the quarantine of every node. The caller vouches that no lock is held that
// a node could have forgotten. Call it once when a deployment with [WithRestartGuard] is new, or
// when all processes that could hold a lock have been stopped for longer than the longest
// ttl; never as a reaction to a [QuarantineError]. Without the call, each node votes once its
// quarantine is over.
//
// TrustNodes waits for every node, for no longer than the node timeout ([WithNodeTimeout]).
// If a node did not answer, the error is a [QuorumError] that names the node and matches
// [ErrNoQuorum]; the nodes that answered vote at once.
func (l *Locker) TrustNodes(ctx context.Context) error {
	_, err := l.askEach(ctx, "trust", (*node.Node).Trust, l.nodes.Len())
	return err
}

var errGuardedCluster = errors.New("is a Cluster: WithRestartGuard needs servers or Sentinel groups, as its marker would be in another slot than the keys (WithFence works there)")

// quarantine returns how long a node does not vote after a loss of data; 0 if it always
// does.
func (g restartGuard) quarantine() time.Duration { return g.maxTTL + 2*g.skew }

// QuarantineError says that a node does not vote, by [WithRestartGuard]: it may have lost
// its data. Find it with [errors.As], in the [NodeError] of a [QuorumError].
type QuarantineError struct {
	Until time.Time // when it votes again
}

// Error says when the node votes again.
func (e *QuarantineError) Error() string { return (*node.Quarantined)(e).Error() }
