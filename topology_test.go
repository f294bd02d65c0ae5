package redlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// openURLs returns a Locker that is closed at the end of the test.

// settle is called first in a test with a Cluster. A closed Cluster client of
// rueidis' leaves goroutines that sleep out the delay of a refresh (up to 1 s)
// or of closing what it replaced (5 s): TestMain's goleak has less patience.
func settle(t testing.TB) {
	t.Cleanup(func() {
		stacks := make([]byte, 1<<20)
		eventually.True(t, "rueidis' goroutines have ended", func() bool {
			return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("redis/rueidis."))
		})
	})
}

// plainURLs returns the URLs of two servers, which make three nodes with a deployment.
func plainURLs(t testing.TB) []string { return redistest.URLs(redistest.StartN(t, 2)) }

// untilFree retries without a limit: if the lock is not acquired, ctx ends the test.
var untilFree = redlock.WithRetry(redlock.ExponentialRetry(5*ms, 50*ms))

// patient is for a client that must be made at the first try: on a loaded
// machine dialling and shaking hands may take longer than Tune's second.
var patient = net.Dialer{Timeout: eventually.Soon}

// deployment is a Sentinel group or a Cluster.
type deployment interface {
	URL() string
	Addrs() []string
	Servers() []*redistest.Server
}

// owner returns the server of a deployment that has the key.
func owner(d deployment, key string) *redistest.Server {
	switch d := d.(type) {
	case *redistest.Cluster:
		return d.Owner(key)
	case *redistest.Sentinel:
		return d.Master()
	}
	panic("unknown deployment")
}

func TestASentinelGroupIsANode(t *testing.T) {
	s, plain := redistest.StartSentinel(t), plainURLs(t)
	lives(t, s, plain)
	t.Run("least permissions", func(t *testing.T) { aclOfAGroup(t, s) })
	t.Run("failover", func(t *testing.T) { failover(t, s, plain) })
	t.Run("silence", func(t *testing.T) { silence(t, s) })
}

func TestAClusterIsANode(t *testing.T) {
	settle(t)
	c, plain := redistest.StartCluster(t), plainURLs(t)
	t.Run("keys of several slots", func(t *testing.T) { severalSlots(t, c, plain) })
	t.Run("pings", func(t *testing.T) { pings(t, c) })
	t.Run("prefixes", func(t *testing.T) { prefixes(t, c) })
	lives(t, c, plain)
	t.Run("a slot moves", func(t *testing.T) { slotMoves(t, c, plain) })
	t.Run("least permissions", func(t *testing.T) { aclOfACluster(t, c) })
	t.Run("a master dies", func(t *testing.T) { masterDies(t, c, plain) })
}

// lives runs the life cycle of locks on a deployment, as the only node and as one of three.
func lives(t *testing.T, d deployment, plain []string) {
	t.Run("alone", func(t *testing.T) { lifecycle(t, d, lockertest.Open(t, []string{d.URL()})) })
	t.Run("alone, by New", func(t *testing.T) { lifecycle(t, d, newOver(t, d)) })
	t.Run("one of three", func(t *testing.T) { lifecycle(t, d, lockertest.Open(t, append(plain, d.URL()))) })
}

