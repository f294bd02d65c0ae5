package redlock_test

import (
	"math"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
)

func TestRetryPolicies(t *testing.T) {
	for _, c := range []struct {
		name        string
		policy      redlock.RetryPolicy
		pauses      int // before it stops; -1: never
		least, most time.Duration
	}{
		{"none", redlock.NoRetry(), 0, 0, 0},
		{"fixed", redlock.FixedRetry(200*ms, 100*ms, 3), 3, 200 * ms, 300 * ms},
		{"fixed, no retries", redlock.FixedRetry(200*ms, 100*ms, 0), 0, 0, 0},
		{"fixed, no jitter", redlock.FixedRetry(5*ms, 0, 4), 4, 5 * ms, 5 * ms},
		{"fixed, for ever", redlock.FixedRetry(ms, ms, -1), -1, ms, 2 * ms},
		{"fixed, negative", redlock.FixedRetry(-ms, -ms, 2), 2, 0, 0},
		{"fixed, as long as can be", redlock.FixedRetry(math.MaxInt64, time.Second, -1), -1, math.MaxInt64, math.MaxInt64},
		{"fixed, nearly so", redlock.FixedRetry(math.MaxInt64-ms, time.Second, -1), -1, math.MaxInt64 - ms, math.MaxInt64},
		{"fixed, any pause at all", redlock.FixedRetry(0, math.MaxInt64, -1), -1, 0, math.MaxInt64},
		{"exponential", redlock.ExponentialRetry(10*ms, time.Second), -1, 0, time.Second},
		{"exponential, as long as can be", redlock.ExponentialRetry(math.MaxInt64, math.MaxInt64), -1, 0, math.MaxInt64},
		{"exponential, max below initial", redlock.ExponentialRetry(10*ms, ms), -1, 0, 10 * ms},
		{"exponential, negative", redlock.ExponentialRetry(-1, -1), -1, 0, ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			one, other := c.policy(), c.policy()
			for i := range 1000 {
				pause := one.NextBackOff()
				if c.pauses >= 0 && i >= c.pauses {
					require.Equal(t, backoff.Stop, pause)
					continue
				}
				require.GreaterOrEqual(t, pause, c.least)
				require.LessOrEqual(t, pause, c.most)
			}
			if c.pauses > 0 {
				require.NotEqual(t, backoff.Stop, other.NextBackOff(), "another wait has its own")
			}
		})
	}
}

func TestExponentialRetryDoublesItsBound(t *testing.T) {
	const waits = 200
	var longest [5]time.Duration
	for range waits {
		b := redlock.ExponentialRetry(16*ms, 64*ms)()
		for i := range longest {
			longest[i] = max(longest[i], b.NextBackOff())
		}
	}
	for i, bound := range []time.Duration{16 * ms, 32 * ms, 64 * ms, 64 * ms, 64 * ms} {
		require.LessOrEqual(t, longest[i], bound)
		require.Greater(t, longest[i], bound/2, "full jitter reaches the upper half")
	}
}

func TestAPolicyIsResetBeforeItsFirstPause(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	held, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	var pauses []time.Duration
	_, err = l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(func() backoff.BackOff {
		return backoff.WithMaxRetries(noting{&backoff.ExponentialBackOff{
			InitialInterval: 10 * ms, MaxInterval: 10 * ms, Multiplier: 1, Clock: backoff.SystemClock,
		}, &pauses}, 3)
	}))
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.Equal(t, []time.Duration{10 * ms, 10 * ms, 10 * ms}, pauses)
	require.NoError(t, held.Release(t.Context()))
}

// noting notes the pauses of a policy.
type noting struct {
	backoff.BackOff
	pauses *[]time.Duration
}

func (n noting) NextBackOff() time.Duration {
	pause := n.BackOff.NextBackOff()
	*n.pauses = append(*n.pauses, pause)
	return pause
}
