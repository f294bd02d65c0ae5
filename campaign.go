package redlock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Campaign elects a leader among the processes that campaign for key: the process that
// holds the lock on it leads. Campaign waits for the lock for as long as ctx allows, runs
// lead while it holds the lock, and campaigns again if the lock was lost.
//
// lead gets the ctx that [With] gives to its function. If leadership is lost the ctx ends,
// with a cause that matches [ErrLost], before another process can lead (see the conditions
// in the package documentation). lead should then return soon: until it does, this process
// does not campaign again. lead runs once for each time that this process is elected, and
// should begin with a look at what other leaders have done. [FromContext] returns its lock.
//
// Campaign returns
//
//   - what lead returned, nil or an error, if the lock had not been lost by then. So lead
//     resigns by returning.
//   - an error that matches ctx's, if ctx ended while this process did not lead, or after
//     it lost the lock. If ctx ends while it leads, it leads on until lead returns.
//   - an error that matches [ErrClosed], if the [Locker] was closed.
//   - at once, an error that waiting does not change: a bad argument, [ErrAlreadyHeld], or
//     the refusal of a middleware.
//
// What lead returns after the lock was lost is not returned, but middleware sees it.
//
// While another process leads, and while so many nodes are down that there is no quorum,
// Campaign tries again after the pauses of the retry policy ([WithRetry]). A policy that has
// ended begins again; one without any pause, such as [NoRetry], pauses for a second. A
// campaign keeps its place in the nodes' queues. It reports nothing while it waits; ask
// [Locker.Ping] whether the nodes answer.
//
// When the leader resigns, the next one leads at once. When its process dies, the next one
// leads after the leader's ttl.
func Campaign(ctx context.Context, l *Locker, key string, ttl time.Duration, lead func(ctx context.Context) error, opts ...LockOption) error {
	if lead == nil {
		return opErrorf("campaign", l.prefix([]string{key}), "lead is nil: must be a function")
	}
	config, err := l.lockConfig(opts)
	if err != nil {
		return &opError{op: "acquire", keys: l.prefix([]string{key}), what: err}
	}
	policy := endlessly(config.retry)
	opts = append(slices.Clip(opts), WithRetry(policy))
	var pauses backoff.BackOff // of the campaigns since this process led last
	for {
		var lock *Lock
		err := Do(ctx, l, key, ttl, func(ctx context.Context) error {
			lock, _ = FromContext(ctx)
			return lead(ctx)
		}, opts...)
		if !campaignsAgain(lock, err) {
			return err
		}
		if lock != nil || pauses == nil {
			if pauses = policy(); pauses == nil {
				return err
			}
			pauses.Reset()
		}
		if err := l.pauseCampaign(ctx, pauses.NextBackOff(), err); err != nil {
			return err
		}
	}
}

// campaignsAgain reports whether a campaign goes on. lock is nil if it was not won. An
// error of lead's own may match ErrLost too, so the lock itself is asked.
func campaignsAgain(lock *Lock, err error) bool {
	if lock == nil {
		return errors.Is(err, ErrNotAcquired) || errors.Is(err, ErrNoQuorum)
	}
	return errors.Is(err, ErrLost) && errors.Is(context.Cause(lock.Context()), ErrLost)
}

// pauseCampaign pauses a campaign, of which err is the latest result. If ctx ends or the Locker is
// closed, it returns err, joined with what ended the pause.
func (l *Locker) pauseCampaign(ctx context.Context, pause time.Duration, err error) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-l.closing:
	}
	ended := l.interruption(ctx)
	if ended == nil {
		return nil
	}
	for _, why := range ended {
		if !errors.Is(err, why) {
			err = errors.Join(err, why)
		}
	}
	return err
}

// endlessly returns a policy that begins again when p ends.
func endlessly(p RetryPolicy) RetryPolicy {
	return func() backoff.BackOff {
		pauses := p()
		if pauses == nil {
			return nil
		}
		return endless{pauses}
	}
}

type endless struct{ backoff.BackOff }

func (e endless) NextBackOff() time.Duration {
	d := e.BackOff.NextBackOff()
	if d == backoff.Stop {
		e.Reset()
		d = e.BackOff.NextBackOff()
	}
	if d == backoff.Stop { // there is no pause
		d = time.Second
	}
	return d
}