// newOver returns a Locker over a client that is made with Tune.
func newOver(t *testing.T, d deployment, opts ...redlock.Option) *redlock.Locker {
	option := rueidis.ClientOption{InitAddress: d.Addrs(), Dialer: patient}
	if _, ok := d.(*redistest.Sentinel); ok {
		option.Sentinel.MasterSet = redistest.MasterSet
	}
	client, err := rueidis.NewClient(redlock.Tune(option))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	l, err := redlock.New([]rueidis.Client{client}, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func lifecycle(t *testing.T, d deployment, l *redlock.Locker) {
	holds := func(lock *redlock.Lock) func() bool {
		return func() bool {
			return !slices.ContainsFunc(lock.Keys(), func(key string) bool {
				value, _ := owner(d, key).Get(t, key)
				return value != lock.Token()
			})
		}
	}
	free := func() bool {
		return !slices.ContainsFunc(d.Servers(), func(s *redistest.Server) bool { return len(s.Keys(t)) > 0 })
	}
	for _, keys := range [][]string{{"a"}, {"b"}, {"c"}, {"{order:1}:a", "{order:1}:b"}} {
		lock, err := l.AcquireAll(t.Context(), keys, 30*time.Second, untilFree)
		require.NoError(t, err)
		eventually.True(t, "the deployment holds it", holds(lock))
		_, err = l.TryAcquireAll(t.Context(), keys[:1], 30*time.Second)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		require.NotErrorIs(t, err, redlock.ErrNoQuorum)
		require.NoError(t, lock.Extend(t.Context(), time.Minute))
		require.Greater(t, time.Until(lock.Until()), 40*time.Second)
		require.NoError(t, lock.Release(t.Context()))
		eventually.True(t, "nothing is left", free)
	}

	// Locks of several slots are extended in one pipeline.
	var all sync.WaitGroup
	for _, key := range []string{"a", "b", "c"} {
		all.Go(func() {
			assert.NoError(t, redlock.Do(t.Context(), l, key, 10*time.Second, func(ctx context.Context) error {
				lock, _ := redlock.FromContext(ctx)
				first := lock.Until()
				assert.Eventually(t, func() bool { return lock.Until().After(first) }, eventually.Soon, 2*ms, "extended")
				return context.Cause(ctx)
			}, untilFree, redlock.WithExtendThreshold(9900*ms)))
		})
	}
	all.Wait()
	eventually.True(t, "nothing is left", free)
}

// Sentinels that do not answer block nothing for ever, not even Close of a client that is
// asking them.
func silence(t *testing.T, s *redistest.Sentinel) {
	option := rueidis.ClientOption{InitAddress: s.Addrs()}
	option.Sentinel.MasterSet, option.Sentinel.TopologyRefreshInterval = redistest.MasterSet, 10*ms
	var client rueidis.Client
	eventually.True(t, "a client, with Tune's short timeouts", func() (made bool) {
		var err error
		client, err = rueidis.NewClient(redlock.Tune(option))
		return err == nil
	})
	l, err := redlock.New([]rueidis.Client{client})
	require.NoError(t, err)
	lock, err := l.Acquire(t.Context(), "k", time.Minute, untilFree)
	require.NoError(t, err)
	for _, s := range s.Sentinels() {
		s.Pause()
	}
	stacks := make([]byte, 1<<20)
	eventually.True(t, "the client asks them", func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("rueidis.(*sentinelClient).listWatch("))
	})
	require.NoError(t, lock.Release(t.Context()))
	require.NoError(t, l.Close())
	closed := make(chan struct{})
	go func() { client.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(eventually.Soon):
		t.Error("closing hangs")
	}
	for _, s := range s.Sentinels() {
		s.Resume()
	}
	<-closed
}

// One failover, seen by processes for which the group is one node of three, and by
// processes for which it is the only node. Nothing has been replicated when the master
// dies: a replica acknowledges nothing before the client is answered, so that a failover
// may always lose the last writes.
func failover(t *testing.T, s *redistest.Sentinel, plain []string) {
	urls := append(plain, s.URL())
	l := lockertest.Open(t, urls, untilFree)
	alone, rival := lockertest.Open(t, []string{s.URL()}, untilFree), lockertest.Open(t, []string{s.URL()}, untilFree)
	s.CutReplication()

	kept, err := l.Acquire(t.Context(), "kept", time.Hour)
	require.NoError(t, err)
	lost, err := alone.Acquire(t.Context(), "lost", time.Hour)
	require.NoError(t, err)
	old := s.Master()
	for _, lock := range []*redlock.Lock{kept, lost} {
		eventually.True(t, "the master holds it", func() bool { value, _ := old.Get(t, lock.Key()); return value == lock.Token() })
	}

	ctx, cancel := context.WithTimeout(t.Context(), 4*eventually.Soon)
	defer cancel()
	var inside, turns atomic.Int64
	var workers sync.WaitGroup
	defer workers.Wait()
	stop := make(chan struct{})
	stopAll := sync.OnceFunc(func() { close(stop) })
	defer stopAll()
	for i := range 2 {
		own := lockertest.Open(t, urls, untilFree) // another process
		for j := range 2 {
			workers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					assert.NoError(t, redlock.Do(ctx, own, "contended", 10*time.Second, func(ctx context.Context) error {
						assert.Equal(t, int64(1), inside.Add(1), "two are inside")
						runtime.Gosched()
						turns.Add(1)
						inside.Add(-1)
						return context.Cause(ctx)
					}))
					assert.NoError(t, redlock.Do(ctx, own, fmt.Sprint("own", i, j), 10*time.Second, func(ctx context.Context) error {
						return context.Cause(ctx)
					}))
				}
			})
		}
	}
	eventually.True(t, "all are at work", func() bool { return turns.Load() > 10 })
	before := turns.Load()
	require.Same(t, old, s.KillMaster())
	_, err = alone.TryAcquire(t.Context(), "down", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.NotErrorIs(t, err, redlock.ErrNotAcquired)
	master := s.Master()
	require.NotSame(t, old, master)
	t.Logf("%d turns during the failover", turns.Load()-before)
	require.Greater(t, turns.Load(), before, "and the work went on")

	takesPart := func() bool {
		lock, err := l.Acquire(ctx, "probe", time.Minute)
		require.NoError(t, err)
		defer func() { require.NoError(t, lock.Release(ctx)) }()
		_, ok := master.Get(t, "probe")
		return ok
	}
	eventually.True(t, "the group takes part again", takesPart)

	require.True(t, lost.Valid())
	second, err := rival.Acquire(ctx, "lost", time.Minute)
	require.NoError(t, err, "a group alone gives twice what its failover lost")
	eventually.True(t, "its owner finds the group", func() bool {
		err = lost.Extend(ctx, 0)
		return !errors.Is(err, redlock.ErrNoQuorum)
	})
	require.ErrorIs(t, err, redlock.ErrLost, "of which the first learns when it is extended")
	require.NoError(t, second.Release(ctx))

	_, ok := master.Get(t, "kept")
	require.False(t, ok)
	_, err = lockertest.Open(t, urls).TryAcquire(ctx, "kept", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired, "as one node of three it has lost no more than that vote")
	eventually.True(t, "and it is set again", func() bool {
		require.NoError(t, kept.Extend(ctx, 0))
		value, _ := master.Get(t, "kept")
		return value == kept.Token()
	})

	old.Restart()
	eventually.True(t, "the old master follows", func() bool {
		value, err := old.Do("GET", "kept") // a Sentinel closes its connections when it demotes it
		return err == nil && value == kept.Token()
	})
	eventually.True(t, "and is not asked", takesPart)
	stopAll()
	workers.Wait()
	require.NoError(t, kept.Release(ctx))
	eventually.True(t, "nothing is left", func() bool { return len(master.Keys(t)) == 0 })
}

