package redlock_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// A release returns once a quorum has confirmed it. Close waits for the other nodes.
func TestCloseWaitsForTheReleaseOnEveryNode(t *testing.T) {
	for range 2000 {
		stores, l := inMemory(t, 5)
		lock, err := l.TryAcquire(t.Context(), "k", time.Hour)
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
		require.NoError(t, l.Close())
		require.Zero(t, left(stores))
	}
}

func TestCloseWaitsForWhatAMiddlewareHadDropped(t *testing.T) {
	for range 2000 {
		taken, tried := make(chan struct{}), make(chan error, 1)
		stores, l := inMemory(t, 3, redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			defer close(taken)
			return errors.Join(next(ctx, op), errors.New("not wanted"))
		})))
		go func() {
			_, err := l.TryAcquire(t.Context(), "k", time.Hour)
			tried <- err
		}()
		<-taken
		require.NoError(t, l.Close())
		require.Error(t, <-tried)
		require.Zero(t, left(stores))
	}
}

func TestCloseEndsHoldsAndWaitsAndReleases(t *testing.T) {
	ns := start(t, 3)
	l, err := redlock.Open(t.Context(), ns.urls())
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "held", 30*time.Second)
	require.NoError(t, err)

	waited, with := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := l.Acquire(context.Background(), "held", time.Second, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
		waited <- err
	}()
	entered := make(chan struct{})
	go func() {
		with <- redlock.Do(context.Background(), l, "with", 30*time.Second, func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-entered
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "closing again does nothing")
	require.Equal(t, redlock.ErrClosed, context.Cause(lock.Context()))
	require.ErrorIs(t, <-waited, redlock.ErrClosed)
	err = <-with
	require.ErrorIs(t, err, redlock.ErrClosed)
	require.ErrorIs(t, err, redlock.ErrLost)
	require.True(t, ns.released(), "released by the time Close returns")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
	_, err = l.TryAcquire(t.Context(), "held", time.Second)
	require.ErrorIs(t, err, redlock.ErrClosed)
}

func TestCloseEndsWaits(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		one, other := open(), open()
		lock, err := one.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := []<-chan lockertest.Acquired{lockertest.WaitFor(other, time.Minute), lockertest.WaitFor(one, time.Minute), lockertest.WaitFor(other, time.Minute)}
		require.NoError(t, other.Close())
		require.NoError(t, one.Close(), "which holds the lock")
		for _, wait := range waits {
			require.ErrorIs(t, (<-wait).Err, redlock.ErrClosed)
		}
		require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	})
}

func TestCloseEndsTheExtensionOfAGrant(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		holder, l := open(), open()
		lock, err := holder.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		waits := lockertest.WaitFor(l, time.Minute)
		for _, s := range stores {
			s.Faults(func(op memnode.Op, _ int) (f memnode.Fault) {
				if op == memnode.Extend {
					f.Request = 300 * ms
				}
				return f
			})
		}
		require.NoError(t, lock.Release(t.Context()))
		synctest.Wait()
		require.Empty(t, waits, "the grant is being extended")
		began, closed := time.Now(), make(chan error)
		go func() { closed <- l.Close() }()
		a := lockertest.Soon(t, waits)
		require.ErrorIs(t, a.Err, redlock.ErrClosed)
		require.Equal(t, began, a.At, "at once")
		require.NoError(t, <-closed)
	})
}

func TestCloseReturnsWithNodesHung(t *testing.T) {
	ns := start(t, 3)
	l, err := redlock.Open(t.Context(), ns.urls(), redlock.WithNodeTimeout(200*ms))
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "k", 2*time.Second)
	require.NoError(t, err)
	for _, s := range ns.servers[1:] {
		s.Pause()
	}
	err = l.Close()
	require.ErrorIs(t, err, redlock.ErrNoQuorum, "two nodes did not say that the key is gone")
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	require.Empty(t, ns.servers[0].Keys(t))
	for _, s := range ns.servers[1:] {
		s.Resume()
	}
	eventually.True(t, "the deletions were sent", ns.empty)
}

func TestCloseWaitsForNoGrace(t *testing.T) {
	lockertest.OverNodes(t, func(t *testing.T, stores []*memnode.Backend, open lockertest.Opener) {
		l := open()
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute, redlock.WithGrace(30*time.Second))
		require.NoError(t, err)
		<-lock.Context().Done()
		require.Equal(t, 1, stores[0].Len(), "kept for its grace")
		began := time.Now()
		require.NoError(t, l.Close())
		require.Zero(t, time.Since(began))
		for _, s := range stores {
			require.Zero(t, s.Len())
		}
	})
}

