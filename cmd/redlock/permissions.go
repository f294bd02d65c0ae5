package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// denial is a command or a key that the library needs and the server denies.
type denial struct {
	Command string `json:"command"`
	For     string `json:"for"` // "locks", "queues", "fences", "guard"
	Said    string `json:"said"`
	Missing bool   `json:"missing,omitempty"` // the server does not know it; otherwise the user may not run it

	key bool   // the server denies a lock's key, not the command
	on  string // the key that the server denies; empty if it denies the command
}

// what returns the command or the key that is denied.
func (d denial) what() string {
	if d.on == "" {
		return d.Command
	}
	return d.Command + " on " + d.on
}

// permission is a command that the library needs, in a form that changes nothing where
// its key does not exist. SECURITY.md has the same list.
type permission struct {
	purpose string
	args    []string
}

const (
	forLocks  = "locks"
	forQueues = "queues"
	forFences = "fences"
	forGuard  = "guard"
)

func permissions(key string, kind group) []permission {
	queue, waiters := node.Companion(key, node.Queue), node.Companion(key, node.Waiters)
	all := []permission{
		{forLocks, []string{"SET", key, "-", "XX", "PX", "1"}},
		{forLocks, []string{"GET", key}},
		{forLocks, []string{"EXISTS", key}},
		{forLocks, []string{"DEL", key}},
		{forLocks, []string{"PTTL", key}},
		{forLocks, []string{"PEXPIRE", key, "1"}},
		{forLocks, []string{"EVAL", "return 1", "1", key}},
		{forLocks, []string{"EVALSHA", strings.Repeat("0", 40), "1", key}},
	}
	switch kind {
	case cluster:
		all = append(all, permission{forLocks, []string{"CLUSTER", "SLOTS"}})
	case sentinelGroup:
		all = append(all, permission{forLocks, []string{"ROLE"}})
	}
	counter := node.Companion(key, node.Fence)
	all = append(all,
		permission{forFences, []string{"GET", counter}},
		permission{forFences, []string{"SET", counter, "-", "XX", "PX", "1"}},
	)
	publish, subscribe, channel := "PUBLISH", "SUBSCRIBE", node.LockerChannel(rand.Text())
	if kind == cluster { // it has no guard
		publish, subscribe, channel = "SPUBLISH", "SSUBSCRIBE", node.KeyChannel(key, rand.Text())
	} else {
		all = append(all,
			permission{forGuard, []string{"INFO", "server"}},
			permission{forGuard, []string{"TIME"}},
			permission{forGuard, []string{"GET", node.GuardKey}},
			permission{forGuard, []string{"SET", node.GuardKey, "-", "NX", "XX"}}, // a syntax error: it may exist
		)
	}
	return append(all,
		permission{forQueues, []string{"TIME"}},
		permission{forQueues, []string{"ZADD", queue, "XX", "0", "-"}},
		permission{forQueues, []string{"ZRANGE", queue, "0", "0"}},
		permission{forQueues, []string{"ZREM", queue, "-"}},
		permission{forQueues, []string{"ZRANK", queue, "-"}},
		permission{forQueues, []string{"HSET", waiters, "-", "-"}},
		permission{forQueues, []string{"HGET", waiters, "-"}},
		permission{forQueues, []string{"HDEL", waiters, "-"}}, // and what HSET has set, if that was run
		permission{forQueues, []string{publish, channel, "-"}},
		permission{forQueues, []string{subscribe, channel}},
	)
}

// denials returns the commands that the server does not run for the user. It asks the server
// (ACL DRYRUN, from Redis 7 on), or else runs the commands on a key that does not exist.
func denials(ctx context.Context, client rueidis.Client, key string, kind group) []denial {
	user, err := client.Do(ctx, client.B().AclWhoami().Build()).ToString()
	if err == nil {
		err = client.Do(ctx, client.B().AclDryrun().Username(user).Command("GET").Arg(key).Build()).Error()
	}
	try := func(args []string) (said string, missing bool) { return dryRun(ctx, client, user, args) }
	ending := ""
	if err != nil { // not permitted, or not known
		ending = ":doctor:" + rand.Text()
		key += ending
		try = func(args []string) (string, bool) { return tryOut(ctx, client, args) }
	}
	var denials []denial
	for _, p := range permissions(key, kind) {
		if p.args[0] == "HSET" && err != nil && slices.ContainsFunc(denials, func(d denial) bool { return d.Command == "DEL" }) {
			continue // the tool could not delete what the command sets
		}
		if said, missing := try(p.args); said != "" {
			d := denial{Command: p.args[0], For: p.purpose, Said: said, Missing: missing}
			if !missing && strings.Contains(said, " key") && len(p.args) > 1 {
				d.key, d.on = p.purpose != forGuard, strings.Replace(p.args[1], ending, "", 1)
			}
			if d.Command == "EVAL" || d.Command == "EVALSHA" {
				d.on = "" // the denied key is one that the script was given
			}
			denials = append(denials, d)
		}
	}
	return denials
}

// dryRun asks the server whether the user may run a command. It returns why not, or
// nothing, and whether that is because the server does not know the command.
func dryRun(ctx context.Context, client rueidis.Client, user string, args []string) (said string, missing bool) {
	said, err := client.Do(ctx, client.B().AclDryrun().Username(user).Command(args[0]).Arg(args[1:]...).Build()).ToString()
	if answer, ok := rueidis.IsRedisErr(err); ok && strings.HasSuffix(answer.Error(), "' not found") {
		return answer.Error(), true
	}
	if err != nil || said == "OK" {
		return "", false
	}
	return said, false
}

// tryOut does what dryRun does by running the command.
func tryOut(ctx context.Context, client rueidis.Client, args []string) (said string, missing bool) {
	var err error
	if args[0] == "SUBSCRIBE" || args[0] == "SSUBSCRIBE" {
		err = subscribe(ctx, client, args)
	} else {
		err = client.Do(ctx, client.B().Arbitrary(args...).Build()).Error()
	}
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return "", false
	}
	if said, denied := strings.CutPrefix(answer.Error(), "NOPERM "); denied {
		return said, false
	}
	if said, _, _ := strings.Cut(answer.Error(), ", with args beginning with:"); strings.HasPrefix(said, "unknown command ") {
		return said, true
	}
	return "", false
}

// subscribe subscribes on a connection of its own, and closes that.
func subscribe(ctx context.Context, client rueidis.Client, args []string) error {
	conn, free := client.Dedicate()
	defer free()
	defer conn.Close()
	conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	if args[0] == "SSUBSCRIBE" {
		return conn.Do(ctx, conn.B().Ssubscribe().Channel(args[1]).Build()).Error()
	}
	return conn.Do(ctx, conn.B().Subscribe().Channel(args[1]).Build()).Error()
}
