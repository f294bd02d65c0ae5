package history

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// step is a change of a lock's owner.
type step struct {
	token   string
	acquire bool
}

// lockModel is a lock as porcupine sees it: its state is the holder's token.
var lockModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		holder, in := state.(string), input.(step)
		if in.acquire {
			return holder == "", in.token
		}
		return holder == in.token, ""
	},
	Equal: func(a, b any) bool { return a == b },
}

// Unlinearizable checks P1 with porcupine: each acquisition takes effect
// between when it was asked for and when it returned, and each hold ends some
// time after its holder could last have believed in it.
func (h *History) Unlinearizable() []Violation {
	var found []Violation
	for key, holds := range h.byKey() {
		var ops []porcupine.Operation
		for i, hold := range holds {
			if hold.End() <= hold.Returned {
				continue // over before it was known to have begun
			}
			ops = append(ops,
				porcupine.Operation{ClientId: 2 * i, Input: step{hold.Token, true}, Call: int64(hold.Sent), Return: int64(hold.Returned)},
				porcupine.Operation{ClientId: 2*i + 1, Input: step{hold.Token, false}, Call: int64(hold.End()), Return: math.MaxInt64})
		}
		switch porcupine.CheckOperationsTimeout(lockModel, ops, time.Minute) {
		case porcupine.Illegal:
			found = append(found, Violation{"P1", fmt.Sprintf("%q: porcupine finds no order of its %d holds", key, len(holds))})
		case porcupine.Unknown:
			found = append(found, Violation{"P1", fmt.Sprintf("%q: porcupine did not come to an end over %d holds", key, len(holds))})
		}
	}
	return found
}