func TestClientsGivenToNewStayTheCallers(t *testing.T) {
	ns := start(t, 3)
	var clients []rueidis.Client
	for _, p := range ns.proxies {
		c, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{p.Addr()}}))
		require.NoError(t, err)
		defer c.Close()
		clients = append(clients, c)
	}
	l, err := redlock.New(clients)
	require.NoError(t, err)
	lock, err := l.TryAcquire(t.Context(), "k", 10*time.Second)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorIs(t, context.Cause(lock.Context()), redlock.ErrClosed)
	for i, c := range clients {
		require.NoError(t, c.Do(t.Context(), c.B().Ping().Build()).Error(), "client %d", i)
	}
	require.True(t, ns.released())
}

// rueidis returns a client for a single server even if it could not dial the server.
func TestNewStartsWithAClientWhoseServerIsDown(t *testing.T) {
	servers := redistest.StartN(t, 3)
	servers[2].Kill()
	var clients []rueidis.Client
	for i, s := range servers {
		client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true}))
		require.Equal(t, i == 2, err != nil)
		require.NotNil(t, client)
		defer client.Close()
		clients = append(clients, client)
	}
	l, err := redlock.New(clients)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err, "two of three are enough")
	require.NoError(t, lock.Release(t.Context()))

	servers[2].Restart()
	servers[0].Kill()
	eventually.True(t, "the third takes part", func() bool {
		lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
		return err == nil
	})
	require.NoError(t, lock.Release(t.Context()))
}

// unlike is a caller's own client type, whose values cannot be compared.
type unlike struct {
	rueidis.Client
	_ []int
}

func TestClientsNeedNotBeComparable(t *testing.T) {
	ns := start(t, 1)
	client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{ns.servers[0].Addr()}}))
	require.NoError(t, err)
	defer client.Close()
	l, err := redlock.New([]rueidis.Client{unlike{Client: client}})
	require.NoError(t, err)
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }))
	require.NoError(t, l.Close())
}

func TestBadNodesAndOptionsAreRefused(t *testing.T) {
	ns := start(t, 2)
	client := func(i int) rueidis.Client {
		c, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{ns.servers[i].Addr()}}))
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	a, b, again := client(0), client(1), client(0)
	one := []rueidis.Client{a}
	for _, c := range []struct {
		nodes []rueidis.Client
		opts  []redlock.Option
		want  string
	}{
		{nil, nil, "redlock: no nodes: at least one is needed, three or five are usual"},
		{[]rueidis.Client{a, nil}, nil, "redlock: nodes[1] is nil: must be a client"},
		{[]rueidis.Client{a, b, a}, nil, "redlock: nodes[0] and nodes[2] are the same client: a node votes once"},
		{[]rueidis.Client{a, (*unlike)(nil)}, nil, "redlock: nodes[1] is nil: must be a client"},
		{[]rueidis.Client{b, a, again}, nil, "redlock: nodes[1] and nodes[2] are the same node, " + ns.servers[0].Addr() + ": a node votes once"},
		{one, []redlock.Option{nil}, "redlock: option 0 is nil"},
		{one, []redlock.Option{redlock.WithDriftFactor(-0.01)}, "redlock: WithDriftFactor(-0.01): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithDriftFactor(0.2)}, "redlock: WithDriftFactor(0.2): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithDriftFactor(math.NaN())}, "redlock: WithDriftFactor(NaN): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithNodeTimeout(0)}, "redlock: WithNodeTimeout(0s): must be above 0"},
		{one, []redlock.Option{redlock.WithNodeTimeout(-time.Second)}, "redlock: WithNodeTimeout(-1s): must be above 0"},
		{one, []redlock.Option{redlock.WithRetry(nil)}, "redlock: WithRetry(nil): must be a policy, such as NoRetry()"},
		{one, []redlock.Option{redlock.WithExtendThreshold(-1)}, "redlock: WithExtendThreshold(-1ns): must not be negative"},
		{one, []redlock.Option{redlock.WithGrace(-1)}, "redlock: WithGrace(-1ns): must not be negative"},
		{one, []redlock.Option{redlock.WithMaxHold(-1)}, "redlock: WithMaxHold(-1ns): must be 0 (no limit) or at least 10ms"},
		{one, []redlock.Option{redlock.WithMaxHold(ms)}, "redlock: WithMaxHold(1ms): must be 0 (no limit) or at least 10ms"},
	} {
		l, err := redlock.New(c.nodes, c.opts...)
		require.Nil(t, l, c.want)
		require.EqualError(t, err, c.want)
	}
}
