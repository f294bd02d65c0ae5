package node_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

func run(t *testing.T, test func(t *testing.T, n *node.Node, s *memnode.Backend)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &memnode.Backend{}
		n := node.New(0, "n", s, false)
		defer func() {
			s.Resume()
			n.Close(time.Hour)
			synctest.Wait()
		}()
		test(t, n, s)
	})
}

func claim(i int) *node.Claim {
	return node.NewClaim([]string{fmt.Sprint("k", i)}, fmt.Sprint("token", i), 1)
}

func ask(send func(v node.ReplyHandler)) quorum.Reply {
	v := make(memnode.Replies, 1)
	send(v)
	return <-v
}

func acquire(n *node.Node, c *node.Claim, ttl time.Duration) quorum.Reply {
	return ask(func(v node.ReplyHandler) { n.Acquire(c, ttl, v) })
}

func extend(n *node.Node, c *node.Claim, ttl time.Duration) quorum.Reply {
	return ask(func(v node.ReplyHandler) {
		n.Extend(node.Extension{Pending: new(node.PendingExtension), Claim: c, TTL: ttl, Handler: v})
	})
}

func release(n *node.Node, c *node.Claim) quorum.Reply {
	return ask(func(v node.ReplyHandler) { n.Release(c, v) })
}
