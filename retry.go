package redlock

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// RetryPolicy makes the pauses between the attempts of one Acquire. It is a
// factory because a backoff.BackOff holds state: each wait gets its own, which
// is Reset before its first pause. A policy is called concurrently. The wait
// ends when NextBackOff returns backoff.Stop, or when ctx does; nothing else
// bounds it, in particular not the ttl.
type RetryPolicy func() backoff.BackOff

// FixedRetry pauses for delay plus a random part of jitter, at most max times;
// with max < 0 until ctx ends. A negative delay or jitter counts as 0.
func FixedRetry(delay, jitter time.Duration, max int) RetryPolicy {
	pause := fixed{delay: atLeast(delay, 0), jitter: atLeast(jitter, 0)}
	return func() backoff.BackOff {
		if max < 0 {
			return pause
		}
		return backoff.WithMaxRetries(pause, uint64(max))
	}
}

// ExponentialRetry pauses for a random time between 0 and a bound that starts
// at initial and doubles up to max, until ctx ends: "full jitter"
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
// initial and max below 1 ms count as 1 ms, and max below initial as initial.
func ExponentialRetry(initial, max time.Duration) RetryPolicy {
	initial = atLeast(initial, time.Millisecond)
	max = atLeast(max, initial)
	return func() backoff.BackOff {
		// The library spreads an interval by ± its factor: 1 makes 0 … 2×.
		return backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(initial/2),
			backoff.WithMaxInterval(max/2),
			backoff.WithMultiplier(2),
			backoff.WithRandomizationFactor(1),
			backoff.WithMaxElapsedTime(0))
	}
}

// NoRetry makes one attempt.
func NoRetry() RetryPolicy {
	return func() backoff.BackOff { return &backoff.StopBackOff{} }
}

// fixed has no state.
type fixed struct{ delay, jitter time.Duration }

func (f fixed) NextBackOff() time.Duration {
	if f.jitter == 0 {
		return f.delay
	}
	return f.delay + rand.N(f.jitter)
}

func (fixed) Reset() {}

func atLeast(d, least time.Duration) time.Duration {
	if d < least {
		return least
	}
	return d
}