// Keys of several slots are an argument error, before anything is sent.
func severalSlots(t *testing.T, c *redistest.Cluster, plain []string) {
	for name, l := range map[string]*redlock.Locker{
		"alone":         lockertest.Open(t, []string{c.URL()}),
		"alone, by New": newOver(t, c),
		"one of three":  lockertest.Open(t, append(plain, c.URL())),
	} {
		_, err := l.TryAcquireAll(t.Context(), []string{"order:1", "order:2"}, time.Minute)
		require.ErrorContains(t, err, `keys "order:1" and "order:2" are in different slots of a Cluster: give them a common hash tag`, name)
		require.NotErrorIs(t, err, redlock.ErrNoQuorum, name)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired, name)
	}
	for _, s := range c.Servers() {
		stats := must(t, s, "INFO", "commandstats")
		require.NotContains(t, stats, "cmdstat_set:")
		require.NotContains(t, stats, "cmdstat_eval")
	}
}

// A hash tag in the prefix applies to all keys. Without it, each key's own hash tag counts.
func prefixes(t *testing.T, c *redistest.Cluster) {
	tagged, err := redlock.Open(t.Context(), []string{c.URL()}, redlock.WithKeyPrefix("{shop}:"))
	require.NoError(t, err)
	defer tagged.Close()
	lock, err := tagged.AcquireAll(t.Context(), []string{"a", "b", "c"}, time.Minute, untilFree)
	require.NoError(t, err, "all keys are in one slot")
	require.NoError(t, lock.Release(t.Context()))

	plain, err := redlock.Open(t.Context(), []string{c.URL()}, redlock.WithKeyPrefix("shop:"))
	require.NoError(t, err)
	defer plain.Close()
	_, err = plain.TryAcquireAll(t.Context(), []string{"a", "b"}, time.Minute)
	require.ErrorContains(t, err, `keys "shop:a" and "shop:b" are in different slots of a Cluster`)
	lock, err = plain.AcquireAll(t.Context(), []string{"{order:1}:a", "{order:1}:b"}, time.Minute, untilFree)
	require.NoError(t, err, "the keys' own hash tag counts")
	require.NoError(t, lock.Release(t.Context()))
}

// A Cluster with a silent master counts as a node that has not answered, even if the
// other masters have.
func pings(t *testing.T, c *redistest.Cluster) {
	l, err := redlock.Open(t.Context(), []string{c.URL()}, redlock.WithNodeTimeout(500*ms))
	require.NoError(t, err)
	defer l.Close()
	answers := func() bool { _, err := l.Ping(t.Context()); return err == nil }
	eventually.True(t, "the Cluster answers", answers)
	for _, s := range c.Servers() {
		s.Pause()
		eventually.True(t, "one of its masters does not", func() bool {
			statuses, err := l.Ping(t.Context())
			return err != nil && strings.HasPrefix(statuses[0].Err.Error(), "2 of 3 servers answered: ")
		})
		s.Resume()
		eventually.True(t, "the Cluster answers again", answers)
	}
}

