//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// idle is a script that says so when it runs, and then does nothing for as long as it is
// let.
const idle = "echo runs; while :; do sleep 0.02; done"

func TestOfTwoAtOnceOneRunsAndTheOtherExitsWith75(t *testing.T) {
	servers := redistest.StartN(t, 3)
	holder := begin(t, list(servers), "run", "k", "--", "sh", "-c", "echo runs $REDLOCK_KEY; cat")
	holder.says("runs k")
	token, _ := servers[0].Get(t, "k")
	require.NotEmpty(t, token)

	host, err := os.Hostname()
	require.NoError(t, err)
	for _, wait := range []string{"0", "1s"} {
		for _, metadata := range []string{"-metadata=mine", "-metadata="} {
			code, stdout, stderr := use(t, list(servers), "run", "-wait", wait, metadata, "k", "--", "echo", "intruder")
			require.Equal(t, 75, code)
			require.Empty(t, stdout)
			require.NotContains(t, stderr, token[:26])
			require.Regexp(t, fmt.Sprintf(`^redlock: acquire "k": held by host=%s pid=%d started=20\S+Z\n$`, regexp.QuoteMeta(host), holder.cmd.Process.Pid), stderr)
		}
	}

	_, err = holder.stdin.Write([]byte("what is on stdin\n"))
	require.NoError(t, err)
	holder.says("what is on stdin")
	require.NoError(t, holder.stdin.Close())
	require.Zero(t, holder.code())
	require.Empty(t, holder.stderr.String(), "the tool itself has nothing to say")
	for _, s := range servers {
		eventually.True(t, "the lock is released", func() bool { return len(s.Keys(t)) == 0 })
	}
}

func TestTheFenceGrowsFromRunToRun(t *testing.T) {
	servers := redistest.StartN(t, 3)
	last := int64(0)
	for range 5 {
		code, stdout, stderr := use(t, list(servers), "run", "-fence", "k", "--", "sh", "-c", "echo $REDLOCK_FENCE")
		require.Zero(t, code, stderr)
		fence, err := strconv.ParseInt(strings.TrimSpace(stdout), 10, 64)
		require.NoError(t, err)
		require.Greater(t, fence, last)
		last = fence
	}
	code, stdout, _ := use(t, list(servers), "run", "-fence", "outer", "--", tool, "run", "inner", "--", "sh", "-c", "echo $REDLOCK_KEY ${REDLOCK_FENCE-none}")
	require.Zero(t, code)
	require.Equal(t, "inner none\n", stdout, "the fence of another lock is none")
	code, stdout, _ = use(t, list(servers), "status", "k")
	require.Zero(t, code)
	require.Regexp(t, servers[0].Addr()+` +free +- +`+strconv.FormatInt(last, 10)+` +-`, stdout)
	code, _, stderr := use(t, list(servers), "run", "-fence", "-ttl", "25h", "k", "--", "true")
	require.Equal(t, 64, code)
	require.Contains(t, stderr, "-ttl 25h0m0s: must be at most 24h0m0s with -fence")
}

func TestMetadataThatIsNotPrintableIsAMistakeOnTheCommandLine(t *testing.T) {
	code, _, stderr := use(t, "r1:6379", "run", "-metadata", "a\nb", "k", "--", "true")
	require.Equal(t, 64, code)
	require.Contains(t, stderr, `-metadata: "a\nb": must be printable characters`)
}

