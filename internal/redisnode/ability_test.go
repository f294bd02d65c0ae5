package redisnode_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// take acquires a key. On a connection that breaks it may take several attempts.
func take(t *testing.T, s node.Backend, key, token string) node.Command {
	t.Helper()
	batch := []node.Command{{Kind: node.Acquire, Claim: node.NewClaim([]string{key}, token, 1), TTL: time.Minute}}
	_ = s.Do(t.Context(), batch)
	return batch[0]
}

func TestASetTellsTheOwnerOnceThatIsProven(t *testing.T) {
	e := startEndpoint(t, redistest.Start(t))
	s := e.dial(t)
	for range 2 { // on the first connection, and on the next one
		require.Equal(t, node.Done, take(t, s, "a", "one").Outcome)
		require.Regexp(t, `^EVAL`, e.asked()[0], "no script has succeeded")
		require.Equal(t, node.Done, take(t, s, "b", "two").Outcome)
		require.Equal(t, []string{"SET b two NX PX 60000 GET", "SET b two NX PX 1 GET"}, e.asked(), "nil was not proven to be a vote")
		require.Equal(t, node.Done, take(t, s, "c", "three").Outcome)
		refused := take(t, s, "a", "four")
		require.Equal(t, node.Refused, refused.Outcome)
		require.Equal(t, "one", refused.Owner)
		require.Equal(t, []string{"SET c three NX PX 60000 GET", "SET a four NX PX 60000 GET"}, e.asked())
		for key, token := range map[string]string{"a": "one", "b": "two", "c": "three"} {
			require.Equal(t, node.Done, do(t, s, node.Release, 0, node.NewClaim([]string{key}, token, 1))[0].Outcome)
		}
		e.cut()
		eventually.True(t, "there is another connection", func() bool {
			return s.Do(t.Context(), []node.Command{{Kind: node.Look, Claim: claim(1)}}) == nil
		})
		e.asked()
	}
}

// A proxy or an old server that ignores GET answers nil for a key that is held.
func TestNilIsNoVoteWhereGETIsNotHonoured(t *testing.T) {
	for name, rewrite := range map[string]func(args []string) []string{
		"ignored": func(args []string) []string {
			return slices.DeleteFunc(args, func(arg string) bool { return arg == "GET" })
		},
		"a syntax error": func(args []string) []string {
			if args[len(args)-1] == "GET" {
				args[len(args)-1] = "WHAT"
			}
			return args
		},
	} {
		for _, c := range []struct {
			from int // how many acquisitions have proven the server's ability
			cut  bool
		}{{0, true}, {1, true}, {2, true}, {1, false}} {
			t.Run(fmt.Sprintf("%s/%+v", name, c), func(t *testing.T) {
				server := redistest.Start(t)
				e := startEndpoint(t, server)
				s := e.dial(t)
				require.Equal(t, node.Refused, do(t, s, node.Release, 0, claim(0))[0].Outcome, "connected")
				for i := range c.from {
					require.Equal(t, node.Done, take(t, s, fmt.Sprint("before", i), "ours").Outcome)
				}
				_, err := server.Do("SET", "held", "another")
				require.NoError(t, err)
				e.rewrites(rewrite)
				if c.cut {
					e.cut()
				}
				granted := 0
				for i := range 10 {
					require.NotEqual(t, node.Done, take(t, s, "held", fmt.Sprint("rival", i)).Outcome)
					if take(t, s, fmt.Sprint("free", i), "ours").Outcome == node.Done {
						granted++
					}
				}
				require.GreaterOrEqual(t, granted, 7, "locks are had all the same")
				owner, _ := server.Get(t, "held")
				require.Equal(t, "another", owner)
				e.asked()
				take(t, s, "held", "rival")
				require.Equal(t, []string{"SET held rival NX PX 60000"}, e.asked())
			})
		}
	}
}

// The connection breaks between two commands, so that the next goes over a new one, where GET may mean nothing.
func TestACommandThatGoesOverANewConnectionIsNoVoteByNilAlone(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	s := e.dial(t)
	for i := range 3 {
		require.Equal(t, node.Done, take(t, s, fmt.Sprint("before", i), "ours").Outcome)
	}
	_, err := server.Do("SET", "held", "another")
	require.NoError(t, err)
	e.rewrites(func(args []string) []string {
		return slices.DeleteFunc(args, func(arg string) bool { return arg == "GET" })
	})
	for i := range 20 {
		e.cut()
		require.NotEqual(t, node.Done, take(t, s, "held", fmt.Sprint("rival", i)).Outcome)
	}
}

