//go:build unix

package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// safe are the arguments of a server that doctor has nothing against.
var safe = []string{"--appendonly", "yes", "--appendfsync", "always"}

// consult runs doctor, and returns what it found: the severities by check and address,
// and all of it.
func consult(t *testing.T, nodes string, args ...string) (code int, found map[string]severity, d diagnosis) {
	t.Helper()
	code, stdout, stderr := use(t, nodes, append([]string{"doctor", "-json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(stdout), &d), stdout+stderr)
	found = make(map[string]severity)
	for _, f := range d.Findings {
		found[strings.TrimSpace(f.Check+" "+f.Node)] = f.Severity
		require.NotEmpty(t, f.Do)
	}
	return code, found, d
}

func TestDoctorNamesEvictionAndForgetting(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	code, found, _ := consult(t, s.Addr())
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["eviction "+s.Addr()])
	require.Equal(t, danger, found["persistence "+s.Addr()])
	require.Equal(t, warning, found["nodes"])

	code, stdout, stderr := use(t, s.Addr(), "doctor")
	require.Equal(t, 78, code)
	require.Empty(t, stderr)
	require.Contains(t, stdout, "maxmemory-policy is allkeys-lru: a server that is full drops locks, and the counters of fences,")
	require.Contains(t, stdout, "CONFIG SET maxmemory-policy noeviction")
	require.Contains(t, stdout, "it forgets its locks when it restarts")
	require.Contains(t, stdout, "Dangers: 2, warnings: 1")
}

func TestDoctorHasNothingAgainstSafeServers(t *testing.T) {
	servers := redistest.StartN(t, 3, safe...)
	code, found, d := consult(t, list(servers), "lock:a")
	require.Zero(t, code)
	require.Empty(t, found)
	require.Len(t, d.Servers, 3)
	for i, s := range d.Servers {
		require.Equal(t, servers[i].Addr(), s.Node)
		require.NotEmpty(t, s.Kind)
		require.NotEmpty(t, s.Version)
		require.NotEmpty(t, s.RunID)
		require.Equal(t, "standalone", s.Mode)
		require.Equal(t, "master", s.Role)
		require.Positive(t, s.Latency.Min)
		require.GreaterOrEqual(t, s.Latency.Median, s.Latency.Min)
		require.Positive(t, s.Clock.Uncertainty)
		require.Empty(t, servers[i].Keys(t), "it leaves nothing behind")
	}
}

func TestDoctorGradesPersistence(t *testing.T) {
	for want, args := range map[severity][]string{
		danger:  {"--save", "3600 1"},
		warning: {"--appendonly", "yes", "--appendfsync", "everysec"},
	} {
		s := redistest.Start(t, args...)
		code, found, _ := consult(t, s.Addr())
		require.Equal(t, want, found["persistence "+s.Addr()])
		require.Equal(t, want == danger, code == 78)
	}
}

func TestDoctorKnowsANodeInQuarantine(t *testing.T) {
	s := redistest.Start(t, safe...)
	client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true}))
	require.NoError(t, err)
	defer client.Close()
	locker, err := redlock.New([]rueidis.Client{client}, redlock.WithRestartGuard(time.Minute, 0))
	require.NoError(t, err)
	defer locker.Close()
	_, err = locker.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)

	_, found, d := consult(t, s.Addr())
	require.NotContains(t, found, "guard "+s.Addr(), "its locks are of this run")
	require.True(t, d.Servers[0].Guard.Known)
	require.WithinDuration(t, time.Now(), *d.Servers[0].Guard.Since, time.Minute)
	require.NoError(t, locker.TrustNodes(t.Context()))
	_, _, d = consult(t, s.Addr())
	require.Equal(t, &guard{Known: true}, d.Servers[0].Guard)

	_, err = s.Do("SET", "redlock:guard", "anotherrun-history-0 1700000000000")
	require.NoError(t, err)
	_, found, d = consult(t, s.Addr())
	require.Equal(t, warning, found["guard "+s.Addr()])
	require.False(t, d.Servers[0].Guard.Known)
}

