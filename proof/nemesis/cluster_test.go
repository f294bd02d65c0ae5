package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/proof/history"
)

// Row 21: the slot of the keys moves, and its master fails over or dies, while processes wait in
// the queues there. The work goes on after each fault, and by grants of the queues.
func TestClustersUnderContention(t *testing.T) {
	t.Cleanup(func() { // a closed client of a Cluster leaves goroutines that sleep for up to 5 s
		eventually.True(t, "rueidis' goroutines have ended", func() bool { return !strings.Contains(stacks(), "redis/rueidis.") })
	})
	moves := func(c *redistest.Cluster, random *rand.Rand) {
		servers := c.Servers()
		to := servers[random.IntN(len(servers))]
		if to == c.Owner("{k}") {
			return
		}
		c.BeginMove("{k}", to)
		pause(context.Background(), between(random, 0, 2*ttl))
		c.EndMove("{k}", to)
	}
	t.Run("slots move", func(t *testing.T) {
		c := redistest.StartCluster(t)
		for name, urls := range deployments(t, c) {
			t.Run(name, func(t *testing.T) { siege(t, c, urls, 8, moves) })
		}
	})
	t.Run("masters fail over", func(t *testing.T) {
		c := redistest.StartClusterWithReplicas(t)
		for name, urls := range deployments(t, c) {
			t.Run(name, func(t *testing.T) {
				siege(t, c, urls, 3, func(c *redistest.Cluster, _ *rand.Rand) { c.Failover(c.Owner("{k}")) })
			})
		}
	})
	// What a master had not replicated when it died is lost: alone, a Cluster may grant a lock twice
	// then. The failover takes longer than the ttl.
	t.Run("masters die", func(t *testing.T) {
		c := redistest.StartClusterWithReplicas(t)
		siege(t, c, deployments(t, c)["one of three"], 2, func(c *redistest.Cluster, _ *rand.Rand) {
			old := c.Owner("{k}")
			c.KillMaster(old)
			old.Restart()
		})
	})
}

// deployments returns the URLs of the nodes: the Cluster alone, and as one of three nodes.
func deployments(t *testing.T, c *redistest.Cluster) map[string][]string {
	return map[string][]string{"alone": {c.URL()}, "one of three": append(redistest.URLs(redistest.StartN(t, 2)), c.URL())}
}

// siege lets four processes contend, with fences, while a fault hits the Cluster so often.
func siege(t *testing.T, c *redistest.Cluster, urls []string, faults int, fault func(*redistest.Cluster, *rand.Rand)) {
	const drift = 0.05
	bed, h := &Testbed{t: t}, history.New()
	contention := &Contention{
		PerLocker: 2, Keys: []string{"{k}:a", "{k}:b"}, TTL: ttl, Allowance: time.Duration(float64(ttl)*drift) + 2*ms,
		Need: len(urls)/2 + 1, Seed: 20, History: h,
	}
	for range 4 {
		l, err := redlock.Open(t.Context(), slices.Clone(urls), redlock.WithFence(), redlock.WithDriftFactor(drift), redlock.WithMiddleware(bed.countWaits))
		require.NoError(t, err)
		defer l.Close()
		contention.Lockers = append(contention.Lockers, l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); contention.Run(ctx) }()
	defer func() { cancel(); <-over }()
	granted := func() int64 { return bed.waits[redlock.WaitGranted].Load() }
	goesOn := func() {
		t.Helper()
		before := granted()
		eventually.True(t, "the queues grant locks", func() bool { return granted() >= before+5 })
	}
	random := rand.New(rand.NewPCG(20, 1))
	goesOn()
	for range faults {
		fault(c, random)
		goesOn()
	}
	cancel()
	<-over
	s := h.Summary()
	t.Logf("%d acquisitions, %d holds, %d lost; longest wait %v; %v", s.Operations, s.Holds, s.Lost, s.LongestWait.Round(ms), bed.Waits())
	require.Empty(t, h.Check())
	require.Empty(t, h.Unfenced())
}
