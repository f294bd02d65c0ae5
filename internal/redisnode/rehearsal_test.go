package redisnode_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// dialURL returns a Backend that has dialled the deployment.
func dialURL(t *testing.T, url string) *redisnode.Redis {
	t.Helper()
	option, reason := redisnode.ParseURL(url)
	require.Empty(t, reason)
	option.DisableCache, option.AlwaysPipelining, option.PipelineMultiplex = true, true, -1
	option.Dialer = net.Dialer{Timeout: eventually.Soon}
	if option.AlwaysRESP2 {
		option.DialCtxFn, option.ClientSetInfo = redisnode.Attentive(nil, true), rueidis.DisableClientSetInfo
	}
	s := redisnode.Dial(option, nil)
	t.Cleanup(s.Close)
	<-s.Tried()
	return s
}

// rehearse returns what each server does for the features.
func rehearse(t *testing.T, s *redisnode.Redis, prefix string) []redisnode.Rehearsal {
	t.Helper()
	all := s.Rehearse(t.Context(), prefix)
	for _, r := range all {
		require.Len(t, r.Results, len(redisnode.Features))
		for _, f := range redisnode.Features {
			if err := r.Results[f].Err; err != nil {
				require.NotRegexp(t, "doctor|[A-Z2-7]{26}|secret", err.Error(), "no scratch key, no token, no password")
			}
		}
	}
	return all
}

// missing returns why features of the only server do not work.
func missing(t *testing.T, s *redisnode.Redis, prefix string) map[redisnode.Feature]string {
	t.Helper()
	all := rehearse(t, s, prefix)
	require.Len(t, all, 1)
	missing := make(map[redisnode.Feature]string)
	for f, r := range all[0].Results {
		if r.Err != nil {
			missing[f] = r.Err.Error()
		}
	}
	return missing
}

// user gives the server a user, and returns a URL with it.
func user(t *testing.T, server *redistest.Server, rules ...string) string {
	t.Helper()
	_, err := server.Do(append([]string{"ACL", "SETUSER", "redlock", "reset", "on", ">secret"}, rules...)...)
	require.NoError(t, err)
	return "redis://redlock:secret@" + server.Addr()
}

func TestAPlainServerDoesAllOfARehearsalAndKeepsNothingOfIt(t *testing.T) {
	server := redistest.Start(t)
	require.Empty(t, missing(t, dialURL(t, server.URL()), "lock:a"))
	require.Empty(t, server.Keys(t))

	_, err := server.Do("SET", "redlock:guard", "another-run-0 1")
	require.NoError(t, err)
	_, err = server.Do("SET", "lock:a", "its holder")
	require.NoError(t, err)
	for _, prefix := range []string{"lock:a", "lock:", "", "a}b", "a{b", "{tag}", "{}"} {
		require.Empty(t, missing(t, dialURL(t, server.URL()), prefix), prefix)
	}
	require.Equal(t, []string{"lock:a", "redlock:guard"}, server.Keys(t))
	marker, _ := server.Get(t, "redlock:guard")
	require.Equal(t, "another-run-0 1", marker)
}

func TestTheMasterOfASentinelGroupDoesAllOfARehearsal(t *testing.T) {
	group := redistest.StartSentinel(t)
	s := dialURL(t, group.URL())
	require.Empty(t, missing(t, s, "lock:a"))
	require.Equal(t, group.Master().Addr(), rehearse(t, s, "lock:a")[0].Address)
	require.Empty(t, group.Master().Keys(t))
}

func TestEachMasterOfAClusterIsRehearsedWithKeysOfItsSlots(t *testing.T) {
	cluster := redistest.StartCluster(t)
	s := dialURL(t, cluster.URL())
	for _, prefix := range []string{"lock:a", "a}b"} {
		all := rehearse(t, s, prefix)
		require.Len(t, all, 3)
		for i, addr := range slices.Sorted(slices.Values(cluster.Addrs())) {
			r := all[i]
			require.Equal(t, addr, r.Address)
			require.Equal(t, redisnode.Result{}, r.Results[redisnode.Mutex])
			require.Equal(t, redisnode.Result{Tagged: true}, r.Results[redisnode.SeveralKeys])
			require.ErrorContains(t, r.Results[redisnode.Guard].Err, "refused on a Cluster")
			switch queue := r.Results[redisnode.Queue]; {
			case prefix == "a}b":
				require.ErrorContains(t, queue.Err, "in different slots of a Cluster", "its queue")
			case redistest.AtLeast(t, 7, 0):
				require.Equal(t, redisnode.Result{}, queue)
			default:
				require.ErrorContains(t, queue.Err, "SSUBSCRIBE: ")
			}
			if prefix == "a}b" {
				require.ErrorContains(t, r.Results[redisnode.Fence].Err, "in different slots of a Cluster", "its counter")
			} else {
				require.Equal(t, redisnode.Result{}, r.Results[redisnode.Fence])
			}
		}
	}
	tagged := rehearse(t, s, "lock:{order}")
	require.Len(t, tagged, 1, "the others have no slot of such a key")
	require.Equal(t, cluster.Owner("lock:{order}").Addr(), tagged[0].Address)
	require.Equal(t, redisnode.Result{}, tagged[0].Results[redisnode.SeveralKeys], "the tag is the user's own")
	for _, server := range cluster.Servers() {
		require.Empty(t, server.Keys(t))
	}
}