func slotMoves(t *testing.T, c *redistest.Cluster, plain []string) {
	for name, urls := range map[string][]string{"alone": {c.URL()}, "one of three": append(plain, c.URL())} {
		t.Run(name, func(t *testing.T) {
			l := lockertest.Open(t, urls, untilFree)
			held, err := l.Acquire(t.Context(), "{order}:held", time.Minute)
			require.NoError(t, err)
			several, err := l.AcquireAll(t.Context(), []string{"{order}:x", "{order}:y"}, time.Minute)
			require.NoError(t, err)
			from, to := c.Owner("{order}"), c.Servers()[0]
			if from == to {
				to = c.Servers()[1]
			}
			eventually.True(t, "the owner holds it", func() bool { _, ok := from.Get(t, "{order}:held"); return ok })
			c.BeginMove("{order}", to)
			require.NoError(t, held.Extend(t.Context(), 0))
			require.NoError(t, several.Extend(t.Context(), 0))
			lock, err := l.Acquire(t.Context(), "{order}:new", time.Minute)
			require.NoError(t, err)
			slot := fmt.Sprint(c.Slot("{order}"))
			eventually.True(t, "the new owner holds it", func() bool {
				return slices.Equal(must(t, to, "CLUSTER", "GETKEYSINSLOT", slot, "10").([]any), []any{"{order}:new"})
			})
			require.NoError(t, lock.Extend(t.Context(), 0))
			require.NoError(t, lock.Release(t.Context()))
			host, port, err := net.SplitHostPort(to.Addr())
			require.NoError(t, err)
			must(t, from, "MIGRATE", host, port, "{order}:x", "0", "5000")
			require.NoError(t, several.Extend(t.Context(), 0), "its keys are on both sides")
			both := []string{"{order}:1", "{order}:2"}
			if name == "alone" {
				_, err = l.TryAcquireAll(t.Context(), both, time.Minute)
				require.ErrorIs(t, err, redlock.ErrNoQuorum, "a slot that moves takes no command of several keys")
				require.ErrorContains(t, err, "TRYAGAIN")
				c.EndMove("{order}", to)
				lock, err = l.AcquireAll(t.Context(), both, time.Minute)
			} else {
				lock, err = l.AcquireAll(t.Context(), both, time.Minute)
				c.EndMove("{order}", to)
			}
			require.NoError(t, err)
			for _, lock := range []*redlock.Lock{held, several, lock} {
				require.NoError(t, lock.Extend(t.Context(), 0))
				require.NoError(t, lock.Release(t.Context()))
			}
			eventually.True(t, "nothing is left", func() bool { return len(to.Keys(t)) == 0 })
		})
	}
}

// A master without a replica dies: its slots are gone, the others are not.
func masterDies(t *testing.T, c *redistest.Cluster, plain []string) {
	dies, lives := c.Servers()[0], c.Servers()[1]
	gone, here := c.KeyOf(dies, "gone"), c.KeyOf(lives, "here")
	alone, l := lockertest.Open(t, []string{c.URL()}, untilFree), lockertest.Open(t, append(plain, c.URL()), untilFree)
	var locks []*redlock.Lock
	take := func(l *redlock.Locker, key string) {
		lock, err := l.Acquire(t.Context(), key, time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Extend(t.Context(), 0))
		locks = append(locks, lock)
	}
	take(l, gone)
	take(alone, here)
	dies.Kill()
	_, err := alone.TryAcquire(t.Context(), gone, time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.NotErrorIs(t, err, redlock.ErrNotAcquired)
	take(alone, c.KeyOf(lives, "also here"))
	take(l, c.KeyOf(dies, "also gone"))
	require.NoError(t, redlock.Do(t.Context(), alone, c.KeyOf(c.Servers()[2], "there"), time.Minute, func(ctx context.Context) error {
		return context.Cause(ctx)
	}))
	for _, lock := range locks {
		require.NoError(t, lock.Extend(t.Context(), 0), lock.Key())
		require.NoError(t, lock.Release(t.Context()), lock.Key())
	}
	dies.Restart()
	take(alone, c.KeyOf(dies, "back"))
	require.NoError(t, locks[len(locks)-1].Release(t.Context()))
}