func TestAServerWithoutScriptsRefusesTheFirstAcquire(t *testing.T) {
	for _, missing := range [][]string{{"EVAL", "EVALSHA"}, {"EVALSHA"}, {"EVAL"}} {
		var args []string
		for _, command := range missing {
			args = append(args, "--rename-command", command, "")
		}
		server := redistest.Start(t, args...)
		e := startEndpoint(t, server)
		for name, s := range map[string]*redisnode.Redis{"its own": e.dial(t), "the caller's": e.wrap(t)} {
			for range 3 {
				c := take(t, s, "order:7", "secret")
				require.Equal(t, node.Unknown, c.Outcome, "%s: %v", name, missing)
				require.ErrorIs(t, c.Err, node.ErrNotRun, "nothing is to be released")
				require.ErrorContains(t, c.Err, `with "order:7": unknown command '`+missing[len(missing)-1]+"'")
				require.NotContains(t, c.Err.Error(), "secret")
				ping := do(t, s, node.Ping, 0, claim(0))[0]
				require.ErrorContains(t, ping.Err, "unknown command '"+missing[len(missing)-1]+"'")
			}
		}
		require.Empty(t, server.Keys(t), "%v", missing)
	}
}

func TestScriptsAreProvenAgainOnANewConnection(t *testing.T) {
	e := startEndpoint(t, redistest.Start(t))
	s := e.dial(t)
	for i := range 3 {
		require.Equal(t, node.Done, take(t, s, fmt.Sprint("k", i), "ours").Outcome)
	}
	without := redistest.Start(t, "--rename-command", "EVALSHA", "")
	e.point(without)
	e.cut()
	eventually.True(t, "the new server answers", func() bool {
		c := take(t, s, "k", "ours")
		require.NotEqual(t, node.Done, c.Outcome)
		return strings.Contains(c.Err.Error(), "unknown command 'EVALSHA'")
	})
	require.Empty(t, without.Keys(t))
}

// A user that may set a key but not delete it would leave it behind.
func TestAUserThatMayNoLongerRunScriptsTakesNoKey(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	for name, s := range map[string]*redisnode.Redis{"its own": e.dial(t), "the caller's": e.wrap(t)} {
		held := node.NewClaim([]string{"held"}, "ours", 1)
		require.Equal(t, node.Done, do(t, s, node.Acquire, time.Minute, held)[0].Outcome, name)
		require.Equal(t, node.Done, take(t, s, "a", "ours").Outcome)
		require.Equal(t, node.Done, take(t, s, "b", "ours").Outcome)
		_, err := server.Do("ACL", "SETUSER", "default", "-evalsha")
		require.NoError(t, err)
		require.ErrorContains(t, do(t, s, node.Release, 0, held)[0].Err, `EVALSHA with "held": NOPERM `)
		c := take(t, s, "c", "ours")
		require.ErrorContains(t, c.Err, `EVALSHA with "c": NOPERM `)
		require.ErrorIs(t, c.Err, node.ErrNotRun)
		_, err = server.Do("ACL", "SETUSER", "default", "+evalsha")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"held", "a", "b"}, server.Keys(t))
		_, err = server.Do("FLUSHALL")
		require.NoError(t, err)
	}
}

// A server's error about a command in a script, or about its keys, names neither.
func TestADenialNamesTheCommandAndTheKey(t *testing.T) {
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	s := e.wrap(t)
	ask := func(kind node.Kind, options node.ClaimOptions, rule string) error {
		t.Helper()
		_, err := server.Do("ACL", "SETUSER", "default", "reset", "on", "nopass", "+@all", "~lock:*", rule)
		require.NoError(t, err)
		c := node.NewClaim([]string{"lock:a"}, "secret", 1)
		c.Ask(options)
		batch := do(t, s, kind, time.Minute, c)
		require.Equal(t, node.Unknown, batch[0].Outcome)
		require.NotContains(t, batch[0].Err.Error(), "secret")
		return batch[0].Err
	}
	require.ErrorContains(t, ask(node.Acquire, node.ClaimOptions{}, "-evalsha"), `EVALSHA with "lock:a": NOPERM `)
	require.ErrorContains(t, ask(node.Acquire, node.ClaimOptions{}, "-exists"), `the script of EXISTS, GET, INFO, SET, TIME with "lock:a": `)
	require.ErrorContains(t, ask(node.Acquire, node.ClaimOptions{Floor: 1, Retention: time.Hour}, "+@all"), `EVALSHA with "lock:a", "{lock:a}:redlock:fence": NOPERM `)
	require.ErrorContains(t, ask(node.Acquire, node.ClaimOptions{Quarantine: time.Hour}, "+@all"), `with "lock:a", "redlock:guard": `)
	require.ErrorContains(t, ask(node.Release, node.ClaimOptions{}, "-get"), `the script of DEL, GET with "lock:a": `)
}
