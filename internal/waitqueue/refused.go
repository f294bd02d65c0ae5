package waitqueue

import (
	"errors"
	"fmt"

	"github.com/redis-kit/redlock/internal/node"
)

// refusals are the nodes' refusals of the subscriptions to their pushes, by node. The Queue's mutex
// guards them.
type refusals []refusal

type refusal struct {
	times int // since the node has accepted one
	err   error
}

// fewRefusals is the number that counts: one may come of a connection that broke.
const fewRefusals = 2

// noteSubscription notes that a node has accepted a subscription, if err is nil, or why not. A node
// that could not be reached has refused nothing.
func (q *Queue) noteSubscription(i int, err error) {
	q.mu.Lock()
	defer q.unlock()
	switch r := &q.refusals[i]; {
	case err == nil:
		*r = refusal{}
	case !errors.Is(err, node.ErrNotRun):
		r.times, r.err = r.times+1, err
	}
}

// failure returns an error if so many nodes refuse subscriptions that no quorum pushes grants. A
// waiter then learns of a grant from the answer to its candidate's next join.
func (r refusals) failure(need int) error {
	refused, err := 0, error(nil)
	for _, of := range r {
		if of.times >= fewRefusals {
			refused, err = refused+1, of.err
		}
	}
	if refused <= len(r)-need {
		return nil
	}
	return fmt.Errorf("SUBSCRIBE: %w (grants are not pushed: waits poll the queues)", err)
}
