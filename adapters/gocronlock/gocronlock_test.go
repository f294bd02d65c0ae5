package gocronlock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/adapters/gocronlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

func start(t *testing.T) []*redistest.Server { return redistest.StartN(t, 3) }

// instance is a Locker of its own, as another process has one.
func instance(t *testing.T, servers []*redistest.Server) *redlock.Locker {
	t.Helper()
	return lockertest.Open(t, redistest.URLs(servers))
}

// counted counts what becomes of jobs, by name.
type counted struct {
	mu            sync.Mutex // guards what follows
	runs, refused map[string]int
}

func (c *counted) count(m map[string]int, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m[name]++
}

func (c *counted) total(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[name] + c.refused[name]
}

func TestOneOfManyInstancesRunsAJob(t *testing.T) {
	const instances, jobs = 5, 4
	servers := start(t)
	c := counted{runs: make(map[string]int), refused: make(map[string]int)}
	at := time.Now().Add(500 * ms)
	for range instances {
		s, err := gocron.NewScheduler(gocron.WithDistributedLocker(gocronlock.New(instance(t, servers), time.Minute, eventually.Soon)))
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Shutdown()) }()
		for i := range jobs {
			name := fmt.Sprint("job ", i)
			_, err := s.NewJob(
				gocron.OneTimeJob(gocron.OneTimeJobStartDateTime(at)),
				gocron.NewTask(func() { c.count(c.runs, name) }),
				gocron.WithName(name),
				gocron.WithEventListeners(gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) {
					c.count(c.refused, name)
					if err == nil {
						t.Error("refused without a reason")
					}
				})))
			require.NoError(t, err)
		}
		s.Start()
	}
	for i := range jobs {
		name := fmt.Sprint("job ", i)
		eventually.True(t, "all instances have tried "+name, func() bool { return c.total(name) == instances })
		require.Equal(t, 1, c.runs[name], name)
	}
}

func TestALockIsHeldForAtLeastSoLongAndThenReleased(t *testing.T) {
	servers := start(t)
	const atLeast = 2 * time.Second
	l := gocronlock.New(instance(t, servers), time.Minute, atLeast)
	late := gocronlock.New(instance(t, servers), time.Minute, 0)
	began := time.Now()
	lock, err := l.Lock(t.Context(), "job")
	require.NoError(t, err)
	require.NoError(t, lock.Unlock(t.Context()))
	require.Less(t, time.Since(began), atLeast, "the scheduler does not wait for it")
	_, err = late.Lock(t.Context(), "job")
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	eventually.True(t, "it is free", func() bool {
		lock, err = late.Lock(t.Context(), "job")
		return err == nil
	})
	require.GreaterOrEqual(t, time.Since(began), atLeast)

	require.NoError(t, lock.Unlock(t.Context()))
	lock, err = l.Lock(t.Context(), "job")
	require.NoError(t, err, "with 0 it is released at once")
	require.NoError(t, lock.Unlock(t.Context()))
}

func TestALockIsKeptWhileTheJobRuns(t *testing.T) {
	servers := start(t)
	const ttl = time.Second
	l, other := gocronlock.New(instance(t, servers), ttl, 0), gocronlock.New(instance(t, servers), ttl, 0)
	lock, err := l.Lock(t.Context(), "job")
	require.NoError(t, err)
	for began := time.Now(); time.Since(began) < 3*ttl; {
		_, err := other.Lock(t.Context(), "job")
		require.Error(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as by the shutdown of a scheduler
	require.NoError(t, lock.Unlock(ctx))
	eventually.True(t, "it is free", func() bool {
		lock, err = other.Lock(t.Context(), "job")
		return err == nil
	})
	require.NoError(t, lock.Unlock(t.Context()))
}

func TestWithoutAQuorumNoJobRuns(t *testing.T) {
	servers := start(t)
	l := gocronlock.New(instance(t, servers), time.Minute, time.Second)
	for _, s := range servers[:2] {
		s.Kill()
	}
	_, err := l.Lock(t.Context(), "job")
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
}
