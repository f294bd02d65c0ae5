package redisnode

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

// A proxy may hang up on SUBSCRIBE, or break while it is under way.
func TestASubscriptionThatBreaksBeforeItIsAnsweredEnds(t *testing.T) {
	for _, resp2 := range []bool{false, true} {
		server := startFake(t)
		server.answer(nil, closeConn, resp2)
		option := server.option()
		option.AlwaysRESP2 = resp2
		option.DialCtxFn = Attentive(nil, resp2)
		s := Dial(option, nil)
		<-s.Tried()
		ctx, cancel := context.WithCancel(t.Context()) // without a deadline, as that of a Queue
		tooLate := time.AfterFunc(eventually.Soon, cancel)
		err := s.Listen(ctx, "channel", func() { t.Error("it has subscribed") }, func(node.Push) {})
		require.Error(t, err)
		require.NoError(t, ctx.Err(), "it ends at once: %v", err)
		tooLate.Stop()
		cancel()
		s.Close()
	}
}