// As a Cluster of version 6 does.
func TestAClusterWithoutSSUBSCRIBELacksQueues(t *testing.T) {
	cluster := redistest.StartCluster(t, "--rename-command", "SSUBSCRIBE", "")
	all := rehearse(t, dialURL(t, cluster.URL()), "lock:a")
	require.Len(t, all, 3)
	for _, r := range all {
		require.ErrorContains(t, r.Results[redisnode.Queue].Err, "SSUBSCRIBE: unknown command 'SSUBSCRIBE'")
		require.NoError(t, r.Results[redisnode.Mutex].Err)
		require.NoError(t, r.Results[redisnode.Fence].Err)
	}
}

func TestARehearsalNamesWhatTheQueuesOfAClusterLack(t *testing.T) {
	cluster := redistest.StartCluster(t)
	if !redistest.AtLeast(t, 7, 0) { // it has none, whatever is allowed
		for _, r := range rehearse(t, dialURL(t, cluster.URL()), "lock:a") {
			require.ErrorContains(t, r.Results[redisnode.Queue].Err, "SSUBSCRIBE: ")
		}
		return
	}
	for _, c := range []struct{ denied, want string }{
		{"+@all", ""},
		{"-spublish", "SPUBLISH in a script reached no subscriber"},
		{"-ssubscribe", "queues on a Cluster need SSUBSCRIBE, SUNSUBSCRIBE and SPUBLISH"},
		{"resetchannels &redlock:*", "SSUBSCRIBE: NOPERM"},
	} {
		var url string
		for _, server := range cluster.Servers() {
			url = user(t, server, append([]string{"~lock:*", "~{lock:*", "&lock:*", "&{lock:*", "+@all"}, strings.Fields(c.denied)...)...)
		}
		all := rehearse(t, dialURL(t, url+"?cluster=true"), "lock:a")
		require.Len(t, all, 3)
		for _, r := range all {
			if queue := r.Results[redisnode.Queue]; c.want == "" {
				require.Equal(t, redisnode.Result{}, queue)
			} else {
				require.ErrorContains(t, queue.Err, c.want)
			}
		}
	}
}

func TestWithoutScriptsNothingWorks(t *testing.T) {
	server := redistest.Start(t)
	s := dialURL(t, user(t, server, "~*", "&*", "+@all", "-@scripting"))
	found := missing(t, s, "lock:a")
	require.Len(t, found, len(redisnode.Features))
	for _, f := range redisnode.Features {
		require.Regexp(t, `^EVALSHA with "lock:a": NOPERM .*\(every lock needs EVALSHA and EVAL: nothing works without them\)$`, found[f])
	}
	require.Empty(t, server.Keys(t))
}

func TestAReplicaSaysThatItIsOne(t *testing.T) {
	master := redistest.Start(t)
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	replica := redistest.Start(t, "--replicaof", host, port)
	eventually.True(t, "it follows its master", func() bool {
		info, err := replica.Do("INFO", "replication")
		return err == nil && strings.Contains(info.(string), "master_link_status:up")
	})
	found := missing(t, dialURL(t, replica.URL()), "lock:a")
	require.Len(t, found, len(redisnode.Features))
	for _, f := range redisnode.Features {
		require.Contains(t, found[f], "READONLY ", f)
		require.Contains(t, found[f], "the server is a replica", f)
	}
}

