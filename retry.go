package redlock

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// RetryPolicy decides how long to pause between the attempts of an acquire. It is
// a function that returns a new [backoff.BackOff] for each acquire, because a
// BackOff has state. It is called concurrently. The BackOff is Reset before its
// first pause.
//
// The wait ends when NextBackOff returns [backoff.Stop], or when ctx ends. Nothing
// else bounds it, in particular not the ttl.
type RetryPolicy func() backoff.BackOff

// FixedRetry returns a policy that pauses for delay plus a random part of jitter.
// It allows max more attempts after the first; a negative max means no limit. A
// negative delay or jitter counts as 0. No pause is longer than the longest
// [time.Duration].
func FixedRetry(delay, jitter time.Duration, max int) RetryPolicy {
	pause := fixed{delay: atLeast(delay, 0), jitter: atLeast(jitter, 0)}
	pause.jitter = min(pause.jitter, math.MaxInt64-pause.delay)
	return func() backoff.BackOff {
		if max < 0 {
			return pause
		}
		return backoff.WithMaxRetries(pause, uint64(max))
	}
}

// ExponentialRetry returns a policy that pauses for a random time below a bound. The
// bound starts at initial and doubles with each attempt, up to max: "full jitter"
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). The
// policy goes on until ctx ends. An initial below 1 ms counts as 1 ms, and a max below
// initial as initial.
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

// NoRetry returns a policy that allows a single attempt.
func NoRetry() RetryPolicy {
	return func() backoff.BackOff { return &backoff.StopBackOff{} }
}

// pauses yields the pauses of one acquisition.
type pauses struct {
	policy  RetryPolicy
	backoff backoff.BackOff // made by policy for the first pause
	next    time.Duration
	peeked  bool // next is valid
}

// peek returns the pause that take will return: [backoff.Stop] if there is none.
func (p *pauses) peek() (time.Duration, error) {
	if p.backoff == nil {
		if p.backoff = p.policy(); p.backoff == nil {
			return 0, argumentError("WithRetry: the policy returned nil: must return a backoff.BackOff")
		}
		p.backoff.Reset()
	}
	if !p.peeked {
		p.next, p.peeked = p.backoff.NextBackOff(), true
	}
	return p.next, nil
}

// take returns the next pause.
func (p *pauses) take() (time.Duration, error) {
	pause, err := p.peek()
	p.peeked = false
	return pause, err
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
