package redlock

import (
	"fmt"

	"github.com/redis-kit/redlock/internal/node"
)

// NewOver is a Locker over any stores: for the simulation.
func NewOver(stores []node.Backend, opts ...Option) (*Locker, error) {
	config, err := configure(len(stores), opts)
	if err != nil {
		return nil, err
	}
	voters := make([]voter, len(stores))
	for i, s := range stores {
		voters[i] = voter{fmt.Sprint("n", i), s}
	}
	return newLocker(config, voters), nil
}
