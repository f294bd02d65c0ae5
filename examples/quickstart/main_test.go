package main

import (
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestShowsWhatItPromises(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var out strings.Builder
	require.NoError(t, run(ctx, io.MultiWriter(&out, t.Output()), nil))

	rest := out.String()
	for _, line := range []string{
		"1. A typed result",
		"With returned {Name:Ada Visits:42}",
		"2. Contention",
		"3. One node of three dies",
		"is dead",
		"ttls after the node died",
		"4. A second node dies",
		"is dead",
		"the ctx ended at",
		"the lock was valid until",
		"the cause, an ErrLost: redlock: hold \"ledger\": lock lost",
		"Do returned: ledger half written; redlock: hold \"ledger\": lock lost",
	} {
		_, after, found := strings.Cut(rest, line)
		require.True(t, found, "no %q, in this order, in:\n%s", line, out.String())
		rest = after
	}

	jobs := regexp.MustCompile(`(Ann|Bob) (begins|ends) job (\d)`).FindAllStringSubmatch(out.String(), -1)
	require.Len(t, jobs, 8)
	for i := 0; i < len(jobs); i += 2 {
		began, ended := jobs[i], jobs[i+1]
		require.Equal(t, []string{began[1], "ends", began[3]}, ended[1:], "the workers overlap")
	}
}

func TestRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-nodes", "r1:6379"},
		{"-nodes", "redis://r1:6379,redis://r1:6379"},
		{"-nodes", "redis://r1:6379,", "redis://r2:6379"},
	} {
		require.Error(t, run(t.Context(), io.Discard, args), args)
	}
}
