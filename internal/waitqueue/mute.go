package waitqueue

import (
	"errors"
	"fmt"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/node"
)

// noPushTime is how long a node that has refused a subscription is taken for one that cannot
// push. Then it is asked again: its servers may be newer by then, or the user may be allowed.
const noPushTime = 10 * time.Second

// muteness is what is known of a node that cannot push.
type muteness struct {
	err   error // why; nil if it can
	until clock.Instant
}

// enabled reports whether enough nodes keep a queue for the key, and can push, for a candidate
// to win. q.mu is held.
func (q *Queue) enabled(key string) bool {
	queues := 0
	for i, n := range q.nodes.All() {
		if n.CheckQueue(key) == nil && q.muteSince(i) == nil {
			queues++
		}
	}
	return queues >= q.need()
}

// failure returns why there is no candidate for the key, if too many nodes cannot push for it to
// win. q.mu is held.
func (q *Queue) failure(key string) (err error) {
	if q.enabled(key) {
		return nil
	}
	for i, n := range q.nodes.All() {
		if mute := q.muteSince(i); mute != nil {
			err = mute
		} else if why := n.CheckQueue(key); why != nil && why != node.ErrNoPush {
			err = fmt.Errorf("node %s: %w", n.Name(), why)
		}
	}
	return err
}

// muteSince returns why a node cannot push; nil if it can, or is to be asked again. q.mu is held.
func (q *Queue) muteSince(i int) error {
	if m := &q.mute[i]; m.err != nil && q.clock.Now() < m.until {
		return m.err
	}
	return nil
}

// noPush notes that a node cannot push: no candidate joins it. Candidates that cannot win
// without it end.
func (q *Queue) noPush(i int, err error) {
	q.mu.Lock()
	defer q.unlock()
	q.mute[i] = muteness{fmt.Errorf("node %s: %w", q.nodes.Name(i), err), q.clock.Now().Add(noPushTime)}
	for _, l := range q.local {
		q.updateCandidate(l)
	}
}

// subscribed has the candidate for the key, or every candidate if key is empty, join a node again
// once the listener has subscribed to it: pushes that the node sent before were lost.
func (q *Queue) subscribed(i int, key string) {
	q.mu.Lock()
	defer q.unlock()
	q.mute[i] = muteness{}
	if key == "" {
		q.refusals[i] = refusal{}
	}
	for _, c := range q.candidatesFor(key) {
		c.states[i].unheard = nil
		c.join(1 << i)
	}
}

// unsubscribed notes the end of a subscription for the key, or for all keys if key is empty, and
// whether the node had accepted it. The node may answer joins all the same. One that could not be
// reached has refused nothing.
func (q *Queue) unsubscribed(i int, key string, err error, accepted bool) {
	if errors.Is(err, node.ErrNotRun) || errors.Is(err, node.ErrMoved) {
		return
	}
	q.mu.Lock()
	defer q.unlock()
	if key == "" {
		if !accepted {
			q.refusals.note(i, err)
		}
		return
	}
	for _, c := range q.candidatesFor(key) {
		c.states[i].unheard = fmt.Errorf("node %s: %w", q.nodes.Name(i), err)
	}
}

// candidatesFor returns the candidate for the key, or all if key is empty. q.mu is held.
func (q *Queue) candidatesFor(key string) map[string]*candidate {
	if key == "" {
		return q.candidates
	}
	if l := q.local[key]; l != nil && l.candidate != nil {
		return map[string]*candidate{l.candidate.claim.Token: l.candidate}
	}
	return nil
}
