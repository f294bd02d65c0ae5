//go:build unix

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// tables runs doctor, and returns the rows of the table of features behind its header, and all of
// its output.
func tables(t *testing.T, nodes string, args ...string) (rows []string, out string) {
	t.Helper()
	_, out, _ = use(t, nodes, append([]string{"doctor"}, args...)...)
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "MUTEX"):
			rows = []string{}
		case rows != nil && line == "":
			return rows, out
		case rows != nil:
			rows = append(rows, strings.Join(strings.Fields(line), " "))
		}
	}
	require.FailNow(t, "no table", out)
	return nil, ""
}

func TestDoctorPrintsWhatWorksOnEachServer(t *testing.T) {
	servers := redistest.StartN(t, 3, safe...)
	dead := servers[2]
	dead.Kill()
	rows, out := tables(t, list(servers), "lock:a")
	require.Contains(t, out, "MUTEX   SEVERAL KEYS   QUEUE   FENCE   GUARD   PING")
	require.Equal(t, []string{servers[0].Addr() + " yes yes yes yes yes yes", servers[1].Addr() + " yes yes yes yes yes yes", dead.Addr() + " ? ? ? ? ? ?"}, rows)
}

func TestDoctorSaysWhatWorksOnTheMastersOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, safe...)
	code, found, d := consult(t, cluster.URL(), "lock:a")
	require.Zero(t, code)
	require.Len(t, d.Servers, 3)
	for _, s := range d.Servers {
		require.Equal(t, note, found["guard-missing "+s.Address])
		require.Equal(t, feature{Feature: redisnode.Mutex, Works: true}, s.Features[0])
		require.Equal(t, feature{Feature: redisnode.SeveralKeys, Works: true, With: "a common hash tag"}, s.Features[1])
		if redistest.AtLeast(t, 7, 0) {
			require.Equal(t, feature{Feature: redisnode.Queue, Works: true}, s.Features[2])
		}
		require.Equal(t, redisnode.Guard, s.Features[4].Feature)
		require.False(t, s.Features[4].Works)
		require.Contains(t, s.Features[4].Missing, "refused on a Cluster: ")
		require.Equal(t, "locks without WithRestartGuard work", s.Features[4].Without)
	}
	for _, s := range cluster.Servers() {
		require.Empty(t, s.Keys(t))
	}
}

func TestDoctorSaysThatNothingWorksWithoutScripts(t *testing.T) {
	servers := redistest.StartN(t, 3, safe...)
	var nodes []string
	for _, s := range servers[:2] {
		_, err := s.Do("ACL", "SETUSER", "plain", "on", ">secret", "allkeys", "allchannels", "+@all", "-@scripting")
		require.NoError(t, err)
		nodes = append(nodes, "redis://plain:secret@"+s.Addr())
	}
	nodes = append(nodes, servers[2].Addr())
	rows, out := tables(t, strings.Join(nodes, ","), "lock:a")
	require.Equal(t, servers[0].Addr()+" no no no no no no", rows[0])
	require.Equal(t, servers[2].Addr()+" yes yes yes yes yes yes", rows[2])
	require.NotContains(t, out, "secret")

	code, found, _ := consult(t, strings.Join(nodes, ","), "lock:a")
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["quorum"], "one of three can vote")
}

func TestDoctorSaysWhichFeaturesARenamedCommandCosts(t *testing.T) {
	for _, c := range []struct{ missing, want string }{
		{"EVAL", "no no no no no no"},
		{"PEXPIRE", "no no no no no no"},
		{"TIME", "yes yes no yes no yes"},
		{"SUBSCRIBE", "yes yes no yes yes yes"},
	} {
		s := redistest.Start(t, append([]string{"--rename-command", c.missing, ""}, safe...)...)
		rows, out := tables(t, s.Addr(), "lock:a")
		require.Equal(t, []string{s.Addr() + " " + c.want}, rows, "%s: %s", c.missing, out)
		require.Empty(t, s.Keys(t), "%s: it leaves nothing behind", c.missing)
	}
}

// The guard's marker is the one key that the rehearsal does not touch.
func TestDoctorSaysThatTheUserMayNotAccessTheMarker(t *testing.T) {
	s := redistest.Start(t, safe...)
	_, err := s.Do("ACL", "SETUSER", "app", "on", ">secret", "~app:*", "~{app:*", "allchannels", "+@all")
	require.NoError(t, err)
	node := "redis://app:secret@" + s.Addr()
	_, found, d := consult(t, node, "app:")
	require.Equal(t, note, found["guard-permissions "+s.Addr()])
	require.NotContains(t, found, "guard-missing "+s.Addr(), "the same once more")
	got := d.Servers[0].Features[4]
	require.False(t, got.Works)
	require.Contains(t, got.Missing, "GET on redlock:guard: ")

	rows, _ := tables(t, node)
	require.Equal(t, []string{s.Addr() + " ? ? ? ? ? ?"}, rows, "without a key it knows none that the user may access")
}

func TestDoctorCountsANodeWithoutTheGuardThatItWasGivenAsNoVoter(t *testing.T) {
	s := redistest.Start(t, append([]string{"--rename-command", "TIME", ""}, safe...)...)
	code, found, _ := consult(t, s.Addr(), "-guard-max-ttl", "1m", "lock:a")
	require.Equal(t, 78, code)
	require.Equal(t, danger, found["quorum"])
	_, found, _ = consult(t, s.Addr(), "lock:a")
	require.NotContains(t, found, "quorum")
}