func TestAWaitEndsWithTheLockOrBySignal(t *testing.T) {
	servers := redistest.StartN(t, 3)
	holder := begin(t, list(servers), "run", "k", "--", "sh", "-c", "echo runs; cat")
	holder.says("runs")
	first := begin(t, list(servers), "run", "-wait", "forever", "k", "--", "echo", "at last")
	eventually.True(t, "it queues", func() bool { return len(servers[0].Keys(t)) > 1 })
	second := begin(t, list(servers), "run", "-wait", "1h", "k", "--", "echo", "never")
	eventually.True(t, "it queues", func() bool {
		n, err := servers[0].Do("ZCARD", "{k}:redlock:queue")
		return err == nil && n == int64(2)
	})

	second.signal(syscall.SIGUSR1) // for a command, not for the wait
	second.signal(syscall.SIGTERM)
	require.Equal(t, 128+15, second.code())
	require.Empty(t, second.stdout.String())
	require.NoError(t, holder.stdin.Close())
	require.Zero(t, first.code())
	require.Equal(t, "at last\n", first.stdout.String())
}

func TestTheCommandsExitCodeIsPassedThrough(t *testing.T) {
	nodes := redistest.Start(t).Addr()
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "exit 75": 75, "kill -KILL $$": 128 + 9, "kill -TERM $$": 128 + 15} {
		code, _, stderr := use(t, nodes, "run", "k", "--", "sh", "-c", script)
		require.Equal(t, want, code, script)
		require.Empty(t, stderr)
	}
	code, _, stderr := use(t, nodes, "run", "k", "--", "no-such-command")
	require.Equal(t, 127, code)
	require.Contains(t, stderr, `redlock: run "k": exec: "no-such-command"`)
	code, _, _ = use(t, nodes, "run", "k", "--", "/dev/null")
	require.Equal(t, 126, code)
}

func TestSignalsArePassedOn(t *testing.T) {
	nodes := redistest.Start(t).Addr()
	for name, s := range map[string]syscall.Signal{
		"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP,
		"QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		p := begin(t, nodes, "run", name, "--", "sh", "-c", fmt.Sprintf("trap 'echo got %s; exit 7' %s; %s", name, name, idle))
		p.says("runs")
		p.signal(s)
		require.Equal(t, 7, p.code(), name)
		require.Contains(t, p.stdout.String(), "got "+name)
	}
}

func TestASignalThatIsIgnoredStaysSo(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT} {
		staysIgnored(t, name, s)
	}
}

// staysIgnored starts the tool with the signal ignored, and sends the signal to it and to
// its command.
func staysIgnored(t *testing.T, name string, s syscall.Signal) {
	t.Helper()
	p := begin(t, redistest.Start(t).Addr(), "run", "outer", "--", "sh", "-c",
		"trap '' "+name+"; exec "+tool+" run inner -- sh -c 'trap \"exit 7\" WINCH; echo runs $PPID $$; while :; do sleep 0.02; done'")
	p.says("runs")
	var inner, command int
	_, err := fmt.Sscanf(p.stdout.String(), "runs %d %d", &inner, &command)
	require.NoError(t, err)
	for _, pid := range []int{inner, command} {
		require.NoError(t, syscall.Kill(pid, s))
	}
	require.NoError(t, syscall.Kill(command, syscall.SIGWINCH))
	require.Equal(t, 7, p.code(), "SIG%s has ended the tool or the command", name)
}

func TestACommandWhoseLockIsLostGetsSIGTERMAndThenSIGKILL(t *testing.T) {
	servers := redistest.StartN(t, 3)
	p := begin(t, list(servers), "run", "-ttl", "2s", "-grace", "600ms", "k", "--", "sh", "-c", "trap 'echo asked' TERM; "+idle)
	p.says("runs")
	servers[0].Kill()
	servers[1].Kill()
	p.says("asked")
	require.Equal(t, 70, p.code())
	require.Contains(t, p.stderr.String(), servers[0].Addr()+": ")
	require.Contains(t, p.stderr.String(), "SIGTERM is sent to the command, SIGKILL follows in ")
	require.Contains(t, p.stderr.String(), `hold "k": lock lost: the command ended by signal 9 (killed)`)
}