func TestDoctorFindsWhatIsNoNode(t *testing.T) {
	master := redistest.Start(t, safe...)
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	replica := redistest.Start(t, append([]string{"--replicaof", host, port}, safe...)...)
	member := redistest.Start(t, append([]string{"--cluster-enabled", "yes"}, safe...)...)
	twice := redistest.NewProxy(t, master.Addr())
	dead := redistest.Start(t, safe...)
	dead.Kill()
	code, found, d := consult(t, strings.Join([]string{master.Addr(), replica.Addr(), member.Addr(), twice.Addr(), dead.Addr(), "unix:///nowhere"}, ","))
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["role "+replica.Addr()])
	require.Equal(t, danger, found["mode "+member.Addr()])
	require.Equal(t, danger, found["same-server "+twice.Addr()])
	require.Contains(t, text(d, "same-server"), "it is a server of two nodes, "+master.Addr()+" and "+twice.Addr())
	require.Equal(t, warning, found["reachable "+dead.Addr()])
	require.Equal(t, warning, found["reachable /nowhere"])
	require.Equal(t, warning, found["nodes"], "their number is even")
	require.Equal(t, danger, found["quorum"], "two of six can vote")

	code, found, _ = consult(t, strings.Join([]string{master.Addr(), dead.Addr()}, ","))
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["quorum"])
}

// What servers of several makes say of themselves.
func TestDoctorKnowsWhatIsNoNodeWhateverTheServerCallsItsMode(t *testing.T) {
	for info, want := range map[string]severity{
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:cluster\r\nrole:master\r\n":    danger,
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:sentinel\r\n":                  danger,
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:standalone\r\nrole:master\r\n": "",
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nredis_mode:cluster\r\nrole:master\r\n":     danger,
		"redis_version:7.0.15\r\nredis_mode:sentinel\r\n":                                                                danger,
		"redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\n":                                               "",
		"redis_version:7.0.15\r\nrole:master\r\n":                                                                        note,
	} {
		s := &server{Address: "r1:6379"}
		s.readInfo(fieldsOf("# Server\r\n" + info + "run_id:0123456789abcdef\r\n"))
		var got severity
		for _, f := range s.findings(restartGuard{}) {
			if f.Check == "mode" || f.Check == "unknown" {
				got = f.Severity
			}
		}
		require.Equal(t, want, got, info)
	}
}

func TestDoctorLooksIntoGroups(t *testing.T) {
	sentinel := redistest.StartSentinel(t, safe...)
	code, found, d := consult(t, sentinel.URL())
	require.Zero(t, code)
	require.Equal(t, warning, found["failover "+sentinel.Master().Addr()])
	require.Len(t, d.Servers, 1)
	require.Equal(t, "master", d.Servers[0].Role)

	watcher := sentinel.Sentinels()[0].Addr()
	code, found, _ = consult(t, watcher)
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["mode "+watcher])

	cluster := redistest.StartCluster(t, safe...)
	code, found, d = consult(t, cluster.URL())
	require.Zero(t, code)
	require.Len(t, d.Servers, 3)
	for _, addr := range cluster.Addrs() {
		require.Equal(t, warning, found["failover "+addr])
	}
}

// security are the lines of SECURITY.md for a server and for its queues.
var security = [][]string{
	{"ACL", "SETUSER", "redlock", "reset", "on", ">secret", "~lock:*", "~{lock:*", "+set", "+get", "+exists", "+del", "+pttl", "+pexpire", "+evalsha", "+eval"},
	{"ACL", "SETUSER", "redlock", "&redlock:*", "+time", "+zadd", "+zrange", "+zrem", "+zrank", "+hset", "+hget", "+hdel", "+publish", "+subscribe"},
}

