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
// does not campaign again. lead runs once each time this process is elected, and should
// first check what earlier leaders have done. Inside lead, [FromContext] returns the lock.
//
// Campaign returns
//
//   - lead's result, nil or an error, if the lock was not lost before lead returned: lead
//     resigns by returning.
//   - an error that matches ctx's, if ctx ended while this process did not lead, or after
//     it lost the lock. If ctx ends while this process leads, it leads until lead returns.
//   - an error that matches [ErrClosed], if the [Locker] was closed.
//   - at once, an error that no wait would cure: a bad argument, [ErrAlreadyHeld], the refusal
//     of a middleware, or nodes that lack a command ([errors.ErrUnsupported]).
//
// If the lock was lost before lead returned, Campaign drops lead's result. Middleware sees it.
//
// While another process leads, and while so many nodes are down that there is no quorum,
// Campaign tries again after the pauses of the retry policy ([WithRetry]). When the policy
// ends, it starts over; a policy without any pause, such as [NoRetry], pauses for a second.
// A campaign keeps its place in the nodes' queues. It reports nothing while it waits; use
// [Locker.Ping] to see whether the nodes answer.
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
	var pauses backoff.BackOff // between campaigns since this process last led
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

// campaignsAgain reports whether Campaign tries again after err. lock is nil if this process was
// not elected. Because lead's own error may match ErrLost too, campaignsAgain also checks the
// lock's context.
func campaignsAgain(lock *Lock, err error) bool {
	if lock == nil {
		return !errors.Is(err, errors.ErrUnsupported) && (errors.Is(err, ErrNotAcquired) || errors.Is(err, ErrNoQuorum))
	}
	return errors.Is(err, ErrLost) && errors.Is(context.Cause(lock.Context()), ErrLost)
}

// pauseCampaign pauses a campaign whose latest result is err. If ctx ends or the Locker is
// closed, it returns err, joined with the reason.
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

// endlessly returns a policy that starts over when p ends.
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
	if d == backoff.Stop { // the policy has no pause
		d = time.Second
	}
	return d
}