func TestACommandMayEndItselfWithinTheGrace(t *testing.T) {
	servers := redistest.StartN(t, 3)
	p := begin(t, list(servers), "run", "-ttl", "2s", "-grace", "900ms", "k", "--", "sh", "-c", "trap 'exit 0' TERM; "+idle)
	p.says("runs")
	servers[0].Kill()
	servers[1].Kill()
	require.Equal(t, 70, p.code(), "not 0: it was stopped")
	require.Contains(t, p.stderr.String(), "the command ended by exit code 0")
}

// The holder cannot reach a quorum, while a rival can. The log shows who was there.
func TestNoProcessOfTheCommandsGroupIsLeftWhenARivalGetsTheLock(t *testing.T) {
	servers := redistest.StartN(t, 3)
	far := []*redistest.Proxy{redistest.NewProxy(t, servers[0].Addr()), redistest.NewProxy(t, servers[1].Addr())}
	log := filepath.Join(t.TempDir(), "log")
	deaf := fmt.Sprintf("trap '' TERM; echo runs; while :; do echo holder >> %s; done", log)
	p := begin(t, far[0].Addr()+","+far[1].Addr()+","+servers[2].Addr(),
		"run", "-ttl", "2s", "-grace", "500ms", "k", "--", "sh", "-c", "("+deaf+") & wait")
	p.says("runs")
	rival := begin(t, list(servers), "run", "-wait", "forever", "k", "--", "sh", "-c", fmt.Sprintf("echo rival >> %s; cat", log))
	eventually.True(t, "the rival queues", func() bool { return len(servers[0].Keys(t)) > 1 })
	for _, proxy := range far {
		proxy.BlackHole(true)
	}
	require.Equal(t, 70, p.code())
	eventually.True(t, "the rival runs", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "rival")
	})
	require.NoError(t, rival.stdin.Close())
	require.Zero(t, rival.code())
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(text), "holder\nrival\n"), "the holder goes on after the rival has come")
}

func TestALockThatNodesHaveForgottenIsLostAtOnce(t *testing.T) {
	servers := redistest.StartN(t, 3)
	p := begin(t, list(servers), "run", "-ttl", "10s", "-grace", "100ms", "k", "--", "sh", "-c", idle)
	p.says("runs")
	for _, s := range servers {
		_, err := s.Do("DEL", "k")
		require.NoError(t, err)
	}
	require.Equal(t, 70, p.code())
	require.Contains(t, p.stderr.String(), "key was missing")
}

func TestAMistakeOnTheCommandLineExitsWith64(t *testing.T) {
	for want, args := range map[string][]string{
		"no key":                       {"run"},
		"no command":                   {"run", "k", "--"},
		"options go before the key":    {"run", "k", "-ttl", "1s", "--", "true"},
		"-wait -1s: must be":           {"run", "-wait", "-1s", "k", "--", "true"},
		"-ttl 1ms: must be":            {"run", "-ttl", "1ms", "k", "--", "true"},
		"less than half of the ttl":    {"run", "-ttl", "2s", "-grace", "1s", "k", "--", "true"},
		"not defined: -x":              {"run", "-x", "k", "--", "true"},
		"no command is called":         {"walk"},
		"status: 0 arguments":          {"status"},
		"doctor: 2 arguments":          {"doctor", "a", "b"},
		"are the same node":            {"run", "-nodes", "localhost:1,127.0.0.1:1", "k", "--", "true"},
		"node 2 of -nodes: not a URL":  {"status", "-nodes", "localhost:1,redis://%zz", "k"},
		"node 1 of -nodes: an @ after": {"run", "-nodes", "redis://u:hunter/2@h", "k", "--", "true"},
	} {
		code, stdout, stderr := use(t, "localhost:1", args...)
		require.Equal(t, 64, code, args)
		require.Contains(t, stderr, want)
		require.NotContains(t, stderr, "hunter")
		require.Empty(t, stdout)
	}
}

