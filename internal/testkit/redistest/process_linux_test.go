package redistest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

// The test runs itself as a child, which starts a server and kills itself, so
// that no clean-up runs.
func TestServerDiesWithTheTestBinary(t *testing.T) {
	const env = "REDISTEST_ADDR_FILE"
	if file := os.Getenv(env); file != "" {
		s := Start(t)
		require.NoError(t, os.WriteFile(file, []byte(s.Addr()), 0o600))
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	dir := t.TempDir()
	file := dir + "/addr"
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), env+"="+file, "TMPDIR="+dir)
	require.Error(t, child.Run())
	addr, err := os.ReadFile(file)
	require.NoError(t, err)
	eventually.True(t, "the server is gone", func() bool {
		_, err := probe(string(addr), "PING")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}
