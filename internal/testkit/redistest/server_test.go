//go:build unix

package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServersAreSeparateAndEmpty(t *testing.T) {
	servers := StartN(t, 3)
	seen := map[string]bool{}
	for i, s := range servers {
		assert.Equal(t, "redis://"+s.Addr(), s.URL())
		assert.DirExists(t, s.Dir())
		seen[s.Addr()], seen[s.Dir()] = true, true
		assert.Empty(t, s.Keys(t))
		mustDo(t, s, "SET", "k", fmt.Sprint(i))
	}
	assert.Len(t, seen, 6)
	for i, s := range servers {
		value, ok := s.Get(t, "k")
		assert.True(t, ok)
		assert.Equal(t, fmt.Sprint(i), value)
	}
}

func TestUserArgumentsWin(t *testing.T) {
	s := Start(t, "--appendonly", "yes", "--maxclients", "77")
	assert.Equal(t, []any{"appendonly", "yes"}, mustDo(t, s, "CONFIG", "GET", "appendonly"))
	assert.Equal(t, []any{"maxclients", "77"}, mustDo(t, s, "CONFIG", "GET", "maxclients"))
	assert.Equal(t, []any{"dir", s.Dir()}, mustDo(t, s, "CONFIG", "GET", "dir"))
}

func TestKilledServerRefusesAndComesBackEmptyOnItsPort(t *testing.T) {
	s := Start(t)
	addr := s.Addr()
	mustDo(t, s, "SET", "k", "v")
	s.Kill()
	_, err := s.Do("PING")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	s.Kill()
	s.Pause()
	s.Resume()

	s.Restart()
	assert.Equal(t, addr, s.Addr())
	assert.Empty(t, s.Keys(t))
	mustDo(t, s, "SET", "k", "v")
	s.Restart()
	assert.Empty(t, s.Keys(t), "a restart must kill the one that runs")
}

func TestRestartKeepsWhatTheAOFHolds(t *testing.T) {
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	mustDo(t, s, "SET", "k", "v")
	s.Restart()
	value, ok := s.Get(t, "k")
	assert.True(t, ok)
	assert.Equal(t, "v", value)
}

func TestPausedServerAnswersOnlyAfterResume(t *testing.T) {
	s := Start(t)
	c := dial(t, s.Addr())
	c.do("PING")
	s.Pause()
	s.Pause()
	c.send("SET", "k", "v")
	c.silent()
	s.Resume()
	assert.Equal(t, "OK", c.reply())
	value, _ := s.Get(t, "k")
	assert.Equal(t, "v", value)
}

func TestPausedServerCanBeKilledAndRestarted(t *testing.T) {
	s := Start(t)
	s.Pause()
	s.Kill()
	_, err := s.Do("PING")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	s.Restart()
	s.Pause()
	s.Restart()
	mustDo(t, s, "PING")
}

func TestCleanupKillsThePausedToo(t *testing.T) {
	var s *Server
	t.Run("inner", func(t *testing.T) {
		s = Start(t)
		s.Pause()
	})
	assert.False(t, s.running())
	assert.NoDirExists(t, s.Dir())
}

func TestServersSurviveTheThreadsOfTheirStart(t *testing.T) {
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				// Never unlocked: the thread ends with the goroutine.
				churn.Go(runtime.LockOSThread)
				runtime.Gosched()
			}
		}
	})
	servers := StartN(t, 4)
	time.Sleep(quiet)
	close(stop)
	churn.Wait()
	for _, s := range servers {
		mustDo(t, s, "PING")
	}
}

func TestServerMethodsFromManyGoroutines(t *testing.T) {
	s := Start(t)
	var wg sync.WaitGroup
	for _, f := range []func(){s.Kill, s.Restart, s.Pause, s.Resume} {
		wg.Go(func() {
			for range 5 {
				f()
			}
		})
	}
	wg.Wait()
	s.Restart()
	mustDo(t, s, "PING")
}

func TestTakenPortIsNoticedEvenIfARedisAnswersOnIt(t *testing.T) {
	servers := StartN(t, 2)
	a, b := servers[0], servers[1]
	b.Kill()
	b.addr = a.addr
	require.ErrorIs(t, b.start(), errPortTaken)

	require.NoError(t, b.startAnywhere())
	assert.NotEqual(t, a.Addr(), b.Addr())
	mustDo(t, b, "PING")
}

func TestAServerMayHaveNoINFO(t *testing.T) {
	servers := StartN(t, 2, "--rename-command", "INFO", "")
	a, b := servers[0], servers[1]
	b.Kill()
	b.addr = a.addr
	require.ErrorIs(t, b.start(), errPortTaken)
}

func TestMissingBinaryFailsWithTheWayToInstallIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("REDIS_SERVER", "")
	message := fatal(t, func(t testing.TB) { Start(t) })
	assert.Contains(t, message, "redis-server")
	assert.Contains(t, message, "make deps")
	assert.Contains(t, message, "REDIS_SERVER")

	t.Setenv("REDIS_SERVER", "/nowhere/redis-server")
	assert.Contains(t, fatal(t, func(t testing.TB) { Start(t) }), "/nowhere/redis-server")
}

func TestBinaryIsRedisServerThenValkeyServerThenRedictServer(t *testing.T) {
	real, err := binary()
	require.NoError(t, err)
	dir := t.TempDir()
	t.Setenv("REDIS_SERVER", "")
	t.Setenv("PATH", dir)
	for _, name := range []string{"redict-server", "valkey-server", "redis-server", "my-redis"} {
		require.NoError(t, os.Symlink(real, filepath.Join(dir, name)))
		if name == "my-redis" {
			t.Setenv("REDIS_SERVER", name)
		}
		got, err := binary()
		require.NoError(t, err)
		assert.Equal(t, filepath.Join(dir, name), got)
	}
	mustDo(t, Start(t), "PING")
}

func TestServerThatCannotStartShowsItsOutput(t *testing.T) {
	message := fatal(t, func(t testing.TB) { Start(t, "--no-such-directive", "yes") })
	assert.Contains(t, message, errExited.Error())
	assert.Contains(t, message, "no-such-directive")
}
