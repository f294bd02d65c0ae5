package redisnode

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// storeClient carries a Backend through redlock.New, which takes clients. That way redlocktest
// needs no exported function of redlock that users have no use for.
//
// It has a name and a mode. It has no connection: its other methods panic.
type storeClient struct {
	name    string
	backend node.Backend
}

var _ rueidis.Client = (*storeClient)(nil)

// NewStoreClient returns a client for redlock.New that stands for a Backend. Errors call it name.
func NewStoreClient(name string, backend node.Backend) rueidis.Client {
	return &storeClient{name: name, backend: backend}
}

// Nodes implements rueidis.Client: the name is the only address.
func (c *storeClient) Nodes() map[string]rueidis.Client {
	return map[string]rueidis.Client{c.name: c}
}

// Mode implements rueidis.Client: a Backend in memory is one server.
func (c *storeClient) Mode() rueidis.ClientMode { return rueidis.ClientModeStandalone }

// Close implements rueidis.Client. There is nothing to close.
func (c *storeClient) Close() {}

// noServer is the panic of the methods that send commands.
const noServer = "redlock: this client stands for a node in memory and has no server to send a command to"

func (c *storeClient) B() rueidis.Builder { panic(noServer) }

func (c *storeClient) Do(context.Context, rueidis.Completed) rueidis.RedisResult { panic(noServer) }

func (c *storeClient) DoMulti(context.Context, ...rueidis.Completed) []rueidis.RedisResult {
	panic(noServer)
}

func (c *storeClient) DoCache(context.Context, rueidis.Cacheable, time.Duration) rueidis.RedisResult {
	panic(noServer)
}

func (c *storeClient) DoMultiCache(context.Context, ...rueidis.CacheableTTL) []rueidis.RedisResult {
	panic(noServer)
}

func (c *storeClient) DoStream(context.Context, rueidis.Completed) rueidis.RedisResultStream {
	panic(noServer)
}

func (c *storeClient) DoMultiStream(context.Context, ...rueidis.Completed) rueidis.MultiRedisResultStream {
	panic(noServer)
}

func (c *storeClient) Receive(context.Context, rueidis.Completed, func(rueidis.PubSubMessage)) error {
	panic(noServer)
}

func (c *storeClient) Dedicated(func(rueidis.DedicatedClient) error) error { panic(noServer) }

func (c *storeClient) Dedicate() (rueidis.DedicatedClient, func()) { panic(noServer) }
