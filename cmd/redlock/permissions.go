package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/redis/rueidis"
)

// denial is a command that the library needs and the user may not run.
type denial struct {
	Command string `json:"command"`
	For     string `json:"for"` // "locks", "queues"
	Said    string `json:"said"`

	key bool // it is the key that is denied, not the command
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
)

func permissions(key string, kind group) []permission {
	waiters, waiting, channel := key+":waiters", key+":waiting", "redlock:"+rand.Text()
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
	case cluster: // it has no queues
		return append(all, permission{forLocks, []string{"CLUSTER", "SLOTS"}})
	case sentinelGroup:
		all = append(all, permission{forLocks, []string{"ROLE"}})
	}
	return append(all,
		permission{forQueues, []string{"TIME"}},
		permission{forQueues, []string{"ZADD", waiters, "XX", "0", "-"}},
		permission{forQueues, []string{"ZRANGE", waiters, "0", "0"}},
		permission{forQueues, []string{"ZREM", waiters, "-"}},
		permission{forQueues, []string{"ZSCORE", waiters, "-"}},
		permission{forQueues, []string{"HSET", waiting, "-", "-"}},
		permission{forQueues, []string{"HGET", waiting, "-"}},
		permission{forQueues, []string{"HDEL", waiting, "-"}}, // and what HSET has set, if that was run
		permission{forQueues, []string{"PUBLISH", channel, "-"}},
		permission{forQueues, []string{"SUBSCRIBE", channel}},
	)
}

// denials finds out what the user may not run. It asks the server (ACL DRYRUN, from
// Redis 7 on), or else runs the commands on a key that nobody has.
func denials(ctx context.Context, client rueidis.Client, key string, kind group) []denial {
	user, err := client.Do(ctx, client.B().AclWhoami().Build()).ToString()
	if err == nil {
		err = client.Do(ctx, client.B().AclDryrun().Username(user).Command("GET").Arg(key).Build()).Error()
	}
	try := func(args []string) string { return dryRun(ctx, client, user, args) }
	if err != nil { // not permitted, or not known
		key += ":doctor:" + rand.Text()
		try = func(args []string) string { return tryOut(ctx, client, args) }
	}
	var denials []denial
	for _, p := range permissions(key, kind) {
		if p.args[0] == "HSET" && err != nil && slices.ContainsFunc(denials, func(d denial) bool { return d.Command == "DEL" }) {
			continue // what it sets could not be deleted
		}
		if said := try(p.args); said != "" {
			denials = append(denials, denial{p.args[0], p.purpose, said, strings.Contains(said, " key")})
		}
	}
	return denials
}

// dryRun asks the server whether the user may run a command. It returns why not, or
// nothing.
func dryRun(ctx context.Context, client rueidis.Client, user string, args []string) string {
	said, err := client.Do(ctx, client.B().AclDryrun().Username(user).Command(args[0]).Arg(args[1:]...).Build()).ToString()
	if err != nil || said == "OK" { // an error: the server does not know the command
		return ""
	}
	return said
}

// tryOut is dryRun by running the command.
func tryOut(ctx context.Context, client rueidis.Client, args []string) string {
	var err error
	if args[0] == "SUBSCRIBE" {
		err = subscribe(ctx, client, args[1])
	} else {
		err = client.Do(ctx, client.B().Arbitrary(args...).Build()).Error()
	}
	if denied, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(denied.Error(), "NOPERM") {
		return strings.TrimPrefix(denied.Error(), "NOPERM ")
	}
	return ""
}

// subscribe subscribes on a connection of its own, and closes that.
func subscribe(ctx context.Context, client rueidis.Client, channel string) error {
	conn, free := client.Dedicate()
	defer free()
	defer conn.Close()
	conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
	return conn.Do(ctx, conn.B().Subscribe().Channel(channel).Build()).Error()
}
