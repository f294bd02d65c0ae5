package redlock

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

// NodeStatus is the result of [Locker.Ping] for one node.
type NodeStatus struct {
	Node string        // its address
	Err  error         // why it could not grant a lock, or did not answer; nil if it could
	Took time.Duration // how long it took to answer, or how long Ping waited
}

// Ping asks every node whether a lock could be taken there, and returns one result per
// node, in the order given. It asks all of them at once, and waits for silent ones no longer
// than the node timeout ([WithNodeTimeout]; 1 s by default). No middleware runs.
//
// Ping sends a script that neither reads nor writes, but that the server runs only if scripts
// may write there. The script uses the connection of the locks' commands, and waits its turn
// among them. A node fails if it does not know or allow EVALSHA, is a replica, has no memory left, cannot
// save or lacks the replicas that it requires. Ping does not check the user's rights to keys,
// nor the restart guard's quarantine.
//
// A Cluster counts as answering once every master known to own slots has answered, a
// Sentinel group once its master has.
//
// The error is nil if a quorum of nodes answered. Otherwise it is a [QuorumError] that
// matches [ErrNoQuorum] and, if ctx ended the wait, ctx's error; Ping returns the statuses
// too. After [Locker.Close] the error matches [ErrClosed].
func (l *Locker) Ping(ctx context.Context) ([]NodeStatus, error) {
	return l.askEach(ctx, "ping", (*node.Node).Ping, l.nodes.Need())
}

// askEach asks every node, and waits for each answer. It fails if fewer than need nodes
// answered.
func (l *Locker) askEach(ctx context.Context, op string, ask func(*node.Node, context.Context, <-chan struct{}, time.Duration) error, need int) ([]NodeStatus, error) {
	if !l.begin() {
		return nil, &opError{op: op, what: ErrClosed}
	}
	defer l.operations.Done()
	timeout := l.config.longestTimeout()
	statuses := make([]NodeStatus, l.nodes.Len())
	var asking sync.WaitGroup
	for i, n := range l.nodes.All() {
		asking.Go(func() {
			began := time.Now()
			err := ask(n, ctx, l.closing, timeout)
			statuses[i] = NodeStatus{Node: n.Name(), Err: err, Took: time.Since(began)}
		})
	}
	asking.Wait()
	tally := quorum.NewTally(l.nodes.Len())
	for i := range statuses {
		s := &statuses[i]
		if errors.Is(s.Err, node.ErrUnasked) {
			s.Err = errUnanswered
		}
		reply := quorum.Reply{Vote: quorum.Granted}
		if s.Err != nil {
			reply = quorum.Reply{Vote: quorum.Failed, Err: s.Err}
		}
		tally.Cast(i, reply)
	}
	if tally.Granted() >= need {
		return statuses, nil
	}
	failed := l.quorumError(op, nil, tally, ErrNoQuorum).because(l.interruption(ctx))
	failed.Need = need
	return statuses, failed
}
