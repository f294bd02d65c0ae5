package redisnode_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// strict precedes each script. It refuses keys that are not in KEYS, and notes which lines run,
// through the server's own redis.call.
const strict = `
local server = redis
local function reached(line) server.call('SADD', 'test:reached', line) end
local keyed = {GET=1, SET=1, EXISTS=1, DEL=1, PTTL=1, PEXPIRE=1, ZADD=1, ZRANGE=1, ZREM=1, ZRANK=1, HSET=1, HGET=1, HDEL=1}
local keyless = {TIME=1, INFO=1, PUBLISH=1}
local function check(command, ...)
  if keyless[command] then
    return
  end
  if command == 'SPUBLISH' then -- its channel is in the key's slot: it is named as a companion is
    local channel, prefix = select(1, ...), string.sub(KEYS[2], 1, -1 - #'queue')
    if string.sub(channel, 1, #prefix) ~= prefix then
      server.call('SADD', 'test:undeclared', command .. ' ' .. channel)
    end
    return
  end
  local last = (command == 'EXISTS' or command == 'DEL') and select('#', ...) or 1
  for i = 1, last do
    local key, declared = select(i, ...), false
    for _, k in ipairs(KEYS) do
      declared = declared or k == key
    end
    if not keyed[command] or not declared then
      server.call('SADD', 'test:undeclared', command .. ' ' .. tostring(key))
      error('undeclared: ' .. command .. ' ' .. tostring(key))
    end
  end
end
local redis = setmetatable({
  call = function(...) check(...) return server.call(...) end,
  pcall = function(...) check(...) return server.pcall(...) end,
}, {__index = server})
`

// statement matches the lines that begin a statement, but for those that only define a function.
var statement = regexp.MustCompile(`^\s*(local [a-z, ]+(=|$)|return|if |for |while |redis\.|error\(|[a-z_]+\(|[a-z, ]+(\[\w+\])? = )`)

// instrument makes each statement of a script note that it runs, by its file, which is the script's
// or that of a part, and adds it to lines.
func instrument(t *testing.T, name, text string, lines map[string]bool) string {
	t.Helper()
	own, err := os.ReadFile(name)
	require.NoError(t, err)
	all := strings.Split(text, "\n")
	for i, line := range all {
		if !statement.MatchString(line) {
			continue
		}
		where := "a part: " + line
		if strings.Contains(string(own), line+"\n") {
			where = name + ": " + line
		}
		lines[where] = true
		all[i] = fmt.Sprintf("reached(%q) %s", where, line)
	}
	return strings.Join(all, "\n")
}

// Invariant 15. Every statement of every script runs, on a server that refuses what is not in
// KEYS. The exception is ping6.lua: a server older than Redis 7, which it is for, would refuse a
// script that declares the key to a user who may not access it, before it has told whether it
// takes writes. It sets nothing.
func TestEveryScriptTouchesOnlyTheKeysThatItDeclares(t *testing.T) {
	lines := make(map[string]bool)
	redisnode.ChangeScripts(t, func(name, text string) string {
		if name == "ping.lua" { // what it begins with must come first, and it calls nothing
			require.NotContains(t, text, "redis.")
			return text
		}
		return strict + instrument(t, name, text, lines)
	})

	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	everyBranch(t, server, s)
	undeclared, err := server.Do("SMEMBERS", "test:undeclared")
	require.NoError(t, err)
	require.Empty(t, undeclared)
	reached, err := server.Do("SMEMBERS", "test:reached")
	require.NoError(t, err)
	for _, line := range reached.([]any) {
		delete(lines, line.(string))
	}
	require.Empty(t, slices.Sorted(maps.Keys(lines)), "statements that did not run")
	require.NotEmpty(t, told)
}