func TestDoctorFindsWhatTheUserMayNot(t *testing.T) {
	s := redistest.Start(t, safe...)
	nodes := "redis://redlock:secret@" + s.Addr()
	set := func(command ...string) {
		_, err := s.Do(command...)
		require.NoError(t, err)
	}
	for _, more := range [][]string{{}, {"+acl|whoami", "+acl|dryrun"}} { // by trying, and by asking
		if len(more) > 0 && !redistest.AtLeast(t, 7, 0) {
			continue // it cannot be asked
		}
		for _, line := range security {
			set(line...)
		}
		set(append([]string{"ACL", "SETUSER", "redlock"}, more...)...)

		_, found, d := consult(t, nodes, "lock:a")
		for _, denied := range d.Servers[0].Denied {
			require.Equal(t, "guard", denied.For)
		}
		require.Equal(t, note, found["guard-permissions "+s.Addr()])
		require.Contains(t, text(d, "guard-permissions"), "the user may not run INFO, GET on redlock:guard, SET on redlock:guard ")
		require.NotEmpty(t, d.Servers[0].Unknown, "the user may not run INFO")
		require.Empty(t, s.Keys(t), "it leaves nothing behind")

		set("ACL", "SETUSER", "redlock", "resetkeys", "~lock:*")
		_, found, d = consult(t, nodes, "lock:a")
		require.Equal(t, note, found["fence-permissions "+s.Addr()])
		require.Contains(t, text(d, "fence-permissions"), "the user may not run GET on {lock:a")
		require.Equal(t, warning, found["queue-permissions "+s.Addr()])
		require.Contains(t, text(d, "queue-permissions"), "ZADD on {lock:a")
		set("ACL", "SETUSER", "redlock", "~{lock:*")

		_, found, d = consult(t, nodes)
		require.Equal(t, note, found["keys "+s.Addr()], "it does not know the keys: %v", d.Findings)

		code, found, _ := consult(t, nodes, "another:a")
		require.Equal(t, danger, found["permissions "+s.Addr()])
		require.Equal(t, 78, code)

		set("ACL", "SETUSER", "redlock", "-subscribe", "-hset")
		_, found, d = consult(t, nodes, "lock:a")
		require.Equal(t, warning, found["queue-permissions "+s.Addr()])
		require.Contains(t, text(d, "queue-permissions"), "the user may not run HSET, SUBSCRIBE ")

		set("ACL", "SETUSER", "redlock", "-evalsha")
		code, found, d = consult(t, nodes, "lock:a")
		require.Equal(t, 78, code)
		require.Equal(t, danger, found["permissions "+s.Addr()])
		require.Contains(t, text(d, "permissions"), "the user may not run EVALSHA ")

		for _, line := range append(security, furtherSecurity...) {
			set(line...)
		}
		_, _, d = consult(t, nodes, "lock:a")
		require.Empty(t, d.Servers[0].Denied, "%v", d.Findings)
		_, err := s.Do("SET", "redlock:guard", "anotherrun 1700000000000")
		require.NoError(t, err)
		consult(t, nodes, "lock:a")
		value, _ := s.Get(t, "redlock:guard")
		require.Equal(t, "anotherrun 1700000000000", value, "it changes no marker")
		set("FLUSHALL")
	}
}

// furtherSecurity is the line of SECURITY.md for the restart guard.
var furtherSecurity = [][]string{
	{"ACL", "SETUSER", "redlock", "~redlock:guard", "+info", "+time"},
}

// text is the finding of a check.
func text(d diagnosis, check string) string {
	for _, f := range d.Findings {
		if f.Check == check {
			return f.Text
		}
	}
	return ""
}

func TestDoctorFindsCommandsThatTheServerDoesNotKnow(t *testing.T) {
	for command, check := range map[string]string{
		"EVAL": "permissions", "EVALSHA": "permissions", "SET": "permissions", "PEXPIRE": "permissions",
		"PUBLISH": "queue-permissions", "SUBSCRIBE": "queue-permissions", "ZADD": "queue-permissions",
		"TIME": "guard-permissions",
	} {
		s := redistest.Start(t, append([]string{"--rename-command", command, ""}, safe...)...)
		_, err := s.Do("ACL", "SETUSER", "plain", "on", ">secret", "allkeys", "allchannels", "+@all", "-acl")
		require.NoError(t, err)
		for _, node := range []string{s.Addr(), "redis://plain:secret@" + s.Addr()} { // by asking, and by trying
			code, found, d := consult(t, node, "lock:a")
			require.Equal(t, map[string]severity{"permissions": danger, "queue-permissions": warning, "guard-permissions": note}[check], found[check+" "+s.Addr()], command)
			require.Contains(t, text(d, check), "the server does not know "+command+" (")
			require.Equal(t, check == "permissions", code == 78, command)
			require.Empty(t, s.Keys(t), "%s: it leaves nothing behind", command)
		}
	}
}
