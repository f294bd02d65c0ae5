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
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-co-op/gocron/v2"

	"github.com/redis-kit/redlock"
)

// Locker is a [gocron.Locker]. Give it to [gocron.WithDistributedLocker] or, for one job,
// to [gocron.WithDistributedJobLocker].
type Locker struct {
	locker  *redlock.Locker
	ttl     time.Duration
	atLeast time.Duration
	retry   redlock.LockOption
}

var _ gocron.Locker = (*Locker)(nil)

// New returns a Locker that acquires a job's lock for ttl, keeps it extended while the job
// runs, and releases it afterwards. If the instance dies, the lock is free after the ttl. The
// key is the name of the job ([gocron.WithName]; by default that of its function), after
// the prefix of [redlock.WithKeyPrefix].
//
// A lock is held for atLeast, even if the job is done sooner. Otherwise an instance whose
// clock is a little late would find the lock free, and run the job again. atLeast must be
// longer than clocks differ, and shorter than the time between two runs: some seconds for
// a job that runs every minute.
//
// An instance that finds the lock held does not run the job. Where several ask at once, each
// may have the votes of some nodes, and none a quorum. So an instance tries again for a
// quarter of atLeast, but no longer than a second.
//
// A job cannot be told that its lock was lost: gocron decides on its ctx.
func New(l *redlock.Locker, ttl, atLeast time.Duration) *Locker {
	retry := redlock.NoRetry()
	if limit := min(atLeast/4, time.Second); limit > 0 {
		retry = func() backoff.BackOff {
			return backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(10*time.Millisecond),
				backoff.WithMaxInterval(200*time.Millisecond),
				backoff.WithMaxElapsedTime(limit))
		}
	}
	return &Locker{locker: l, ttl: ttl, atLeast: atLeast, retry: redlock.WithRetry(retry)}
}

// Lock acquires the lock of a job. If it returns an error, gocron does not run the job, and
// tells the job's event listeners ([gocron.AfterLockError]). The error matches
// [redlock.ErrNotAcquired] if another instance runs the job.
func (l *Locker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	acquired, err := l.locker.Acquire(ctx, key, l.ttl, l.retry)
	if err != nil {
		return nil, err
	}
	if err := acquired.AutoExtend(0); err != nil {
		return nil, errors.Join(err, acquired.Release(ctx))
	}
	return lock{acquired, time.Now().Add(l.atLeast)}, nil
}

// lock is the lock of a job that runs, or has run.
type lock struct {
	held  *redlock.Lock
	least time.Time // it is not released before
}

// Unlock releases the lock. If it is too soon for that, Unlock does not wait until it is not.
func (l lock) Unlock(ctx context.Context) error {
	rest := time.Until(l.least)
	if rest <= 0 {
		return l.held.Release(ctx)
	}
	time.AfterFunc(rest, func() { _ = l.held.Release(ctx) }) // if that fails, the lock expires
	return nil
}
