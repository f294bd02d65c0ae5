//go:build unix

package nemesis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// nodesOfHolder, when set, makes the test binary a holder, which the test stops. It looks
// at its lock when the file wentOn exists.
const (
	nodesOfHolder = "NEMESIS_HOLDER_NODES"
	wentOn        = "NEMESIS_HOLDER_WENT_ON"
)

// Row 16: a holder that is stopped for longer than its lock is valid. A rival gets the
// lock in that time. When the holder goes on it finds at once that it no longer holds the
// lock, without having to wait for its timers or nodes. No lock can prevent a write
// before it looks. The fence refuses such a write.
func TestAStoppedHolderFindsItsLockGone(t *testing.T) {
	bed := NewTestbed(t, 5, ttl)
	urls := redistest.URLs(bed.Proxies)
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHolder$", "-test.v")
	goOn := filepath.Join(t.TempDir(), "went-on")
	holder.Env = append(os.Environ(), nodesOfHolder+"="+strings.Join(urls, ","), wentOn+"="+goOn)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	defer func() { _ = holder.Wait() }()
	lines := bufio.NewScanner(out)
	next := func(prefix string) string {
		for lines.Scan() {
			if line, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return line
			}
		}
		require.FailNow(t, "the holder ended", "before it said %q", prefix)
		return ""
	}
	fence, err := strconv.ParseInt(next("holding with fence "), 10, 64)
	require.NoError(t, err)
	var r register
	require.NoError(t, r.set(fence))
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))
	rival := bed.Open()
	defer rival.Close()
	lock, err := rival.Acquire(t.Context(), "k", bed.TTL, redlock.WithRetry(redlock.FixedRetry(5*ms, 5*ms, -1)), redlock.WithFence())
	require.NoError(t, err)
	require.NoError(t, r.set(lock.Fence()))
	require.ErrorIs(t, r.set(fence), errStale, "what the stopped holder writes when it goes on")
	require.NoError(t, lock.AutoExtend(0))
	require.NoError(t, os.WriteFile(goOn, nil, 0o600))
	require.NoError(t, holder.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "valid=false", next("after the stop: "))
	require.Equal(t, "lost=true", next("ctx ended: "))
	require.True(t, lock.Valid(), "what the stopped holder does when it goes on leaves the rival's lock alone: %v", context.Cause(lock.Context()))
	require.NoError(t, lock.Extend(t.Context(), 0))
	require.NoError(t, lock.Release(t.Context()))
}

// TestHolder is the holder, in a process of its own. Run alone it checks that a
// lock that is not stopped stays valid.
func TestHolder(t *testing.T) {
	nodes, child := os.LookupEnv(nodesOfHolder)
	urls := strings.Split(nodes, ",")
	if !child {
		urls = urls[:0]
		for _, p := range NewTestbed(t, 3, ttl).Proxies {
			urls = append(urls, p.URL())
		}
	}
	l, err := redlock.Open(context.Background(), urls)
	require.NoError(t, err)
	defer l.Close()
	err = redlock.Do(t.Context(), l, "k", ttl, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		if !child {
			require.True(t, lock.Valid())
			return nil
		}
		fmt.Println("holding with fence", lock.Fence())
		// The file is there when the rival holds the lock. The first look after
		// that must be true, though no timer may have run yet.
		for {
			if _, err := os.Stat(os.Getenv(wentOn)); err == nil {
				break
			}
		}
		fmt.Printf("after the stop: valid=%v\n", lock.Valid())
		<-ctx.Done()
		fmt.Printf("ctx ended: lost=%v\n", errors.Is(context.Cause(ctx), redlock.ErrLost))
		return nil
	}, redlock.WithFence())
	require.Equal(t, child, errors.Is(err, redlock.ErrLost))
}
