package node

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A release that failed is tried again after about firstPause, then after longer
// and longer, up to lastPause.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// debt is a claim that has ended and may have left a key here.
type debt struct {
	claim *Claim
	// until is when it is written off: the keys have expired by themselves,
	// unless a command is still on its way to a node that has hung all along,
	// and then they do so a ttl after it arrives.
	until time.Time
}

// settleIfEnded is called after each reply that may mean a key of ours: the
// claim may have ended, and even been released, before the command ran. A
// release that is still to begin comes after that key; one that is in flight
// may have overtaken it, and is followed by another, but not overtaken itself:
// its answer would be that there was nothing to delete.
func (n *Node) settleIfEnded(c *Claim) {
	if !c.Ended() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.released.Load()&(1<<n.index) == 0 {
		return
	}
	if _, inFlight := n.releasing[c]; inFlight {
		n.releasing[c] = true
	} else {
		n.owe(c)
	}
}

// owe has the keys of a claim that has ended released in the background,
// together with what else is owed, until that succeeds or they have expired.
// n.mu is held.
func (n *Node) owe(c *Claim) {
	if n.closed || !c.traced(n.index) {
		return
	}
	n.debts = append(n.debts, debt{c, time.Now().Add(time.Duration(c.longest.Load()))})
	if !n.settling {
		n.settling = true
		n.running.Go(n.settle)
	}
}

// settle pays the debts, one pipeline after the other, until none is left.
func (n *Node) settle() {
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstPause),
		backoff.WithMaxInterval(lastPause),
		backoff.WithMaxElapsedTime(0))
	for {
		batch := n.takeDebts()
		if len(batch) == 0 {
			return
		}
		deletions := make([]Deletion, len(batch))
		for i, d := range batch {
			deletions[i].Claim = d.claim
		}
		n.store.Release(n.ctx, deletions)
		var failed []debt
		var reason error
		var latest time.Time
		for i, d := range deletions {
			if d.Err != nil {
				failed, reason = append(failed, batch[i]), d.Err
				if batch[i].until.After(latest) {
					latest = batch[i].until
				}
			}
		}
		if len(failed) == 0 {
			pauses.Reset()
			continue
		}
		n.mu.Lock()
		n.debts, n.owing = append(n.debts, failed...), reason
		n.mu.Unlock()
		timer := time.NewTimer(min(pauses.NextBackOff(), time.Until(latest)))
		select {
		case <-timer.C:
		case <-n.ctx.Done():
			timer.Stop()
		}
	}
}

// takeDebts takes up to maxBatch debts whose keys may still be there: an answer
// may have come meanwhile that says they are not. If there
// is none, settling is over.
func (n *Node) takeDebts() []debt {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	var batch []debt
	for len(n.debts) > 0 && len(batch) < maxBatch {
		if d := n.debts[0]; now.Before(d.until) && d.claim.traced(n.index) {
			batch = append(batch, d)
		}
		n.debts = n.debts[1:]
	}
	if len(batch) == 0 || n.closed {
		n.debts, n.owing, n.settling = nil, nil, false
		n.idle.Broadcast()
		return nil
	}
	return batch
}
