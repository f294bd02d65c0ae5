package node

import "github.com/redis/rueidis"

// standIn carries a Store through redlock.New, which takes clients. So redlocktest
// needs nothing exported of redlock that users have no use for.
type standIn struct {
	rueidis.Client // nil: New asks a client for its Nodes and its Mode only, and Wrap takes it off

	name  string
	store Store
}

// StandIn returns a client for redlock.New that stands for a Store. Errors call it
// name. It is good for nothing else.
func StandIn(name string, store Store) rueidis.Client {
	return &standIn{name: name, store: store}
}

// Nodes implements rueidis.Client: the name is the only address.
func (c *standIn) Nodes() map[string]rueidis.Client {
	return map[string]rueidis.Client{c.name: c}
}

// Mode implements rueidis.Client: a Store is one server.
func (c *standIn) Mode() rueidis.ClientMode { return rueidis.ClientModeStandalone }
