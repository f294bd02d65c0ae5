package gocronlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/adapters/gocronlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/redlocktest"
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

// The job is short, and the other instance asks when all but the last moment of the least
// hold is over.
func TestAnInstanceThatIsLateDoesNotRunTheJobAgain(t *testing.T) {
	const atLeast, retries = 2 * time.Second, 500 * ms
	for _, late := range []time.Duration{0, atLeast / 2, atLeast - 300*ms, atLeast - ms} {
		synctest.Test(t, func(t *testing.T) {
			nodes := redlocktest.Start(t, 3)
			one, other := gocronlock.New(nodes.Locker(), time.Minute, atLeast), gocronlock.New(nodes.NewLocker(), time.Minute, atLeast)
			began := time.Now()
			lock, err := one.Lock(t.Context(), "job")
			require.NoError(t, err)
			require.NoError(t, lock.Unlock(t.Context()))
			time.Sleep(late)
			_, err = other.Lock(t.Context(), "job")
			require.ErrorIs(t, err, redlock.ErrNotAcquired, "%v late", late)
			for nodes.Held("job") {
				time.Sleep(ms)
			}
			require.InDelta(t, atLeast+retries, time.Since(began), float64(10*ms), "and no longer")
		})
	}
}

func TestTheLeastHoldSurvivesTheLocker(t *testing.T) {
	const atLeast, retries = 5 * time.Second, time.Second
	for _, ttl := range []time.Duration{time.Minute, time.Second} {
		for _, ended := range []bool{true, false} { // whether the job is done when the Locker is closed
			synctest.Test(t, func(t *testing.T) {
				nodes := redlocktest.Start(t, 3)
				l := nodes.NewLocker()
				began := time.Now()
				lock, err := gocronlock.New(l, ttl, atLeast).Lock(t.Context(), "job")
				require.NoError(t, err)
				time.Sleep(50 * ms)
				if ended {
					require.NoError(t, lock.Unlock(t.Context()))
				}
				time.Sleep(450 * ms)
				require.NoError(t, l.Close())
				if !ended {
					require.ErrorIs(t, lock.Unlock(t.Context()), nil)
				}
				other := gocronlock.New(nodes.Locker(), ttl, atLeast)
				for time.Since(began) < atLeast {
					_, err := other.Lock(t.Context(), "job")
					require.ErrorIs(t, err, redlock.ErrNotAcquired)
				}
				for nodes.Held("job") {
					time.Sleep(ms)
				}
				require.Less(t, time.Since(began), max(ttl, (atLeast+retries)/4*5)+ms, "then it expires")
			})
		}
	}
}

func TestCloseReleasesALockThatHasBeenHeldForLongEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := redlocktest.Start(t, 3)
		l := nodes.NewLocker()
		lock, err := gocronlock.New(l, time.Minute, time.Second).Lock(t.Context(), "job")
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		require.NoError(t, l.Close())
		require.False(t, nodes.Held("job"))
		require.ErrorIs(t, lock.Unlock(t.Context()), redlock.ErrNotHeld)
		_, err = gocronlock.New(l, time.Minute, time.Second).Lock(t.Context(), "job")
		require.ErrorIs(t, err, redlock.ErrClosed)
	})
}

func TestMiddlewareIsToldOfALockThatCloseLeaves(t *testing.T) {
	nodes := redlocktest.Start(t, 3)
	lost := make(chan error, 1)
	l := nodes.NewLocker(redlock.WithMiddleware(lockertest.On(redlock.OpLost, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		lost <- next(ctx, op)
		return nil
	})))
	_, err := gocronlock.New(l, time.Minute, time.Minute).Lock(t.Context(), "job")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-lost, redlock.ErrClosed)
	require.True(t, nodes.Held("job"))
}

func TestOfTwoJobsWithTheNameOfOneFunctionOneGetsAnError(t *testing.T) {
	nodes := redlocktest.Start(t, 3)
	s, err := gocron.NewScheduler(gocron.WithDistributedLocker(gocronlock.New(nodes.Locker(), time.Minute, 0)))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Shutdown()) }()
	ran, refused := make(chan string, 100), make(chan error, 100)
	run := func(tenant string) { ran <- tenant }
	register := func(tenant string, opts ...gocron.JobOption) {
		_, err := s.NewJob(gocron.DurationJob(20*ms), gocron.NewTask(run, tenant), append(opts,
			gocron.WithEventListeners(gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) {
				if !errors.Is(err, redlock.ErrNotAcquired) {
					select {
					case refused <- err:
					default:
					}
				}
			})))...)
		require.NoError(t, err)
	}
	register("north")
	register("south")
	register("east", gocron.WithName("for east"))
	s.Start()
	require.ErrorContains(t, <-refused, "gocronlock_test.TestOfTwoJobs")
	require.ErrorContains(t, <-refused, "give each a name of its own, with gocron.WithName")
	seen := make(map[string]bool)
	for len(seen) < 2 {
		seen[<-ran] = true
	}
	require.True(t, seen["east"])
}

func TestAJobThatIsReplacedKeepsItsName(t *testing.T) {
	l := gocronlock.New(redlocktest.New(t, 3), time.Minute, 0)
	for range 3 {
		job, cancel := context.WithCancel(t.Context())
		for range 2 {
			lock, err := l.Lock(job, "main.run")
			require.NoError(t, err)
			require.NoError(t, lock.Unlock(job))
		}
		cancel() // as gocron does when a job is removed or updated
	}
}