// What people paste in place of a list of nodes.
func TestWhatIsNoListOfNodesIsRefusedWithoutAWordOfIt(t *testing.T) {
	for _, nodes := range []string{
		"r1:6379,password=hunter2,ssl=True", "r1:6379,password=hunter2/x+9=,ssl=False,abortConnect=False", "r1:6379,hunter2", "r1:6379:hunter2", "hunter2",
		":hunter2@r1:6379", "user:hunter2@r1:6379", "redis://user:hunter,2@r1:6379", "redis://user:1,hunter2@r1:6379", "redis://:hunter2/x+9=@r1:6379", "redis://r1?password=hunter2",
		"host=r1 password=hunter2", `"redis://:hunter2@r1:6379"`, `["redis://:hunter2@r1:6379","redis://:hunter2@r2:6379"]`, `{"nodes":"hunter2"}`,
		"redis:r1", "redis:r1:6379", "tcp://:hunter2@r1:6379", "r1:6379;r2:6379", "r1:6379 r2:6379", "r1:6379\nr2:6379", "r1:6379,,r3:6379", "r1:6379,", ",", "[r1]:6379", ":6379", "r1",
	} {
		for _, args := range [][]string{{"run", "k", "--", "true"}, {"status", "k"}, {"doctor"}} {
			code, stdout, stderr := use(t, nodes, args...)
			require.Equal(t, 64, code, nodes)
			require.Empty(t, stdout)
			require.Regexp(t, `^redlock: node \d of -nodes: .*: must be like host:port or redis://\[user:password@\]host\[:port\]\[/db\]\n$`, stderr)
			require.NotContains(t, stderr, "hunter")
		}
	}
	_, _, stderr := use(t, "r1:6379?cluster=true", "doctor")
	require.Equal(t, "redlock: node 1 of -nodes: a parameter without a scheme: must be like redis://host:port?name=value\n", stderr)
	code, _, stderr := use(t, "", "run", "-nodes", "r1:6379,", "redis://:hunter2@r2:6379", "--", "true")
	require.Equal(t, 64, code)
	require.Contains(t, stderr, "node 2 of -nodes: empty: ")
	require.NotContains(t, stderr, "hunter", "it is not a key either")

	servers := redistest.StartN(t, 2)
	code, _, stderr = use(t, fmt.Sprintf(" %s ,\n redis://%s/1 \n", servers[0].Addr(), servers[1].Addr()), "run", "k", "--", "true")
	require.Zero(t, code, stderr)
}

func TestWithoutNodesItSaysWhatToDo(t *testing.T) {
	for _, args := range [][]string{{"run", "k", "--", "true"}, {"status", "k"}, {"doctor"}} {
		code, _, stderr := use(t, "", args...)
		require.Equal(t, 64, code)
		require.Contains(t, stderr, "-nodes host:port")
		require.Contains(t, stderr, "REDLOCK_NODES")
		require.Contains(t, stderr, "redis-server --port 6379")
	}
}

func TestWithoutAQuorumItExitsWith69(t *testing.T) {
	servers := redistest.StartN(t, 3)
	servers[0].Kill()
	servers[1].Kill()
	code, stdout, stderr := use(t, list(servers), "run", "-wait", "0", "k", "--", "echo", "intruder")
	require.Equal(t, 69, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "connection refused")
}

func TestPasswordsAreNeverShown(t *testing.T) {
	s := redistest.Start(t)
	_, err := s.Do("ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all")
	require.NoError(t, err)
	right, wrong := "redis://app:hunter2@"+s.Addr(), "redis://app:wrong-hunter@"+s.Addr()
	for _, nodes := range []string{right, wrong} {
		for _, args := range [][]string{
			{"-help"}, {"run", "-help"}, {"run", "-wait", "0", "k", "--", "true"},
			{"status", "k"}, {"status", "-json", "k"}, {"doctor"}, {"doctor", "-json"},
		} {
			code, stdout, stderr := use(t, nodes, args...)
			require.NotContains(t, stdout+stderr, "hunter", args)
			if args[0] == "run" && args[1] != "-help" {
				require.Equal(t, nodes == right, code == 0)
			}
		}
	}
}