func TestARehearsalNamesWhatEachFeatureLacks(t *testing.T) {
	server := redistest.Start(t)
	for _, c := range []struct {
		denied string
		want   map[redisnode.Feature]string
	}{
		{"-time", map[redisnode.Feature]string{redisnode.Queue: "TIME", redisnode.Guard: "WithRestartGuard needs TIME in scripts"}},
		{"-info", map[redisnode.Feature]string{redisnode.Guard: "WithRestartGuard needs INFO in scripts"}},
		{"-subscribe", map[redisnode.Feature]string{redisnode.Queue: "'subscribe'"}},
		{"-publish", map[redisnode.Feature]string{redisnode.Queue: "PUBLISH in a script reached no subscriber"}},
		{"-zadd", map[redisnode.Feature]string{redisnode.Queue: "the script of "}},
		{"resetchannels", map[redisnode.Feature]string{redisnode.Queue: "channels"}},
		{"-config", map[redisnode.Feature]string{}},
		{"-@admin", map[redisnode.Feature]string{}},
		{"-acl", map[redisnode.Feature]string{}},
		{"+@all -@dangerous", map[redisnode.Feature]string{redisnode.Guard: "INFO"}},
	} {
		rules := append([]string{"~lock:*", "~{lock:*", "&*", "+@all"}, strings.Fields(c.denied)...)
		if c.denied == "resetchannels" && !redistest.AtLeast(t, 6, 2) {
			continue // which has no rules for channels
		}
		found := missing(t, dialURL(t, user(t, server, rules...)), "lock:a")
		require.Len(t, found, len(c.want), "%s: %v", c.denied, found)
		for _, f := range redisnode.Features {
			require.Contains(t, found[f], c.want[f], c.denied)
		}
		require.Empty(t, server.Keys(t), c.denied)
	}
}

// The names of a rehearsal are legal for a user who may access what the library needs.
func TestARehearsalNeedsNoKeysBesidesThePrefixAndItsCompanions(t *testing.T) {
	server := redistest.Start(t)
	require.Empty(t, missing(t, dialURL(t, user(t, server, "~app:*", "~{app:*", "&redlock:*", "+@all")), "app:"))
	found := missing(t, dialURL(t, user(t, server, "~app:*", "&redlock:*", "+@all")), "app:")
	require.Regexp(t, `with "app:", "\{app:\}:redlock:.*": NOPERM `, found[redisnode.Fence])
	require.Empty(t, server.Keys(t))
}

// A proxy runs a script where its first key is, and has the others elsewhere.
func TestKeysThatAProxySpreadsAreUnsafe(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	e.rewrites(func(args []string) []string {
		if strings.HasPrefix(args[0], "EVAL") && args[2] == "16" {
			for i := 4; i < 19; i++ {
				args[i] = "elsewhere:" + args[i]
			}
		}
		return args
	})
	all := rehearse(t, e.dial(t), "lock:a")
	require.ErrorIs(t, all[0].Results[redisnode.SeveralKeys].Err, redisnode.ErrUnsafe)
	require.NoError(t, all[0].Results[redisnode.Mutex].Err)
}

// A server that acknowledges every write is no place for locks.
func TestAServerThatGrantsAHeldKeyIsUnsafe(t *testing.T) {
	e := startEndpoint(t, redistest.Start(t))
	e.rewrites(func(args []string) []string {
		if strings.HasPrefix(args[0], "EVAL") {
			return []string{"INCR", "not a lock"}
		}
		return args
	})
	all := rehearse(t, e.dial(t), "lock:a")
	for _, f := range redisnode.Features {
		require.Error(t, all[0].Results[f].Err, f)
	}
}

func TestAServerThatFallsSilentEndsTheRehearsal(t *testing.T) {
	server := redistest.Start(t)
	s := dialURL(t, server.URL())
	server.Pause()
	all := rehearse(t, s, "lock:a")
	require.Len(t, all, 1)
	for _, f := range redisnode.Features {
		require.ErrorContains(t, all[0].Results[f].Err, "no answer in time")
	}
	s.Close() // ends although the server is still silent
}

// Whenever it ends, the commands under way are followed by the deletion of what they set.
func TestARehearsalThatIsCutShortLeavesNoKey(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	s := e.dial(t)
	for after := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		commands := 0
		e.rewrites(func(args []string) []string {
			if commands++; commands > after {
				cancel()
			}
			return args
		})
		s.Rehearse(ctx, "lock:a")
		cancel()
		require.Empty(t, server.Keys(t), "after %d commands", after)
	}
}

// If the process is killed, or the connection is lost, no key is deleted.
func TestTheKeysOfARehearsalExpire(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	e.rewrites(func(args []string) []string {
		if args[0] == "DEL" || args[0] == "EVAL" && strings.HasPrefix(args[1], "for i = 1, #KEYS do redis.call('DEL'") {
			return []string{"GET", "any"}
		}
		return args
	})
	rehearse(t, e.dial(t), "lock:a")
	left := server.Keys(t)
	require.NotEmpty(t, left, "the marker, at least")
	for _, key := range left {
		ttl, err := server.Do("PTTL", key)
		require.NoError(t, err)
		require.Positive(t, ttl, key)
		require.LessOrEqual(t, ttl, int64(10_000), key)
	}
}

func TestWithoutAConnectionThereIsNoRehearsal(t *testing.T) {
	s := redisnode.Dial(unreachable(), nil)
	t.Cleanup(s.Close)
	<-s.Tried()
	require.Nil(t, s.Rehearse(t.Context(), "lock:a"))
}
