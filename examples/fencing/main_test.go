//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// TestMain is the program where the tests start it as a teller.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == tellerArg {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// A holder that is stopped for longer than its lock lasts writes late. Without a
// fence an update is lost, with one none is.
func TestAFenceTurnsALateWriteAway(t *testing.T) {
	real := redistest.StartN(t, 3)
	for name, args := range map[string][]string{
		"nodes in memory": nil,
		"real nodes":      {"-nodes", strings.Join(redistest.URLs(real), ",")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var out strings.Builder
			require.NoError(t, run(ctx, io.MultiWriter(&out, t.Output()), args))

			rest := out.String()
			for _, line := range []string{
				"1. Without a fence",
				"Ann holds the lock and has read 100",
				"Ann is stopped",
				"Bob holds the lock and has read 100",
				"Bob pays in 50 and has written 150",
				"Ann goes on",
				"Ann pays in 10 and has written 110",
				`Ann learns it too late: redlock: hold "account:plain": lock lost`,
				"The account has 110, not 160: a deposit is lost.",
				"2. With a fence",
				"Ann holds the lock with fence ",
				" and has read 100",
				"Ann is stopped",
				"Bob holds the lock with fence ",
				"Bob pays in 50 and has written 150",
				"Ann goes on",
				"Ann is turned away, as fence ",
				" and tries again",
				"Ann holds the lock with fence ",
				" and has read 150",
				"Ann pays in 10 and has written 160",
				"The account has 160: no deposit is lost.",
			} {
				_, after, found := strings.Cut(rest, line)
				require.True(t, found, "no %q, in this order, in:\n%s", line, out.String())
				rest = after
			}
		})
	}
}

// The holder may write as often as it likes. A write of an earlier holder is refused once
// a later holder has read.
func TestTheLedgerRefusesAFenceBelowTheHighestThatItHasSeen(t *testing.T) {
	ctx := t.Context()
	l, err := openLedger(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.create(ctx, "a", 100))

	balance, err := l.fencedBalance(ctx, "a", 7)
	require.NoError(t, err)
	require.Equal(t, 100, balance)
	require.NoError(t, l.setFencedBalance(ctx, "a", 110, 7))
	require.NoError(t, l.setFencedBalance(ctx, "a", 120, 7), "several writes under one lock")

	balance, err = l.fencedBalance(ctx, "a", 9)
	require.NoError(t, err)
	require.Equal(t, 120, balance)
	require.EqualError(t, l.setFencedBalance(ctx, "a", 130, 8), "fence 8 is stale")
	_, err = l.fencedBalance(ctx, "a", 8)
	require.EqualError(t, err, "fence 8 is stale")
	balance, err = l.balance(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, 120, balance)
}

func TestRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-nodes", "r1:6379"},
		{"-nodes", "redis://r1:6379,redis://r1:6379"},
		{"-nodes", "redis://r1:6379,", "redis://r2:6379"},
	} {
		require.Error(t, run(t.Context(), io.Discard, args), fmt.Sprint(args))
	}
}
