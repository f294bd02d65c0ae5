package waitqueue

import "fmt"

// refusals are the nodes' refusals of the subscriptions for all keys, by node. The Queue's mutex
// guards them.
type refusals []refusal

type refusal struct {
	times int // since the node has accepted one
	err   error
}

// fewRefusals is the number that counts: one may come of a connection that broke.
const fewRefusals = 2

// note notes that a node has refused a subscription.
func (r refusals) note(i int, err error) { r[i] = refusal{r[i].times + 1, err} }

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
