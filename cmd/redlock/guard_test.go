//go:build unix

package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// The services use the guard. All nodes forget what they granted.
func TestWithTheGuardTheToolIsNotGivenALockThatNodesMayHaveForgotten(t *testing.T) {
	servers := redistest.StartN(t, 3, safe...)
	service := lockertest.Open(t, redistest.URLs(servers), redlock.WithRestartGuard(time.Minute, time.Second))
	require.NoError(t, service.TrustNodes(t.Context()))
	held, err := service.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	command := []string{"k", "--", "echo", "runs"}
	flags := []string{"-guard-max-ttl", "1m", "-guard-skew", "1s"}

	code, _, _ := use(t, list(servers), append(append([]string{"run", "-wait", "0"}, flags...), command...)...)
	require.Equal(t, 75, code, "it is held")
	for _, s := range servers {
		_, err := s.Do("FLUSHALL")
		require.NoError(t, err)
	}
	code, stdout, stderr := use(t, list(servers), append(append([]string{"run", "-wait", "0"}, flags...), command...)...)
	require.Equal(t, 69, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "quarantined after a restart or data loss until ")
	require.True(t, held.Valid(), "it was right not to run it")

	code, stdout, stderr = use(t, list(servers), append([]string{"status"}, append(flags, "k")...)...)
	require.Equal(t, 69, code, "no quorum may vote")
	require.Contains(t, stdout, `"k" is unknown: on 0 of 3 nodes, 2 needed`)
	require.Contains(t, stdout, "(in quarantine for ")
	require.Contains(t, stderr, "too few of the nodes that may vote answered")
	code, stdout, _ = use(t, list(servers), "status", "k")
	require.Zero(t, code, "without the guard it cannot know")
	require.Contains(t, stdout, `"k" is free`)

	// The same by the variable.
	t.Setenv(guardVariable, "1m,1s")
	code, stdout, _ = use(t, list(servers), append([]string{"run", "-wait", "0"}, command...)...)
	require.Equal(t, 69, code)
	require.Empty(t, stdout)
	code, stdout, _ = use(t, list(servers), "status", "-json", "k")
	require.Equal(t, 69, code)
	var s status
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.InDelta(t, 62*time.Second.Milliseconds(), s.Nodes[0].Quarantine, 60e3)
	require.NoError(t, service.TrustNodes(t.Context()))
	code, stdout, stderr = use(t, list(servers), append([]string{"run"}, command...)...)
	require.Zero(t, code, stderr)
	require.Equal(t, "runs\n", stdout)
}

func TestAGuardThatDoesNotFitIsAMistakeOnTheCommandLine(t *testing.T) {
	run := func(flags ...string) []string { return append(append([]string{"run"}, flags...), "k", "--", "true") }
	for _, c := range []struct {
		variable string
		args     []string
		want     string
	}{
		{"", run("-guard-max-ttl", "1ms"), "-guard-max-ttl: a longest ttl of 1ms: must be from 10ms to 87600h0m0s, or 0 for no restart guard"},
		{"", run("-guard-max-ttl", "-1s"), "-guard-max-ttl: a longest ttl of -1s: must be"},
		{"", run("-guard-max-ttl", "1m", "-guard-skew", "2m"), "-guard-max-ttl: a skew of 2m0s: must be from 0 to the longest ttl, 1m0s"},
		{"", run("-guard-max-ttl", "1m", "-guard-skew", "-1s"), "-guard-max-ttl: a skew of -1s: must be"},
		{"", run("-guard-skew", "1s"), "-guard-skew 1s: needs -guard-max-ttl"},
		{"1m", run("-guard-skew", "1s"), "-guard-skew 1s: needs -guard-max-ttl"},
		{"", run("-guard-max-ttl", "10s"), "-ttl 30s: must be at most 10s, the longest ttl of the restart guard"},
		{"10s", run(), "-ttl 30s: must be at most 10s"},
		{"", run("-guard-max-ttl", "1m", "-nodes", "redis://localhost:1?addr=localhost:2"), "-guard-max-ttl: node 1 of -nodes is a Cluster"},
		{"soon", run(), `REDLOCK_GUARD="soon": must be the longest ttl and, behind a comma, the skew, such as 10m,1s`},
		{"1m,", run(), `REDLOCK_GUARD="1m,": must be`},
		{"1m,1s,1s", []string{"status", "k"}, `REDLOCK_GUARD="1m,1s,1s": must be`},
		{"1m;1s", []string{"doctor"}, `REDLOCK_GUARD="1m;1s": must be`},
		{"0,1s", []string{"doctor"}, "REDLOCK_GUARD: a longest ttl of 0s: must be"},
		{"", []string{"run", "{k}:redlock:queue", "--", "true"}, `run "{k}:redlock:queue": the library uses this name`},
		{"", []string{"status", "{k}:redlock:fence"}, `status "{k}:redlock:fence": the library uses this name`},
		{"", []string{"doctor", "redlock:guard"}, `doctor "redlock:guard": the library uses this name`},
	} {
		t.Setenv(guardVariable, c.variable)
		code, stdout, stderr := use(t, "localhost:1", c.args...)
		require.Equal(t, 64, code, "%s%v", stderr, c)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
	}
	t.Setenv(guardVariable, "10s")
	code, _, stderr := use(t, redistest.Start(t).Addr(), run("-guard-max-ttl", "0")...)
	require.Zero(t, code, stderr, "the flag counts, and 0 is none")
}

func TestDoctorJudgesByTheGuard(t *testing.T) {
	s := redistest.Start(t)
	code, found, _ := consult(t, s.Addr(), "-guard-max-ttl", "1m")
	require.Zero(t, code)
	require.Equal(t, warning, found["persistence "+s.Addr()], "the guard keeps it from voting twice")
	require.Equal(t, warning, found["guard "+s.Addr()], "it is new")

	service := lockertest.Open(t, []string{s.URL()}, redlock.WithRestartGuard(time.Minute, 0))
	_, err := service.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	_, found, d := consult(t, s.Addr(), "-guard-max-ttl", "1m")
	require.Equal(t, warning, found["guard "+s.Addr()])
	require.Contains(t, textOf(d, "guard"), "it is in quarantine, and does not vote for another ")
	require.NoError(t, service.TrustNodes(t.Context()))
	_, found, _ = consult(t, s.Addr(), "-guard-max-ttl", "1m")
	require.NotContains(t, found, "guard "+s.Addr())
	code, found, _ = consult(t, s.Addr())
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["persistence "+s.Addr()])
	require.Equal(t, warning, found["guard-unset "+s.Addr()], "the tool has no guard, and others have")
}

func textOf(d diagnosis, check string) string {
	for _, f := range d.Findings {
		if f.Check == check {
			return f.Text
		}
	}
	return ""
}