// everyBranch runs every branch of the scripts.
func everyBranch(t *testing.T, server *redistest.Server, s *redisnode.Redis) {
	run := func(args ...string) any {
		t.Helper()
		answer, err := server.Do(args...)
		require.NoError(t, err, "%q", args)
		return answer
	}
	ask := func(kind node.Kind, c *node.Claim) node.Command {
		t.Helper()
		return one(t, s, node.Command{Kind: kind, Claim: c, TTL: time.Minute, Fence: 1})
	}
	is := func(want node.Outcome, c node.Command) {
		t.Helper()
		require.Equal(t, want, c.Outcome, "%v", c.Err)
	}
	claim := func(token string, o node.ClaimOptions, keys ...string) *node.Claim {
		c := node.NewClaim(keys, token, 1)
		c.Ask(o)
		return c
	}
	none, fence, guard := node.ClaimOptions{}, node.ClaimOptions{Floor: 1, Retention: time.Hour}, node.ClaimOptions{Quarantine: time.Minute}
	all := node.ClaimOptions{Floor: 1, Retention: time.Hour, Quarantine: time.Minute}
	trust := func() { is(node.Done, ask(node.Trust, claim("", none, "k"))) }
	distrust := func() { run("SET", node.GuardKey, "0123456789abcdef-0123456789abcdef-0 0") }
	commands := []node.Kind{node.Acquire, node.Read, node.Extend, node.Confirm, node.Release}

	// Of one key and of several, with and without a fence and a guard.
	trust()
	for _, o := range []node.ClaimOptions{none, fence, guard, all, {Metadata: "m"}} {
		for _, keys := range [][]string{{"a"}, {"{b}"}, {"a", "{b}", "c"}} {
			ours := claim("ours", o, keys...)
			is(node.Done, one(t, s, node.Command{Kind: node.Acquire, Claim: ours, TTL: time.Second, Script: true}))
			is(node.Refused, one(t, s, node.Command{Kind: node.Acquire, Claim: ours, TTL: time.Second, Script: true}))
			is(node.Refused, one(t, s, node.Command{Kind: node.Acquire, Claim: claim("another", o, keys...), TTL: time.Second, Script: true}))
			is(node.Refused, ask(node.Read, ours))
			is(node.Done, ask(node.Extend, ours))
			is(node.Done, ask(node.Extend, ours))
			run("DEL", keys[0])
			is(node.Refilled, ask(node.Extend, ours))
			if o.Floor > 0 {
				is(node.Done, ask(node.Confirm, ours))
				is(node.Refused, ask(node.Confirm, claim("another", o, keys...)))
			}
			is(node.Refused, ask(node.Extend, claim("another", o, keys...)))
			if o.Quarantine > 0 {
				run("DEL", keys[0])
				distrust()
				is(node.Unknown, ask(node.Extend, ours))
				is(node.Unknown, ask(node.Acquire, claim("another", o, "free")))
				trust()
				is(node.Refilled, ask(node.Extend, ours))
			}
			is(node.Done, ask(node.Release, ours))
			is(node.Done, ask(node.Read, ours))
		}
	}

	// Keys and counters of other types and values, and commands that are denied.
	run("RPUSH", "list", "x")
	ofList := claim("ours", fence, "list")
	for _, kind := range commands {
		is(node.Refused, ask(kind, ofList))
	}
	is(node.Refused, joins(t, s, claim("ours", fence, "list"), "grants", time.Minute, 1))
	is(node.Refused, ask(node.Leave, ofList))
	run("SET", node.Companion("k", node.Fence), "hello")
	is(node.Unknown, ask(node.Acquire, claim("ours", fence, "k")))
	run("DEL", node.Companion("k", node.Fence))
	is(node.Unknown, ask(node.Acquire, claim("ours", node.ClaimOptions{Floor: 1 << 53, Retention: time.Hour}, "k")))
	run("ACL", "SETUSER", "default", "-get")
	for _, kind := range append(commands, node.Leave) {
		is(node.Unknown, ask(kind, claim("ours", fence, "k")))
	}
	is(node.Unknown, joins(t, s, claim("ours", fence, "k"), "grants", time.Minute, 1))
	run("ACL", "SETUSER", "default", "+get")

	// The queue.
	for _, key := range []string{"k", "{k}"} {
		wait := func(o node.ClaimOptions, token, channel string, lease time.Duration, number int64) node.Command {
			t.Helper()
			return joins(t, s, claim(token, o, key), channel, lease, number)
		}
		owner := func(want string) {
			t.Helper()
			value, _ := server.Get(t, key)
			require.Equal(t, want, value)
		}
		hold := func() { run("SET", key, "holder", "PX", "60000") }
		done := func() { run("DEL", key, node.Companion(key, node.Queue), node.Companion(key, node.Waiters)) }
		leaves := func(o node.ClaimOptions, want node.Outcome) {
			t.Helper()
			is(want, ask(node.Leave, claim("holder", o, key)))
		}

		leaves(none, node.Refused)
		hold()
		leaves(none, node.Done)
		for _, o := range []node.ClaimOptions{none, fence, guard, all} {
			is(node.Done, wait(o, "first", "grants", time.Minute, 1))
			run("PEXPIRE", key, "5000")
			is(node.Done, wait(o, "first", "grants", time.Minute, 2)) // it has it, for longer
			done()

			hold()
			is(node.Refused, wait(o, "dead", "unheard", time.Minute, 1))
			later(t, server)
			is(node.Refused, wait(o, "gone", "grants", ms, 1))
			later(t, server)
			later(t, server)
			is(node.Refused, wait(o, "first", "grants", time.Minute, 2))
			is(node.Refused, wait(o, "first", "grants", time.Minute, 1)) // overtaken
			is(node.Refused, wait(o, "second", "grants", time.Minute, 1))
			is(node.Refused, wait(o, "third", "grants", time.Minute, 1))
			leaves(o, node.Done)
			owner("first")
			run("DEL", key)
			is(node.Refused, wait(o, "third", "grants", time.Minute, 2)) // it grants to the one before it
			owner("second")
			run("DEL", key)
			is(node.Done, wait(o, "third", "grants", time.Minute, 3))
			done()

			hold()
			is(node.Refused, wait(o, "dead", "unheard", time.Minute, 1))
			leaves(o, node.Done)
			owner("")
			is(node.Refused, ask(node.Leave, claim("holder", o, key)))
			hold()
			is(node.Refused, wait(o, "dead", "unheard", time.Minute, 1))
			run("DEL", key)
			is(node.Done, wait(o, "first", "grants", time.Minute, 1))
			done()

			hold()
			is(node.Refused, wait(o, "sharded", "grants", time.Minute, 1)) // as it is on a Cluster
			waiters := node.Companion(key, node.Waiters)
			entry := run("HGET", waiters, "sharded").(string)
			run("HSET", waiters, "sharded", strings.Replace(entry, "P grants", "S "+node.KeyChannel(key, "nonce"), 1))
			leaves(o, node.Done)
			done()

			// A guarded waiter, and callers with and without a guard.
			for _, caller := range []node.ClaimOptions{none, fence, guard, all} {
				for _, channel := range []string{"grants", "unheard"} {
					hold()
					is(node.Refused, wait(o, "first", channel, time.Minute, 1))
					if o.Quarantine > 0 {
						distrust()
					}
					leaves(caller, node.Done)
					trust()
					wait(caller, "another", "grants", time.Minute, 1)
					done()
				}
			}
		}
		hold()
		is(node.Refused, ask(node.Extend, claim("ours", none, key)))
		is(node.Unknown, func() node.Command { distrust(); return wait(guard, "first", "grants", time.Minute, 1) }())
		trust()
		done()
	}
}

// joins joins a queue for a window of 10 s.
func joins(t *testing.T, s *redisnode.Redis, claim *node.Claim, channel string, lease time.Duration, number int64) node.Command {
	t.Helper()
	return one(t, s, node.Command{Kind: node.Join, Claim: claim, Nonce: "nonce-of-" + claim.Token, Entry: &node.Entry{
		Number: number, Order: time.Now().UnixMilli(), Floor: claim.Options().Floor, Channel: channel, Window: 10 * time.Second, Lease: lease,
	}})
}
