// Package gocronlock lets the instances of a program share their scheduled jobs: of all
// the schedulers (github.com/go-co-op/gocron/v2) that have a job, one runs it each time.
//
// Use it where every instance has the same schedule and any of them may run a job. If one
// instance is to run all jobs, use [redlock.Campaign], and start the scheduler in the
// function that leads.
//
// A job does not run exactly once. No instance runs it while so many nodes are down that
// there is no quorum. An instance whose clock is off by more than the atLeast given to [New]
// runs it again.
package gocronlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-co-op/gocron/v2"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/leasthold"
)

// Locker is a [gocron.Locker]. Give it to [gocron.WithDistributedLocker] or, for one job,
// to [gocron.WithDistributedJobLocker].
type Locker struct {
	locker *redlock.Locker
	ttl    time.Duration
	least  time.Duration // the shortest time that a lock is held, from its acquisition
	retry  redlock.LockOption

	mu   sync.Mutex                 // guards jobs
	jobs map[string]context.Context // by key: the ctx of the job that has it
}

var _ gocron.Locker = (*Locker)(nil)

// New returns a Locker that acquires a job's lock for ttl, extends it while the job runs,
// and releases it afterwards. If the instance dies, the lock is free after the ttl, or after
// the least hold if that is longer.
//
// The key is the name of the job, after the prefix of [redlock.WithKeyPrefix]. Give each job
// a name with [gocron.WithName]. The default is the name of its function, so two jobs that
// run the same function with different arguments would share one lock, and only one of them
// would run in each interval. gocron tells a Locker about a job only when the job runs: then
// Lock returns an error for the second of two jobs that have the default name of one
// function, which [gocron.AfterLockError] sees. Another instance may refuse the other one.
//
// A lock is held for atLeast and for the time of the retries below, even if the job ends
// sooner. Otherwise an instance whose clock is a little late would find the lock free, and
// run the job again. atLeast must be longer than the difference of the clocks and the time
// that the nodes take to answer, added up, and with the time of the retries shorter than the
// time between two runs: a few seconds for a job that runs every minute.
// [redlock.Locker.Close] does not cut the hold short: it leaves the keys on the nodes, where
// they expire after the ttl. If the least hold is above four fifths of the ttl, keys are set
// for five fourths of the hold instead of the ttl, so that they outlast it.
//
// An instance that finds the lock held does not run the job. It tries again for a quarter of
// atLeast, but no longer than a second: nodes may be unreachable for a moment.
//
// A job does not learn that its lock was lost: gocron makes the job's ctx.
func New(l *redlock.Locker, ttl, atLeast time.Duration) *Locker {
	limit := max(min(atLeast/4, time.Second), 0)
	retry := redlock.NoRetry()
	if limit > 0 {
		retry = func() backoff.BackOff {
			return backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(10*time.Millisecond),
				backoff.WithMaxInterval(200*time.Millisecond),
				backoff.WithMaxElapsedTime(limit))
		}
	}
	least := max(atLeast, 0) + limit
	return &Locker{
		locker: l,
		// A lock is valid for about nine tenths of its ttl, or more with a smaller drift.
		ttl:   max(ttl, least+least/4),
		least: least,
		retry: redlock.WithRetry(retry),
		jobs:  make(map[string]context.Context),
	}
}

// Lock acquires the lock of a job. If it returns an error, gocron does not run the job, and
// tells the job's event listeners ([gocron.AfterLockError]). The error matches
// [redlock.ErrNotAcquired] if another instance runs the job.
func (l *Locker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	if err := l.know(ctx, key); err != nil {
		return nil, err
	}
	acquired, err := l.locker.Acquire(ctx, key, l.ttl, l.retry)
	if err != nil {
		return nil, err
	}
	held := lock{acquired, leasthold.Of(acquired.Context()), time.Now().Add(l.least)}
	if err := l.begin(ctx, held); err != nil {
		return nil, errors.Join(err, held.release(ctx))
	}
	return held, nil
}

// begin makes the lock last for the least hold.
func (l *Locker) begin(ctx context.Context, held lock) error {
	if l.least > 0 {
		if !held.keep(held.least) {
			return redlock.ErrClosed
		}
		if held.acquired.Until().Before(held.least) { // it was granted for a moment, or late
			if err := held.acquired.Extend(ctx, 0); err != nil {
				return err
			}
		}
	}
	return held.acquired.AutoExtend(0)
}

// know records which job uses the key. gocron makes one ctx for each job, and ends it with the
// job. A name without a dot is not the name of a function: the caller chose it.
func (l *Locker) know(job context.Context, key string) error {
	if !strings.Contains(key, ".") {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := l.jobs[key]; first != nil && first != job && first.Err() == nil {
		return fmt.Errorf("redlock: lock %q: another job runs this function, and has its name: give each a name of its own, with gocron.WithName", key)
	}
	l.jobs[key] = job //nolint:fatcontext // kept to tell jobs apart, and not nested
	return nil
}

// lock is the lock of a job that runs, or has run.
type lock struct {
	acquired *redlock.Lock
	keep     leasthold.Keep
	least    time.Time // the lock is not released before
}

// Unlock releases the lock, or returns at once if the least hold has not passed: then a
// timer releases it.
func (l lock) Unlock(ctx context.Context) error {
	rest := time.Until(l.least)
	if rest <= 0 {
		return l.release(ctx)
	}
	time.AfterFunc(rest, func() { _ = l.release(ctx) }) // if that fails, the lock expires
	return nil
}

func (l lock) release(ctx context.Context) error {
	defer l.keep(time.Time{})
	return l.acquired.Release(ctx)
}
