package redisnode_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// Hosted services refuse commands in scripts with the words that Redis has for commands which no
// script may run.
func TestACommandThatNoScriptMayRunIsNamedWithWhatNeedsIt(t *testing.T) {
	const (
		guardByINFO = "WithRestartGuard needs INFO in scripts; without that option locks, queues and fences work"
		guardByTIME = "WithRestartGuard needs TIME in scripts; without that option locks and fences work, and waits poll"
		queueByTIME = "queues need TIME in scripts; without them waits poll"
	)
	noScriptMay := map[string]string{"INFO": "SUBSCRIBE", "TIME": "MONITOR"} // with as many arguments
	server := redistest.Start(t)
	e := startEndpoint(t, server)
	for _, c := range []struct {
		missing    string
		kind       node.Kind
		quarantine time.Duration
		want       string
	}{
		{"INFO", node.Acquire, 0, ""},
		{"INFO", node.Join, 0, ""},
		{"INFO", node.Extend, 0, ""},
		{"INFO", node.Acquire, time.Minute, guardByINFO},
		{"INFO", node.Join, time.Minute, guardByINFO},
		{"INFO", node.Extend, time.Minute, guardByINFO},
		{"INFO", node.Trust, 0, guardByINFO},
		{"TIME", node.Acquire, 0, ""},
		{"TIME", node.Join, 0, queueByTIME},
		{"TIME", node.Acquire, time.Minute, guardByTIME},
		{"TIME", node.Join, time.Minute, guardByTIME},
	} {
		e.rewrites(func(args []string) []string {
			for i := range args { // the text of a script
				args[i] = strings.ReplaceAll(args[i], "redis.call('"+c.missing+"'", "redis.call('"+noScriptMay[c.missing]+"'")
			}
			return args
		})
		_, err := server.Do("FLUSHALL")
		require.NoError(t, err)
		s := e.dial(t)
		command := node.Command{Kind: c.kind, Claim: guarded("ours", c.quarantine, "k"), TTL: time.Minute}
		if c.kind == node.Join {
			command = enter(t, s, command.Claim, 0, 1, 0)
		} else {
			command = one(t, s, command)
		}
		if c.want == "" {
			require.NoError(t, command.Err, "%v", c)
			continue
		}
		require.Equal(t, node.Unknown, command.Outcome, "%v", c)
		require.Regexp(t, "This Redis command is not allowed from (Lua )?scripts? \\("+c.want+"\\)$", command.Err.Error(), "%v", c)
	}
}

// RESP2 serves all that a node does.
func TestAServerThatHasOnlyRESP2ServesAllOverIt(t *testing.T) {
	e := startEndpoint(t, redistest.Start(t))
	e.rewrites(func(args []string) []string {
		if args[0] == "HELLO" && args[1] == "3" {
			args[1] = "4" // which no server speaks
		}
		return args
	})
	err := e.dial(t).Do(t.Context(), []node.Command{{Kind: node.Ping, Claim: claim(1)}})
	require.ErrorContains(t, err, "not connected: HELLO was refused: NOPROTO ")
	require.ErrorContains(t, err, "add ?protocol=2 to the URL")

	option := e.option()
	option.AlwaysRESP2 = true
	s := redisnode.Dial(option, nil)
	t.Cleanup(s.Close)
	<-s.Tried()
	told := listening(t, s)
	holder, waiter := fenced("holder", 1, "k"), fenced("waiter", 1, "k")
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Acquire, Claim: holder, TTL: time.Minute}).Outcome)
	require.Equal(t, node.Refused, enter(t, s, waiter, 0, 1, 1).Outcome)
	require.Equal(t, node.Done, one(t, s, node.Command{Kind: node.Leave, Claim: holder}).Outcome)
	require.Equal(t, "waiter 1 2", <-told)
}
