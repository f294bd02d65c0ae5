package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestTheCommandDiesWithTheTool(t *testing.T) {
	p := begin(t, redistest.Start(t).Addr(), "run", "k", "--", "sh", "-c", "echo pid $$; exec sleep 1000")
	p.says("\n")
	var pid int
	_, err := fmt.Sscanf(strings.TrimSpace(p.stdout.String()), "pid %d", &pid)
	require.NoError(t, err)
	require.True(t, alive(pid))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	p.signal(syscall.SIGKILL)
	eventually.True(t, "the command is gone", func() bool { return !alive(pid) })
}

// alive tells whether a process exists.
func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
