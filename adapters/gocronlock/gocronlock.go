// Package gocronlock lets the instances of a program share their scheduled jobs: of all
// the schedulers (github.com/go-co-op/gocron/v2) that have a job, one runs it each time.
//
// It is worth it where every instance has the same schedule and it does not matter which
// of them runs a job. If one instance is to run all jobs, use [redlock.Campaign], and start
// the scheduler in the function that leads.
//
// A job does not run exactly once. No instance runs it while so many nodes are down that
// there is no quorum. An instance whose clock is off by more than [New] was told runs it
// again.
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
	least  time.Duration // how long a lock is held, from when it was acquired
	retry  redlock.LockOption

	mu   sync.Mutex                 // guards jobs
	jobs map[string]context.Context // by key: the ctx of the job that has it
}

var _ gocron.Locker = (*Locker)(nil)

// New returns a Locker that acquires a job's lock for ttl, keeps it extended while the job
// runs, and releases it afterwards. If the instance dies, the lock is free after the ttl, or
// after the least hold if that is longer.
//
// The key is the name of the job, after the prefix of [redlock.WithKeyPrefix]. Give each job
// a name with [gocron.WithName]. By default it has that of its function, so that two jobs
// that run the same function, as with different arguments, have one lock: in each interval
// only one of them would run, on any instance. gocron tells a Locker nothing of a job before
// it runs. So only then does Lock return an error for a second job with the name of the same
// function, which [gocron.AfterLockError] sees; on another instance that may be the first.
//
// A lock is held for atLeast and for the time of the retries below, even if the job is done
// sooner. Otherwise an instance whose clock is a little late would find the lock free, and
// run the job again. atLeast must be longer than clocks differ and the nodes take to answer
// together, and, with the time of the retries, shorter than the time between two runs: some
// seconds for a job that runs every minute. [redlock.Locker.Close] does not end that hold:
// of a lock that is not yet to be released it leaves the keys on the nodes, where they
// expire after the ttl. If the least hold is above four fifths of the ttl, keys are set for
// five fourths of it in place of the ttl, so that they last.
//
// An instance that finds the lock held does not run the job. Where several ask at once, each
// may have the votes of some nodes, and none a quorum. So an instance tries again for a
// quarter of atLeast, but no longer than a second.
//
// A job cannot be told that its lock was lost: gocron decides on its ctx.
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
		// A ttl is valid for nine tenths of it, or a little less, whatever the drift.
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

// begin has the lock last.
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

// know notes which job has the key. gocron makes one ctx for each job, and ends it with the
// job. A name without a dot is not that of a function: it was given on purpose.
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
	least    time.Time // it is not released before
}

// Unlock releases the lock. If it is too soon for that, Unlock does not wait until it is not.
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
