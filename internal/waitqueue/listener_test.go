package waitqueue

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// The listener's connections are closed some time after the last wait.
func TestSubscriptionsEndAfterTheLastWaiter(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		p := w.process("p", 0)
		for range 100 {
			p.Return("k", p.got(p.enter("k", ttl, node.ClaimOptions{}), time.Second))
			held := node.NewClaim([]string{"k"}, "held", 3)
			go p.Hold("k", held) // ends the candidate as it begins
			waiter := p.enter("k", ttl, node.ClaimOptions{})
			synctest.Wait()
			waiter.Leave()
			p.Released("k", held)
		}
		listening := func() bool {
			p.listener.mu.Lock()
			defer p.listener.mu.Unlock()
			return p.listener.forAll.end != nil
		}
		require.True(t, listening())
		time.Sleep(idleTimeout + ms)
		require.False(t, listening())
	})
}
