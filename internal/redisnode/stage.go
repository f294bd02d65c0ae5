package redisnode

import (
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redact"
)

const (
	// scratchTTL bounds how long a key of a rehearsal exists.
	scratchTTL = 10 * time.Second
	// cleaningTime bounds the deletion of such keys.
	cleaningTime = time.Second
)

var (
	errNoSlot = errors.New("this server of the Cluster has no slot of a key that begins so")
	errLate   = errors.New("no answer in time")
)

// stage is where the features of one server are rehearsed.
type stage struct {
	*Redis
	node   *node.Node // knows what the library does here; sends nothing
	client rueidis.Client
	member rueidis.Client // the server alone
	prefix string
	name   string         // of all keys, besides the prefix; random
	scene  *regexp.Regexp // matches what tells the keys from the prefix
}

func newStage(s *Redis, client, member rueidis.Client, prefix string) *stage {
	st := &stage{Redis: s, node: node.New(0, "", s, true), client: client, member: member, prefix: prefix, name: rand.Text()}
	st.scene = regexp.MustCompile(`:doctor:(\d+:` + st.name + `|\{\d+:` + st.name + `\}:\d+)`)
	return st
}

// plain returns the i-th of the keys that have no hash tag, unless the prefix has one. The number
// is not at the end: a proxy may have keys together that differ only there (FNV-1a with ketama).
func (st *stage) plain(i int) string {
	return st.prefix + ":doctor:" + strconv.Itoa(i) + ":" + st.name
}

// tagged returns a function like plain for keys that have the i-th hash tag in common.
func (st *stage) tagged(i int) func(int) string {
	return func(j int) string {
		return st.prefix + ":doctor:{" + strconv.Itoa(i) + ":" + st.name + "}:" + strconv.Itoa(j)
	}
}

// find returns an i, from the given one on, for which the server has the key.
func (st *stage) find(ctx context.Context, from int, key func(int) string) (int, error) {
	const (
		atOnce = 256
		rounds = 16 // so a server with a thousandth of all slots is very likely to have a key
	)
	if st.topology == nil {
		return from, nil
	}
	_, alike := node.HashTag(st.prefix) // so all keys are in one slot
	for round := 0; round < rounds && (round == 0 || !alike); round++ {
		commands := make([]rueidis.Completed, atOnce)
		for i := range commands {
			commands[i] = st.member.B().Exists().Key(key(from + i)).Build()
		}
		for i, result := range st.member.DoMulti(ctx, commands...) {
			err := result.Error()
			if _, answered := rueidis.IsRedisErr(err); err != nil && !answered {
				return 0, inTime(ctx, wireError(err))
			}
			if !isRedirection(err) { // a replica answers MOVED for every key
				return from + i, nil
			}
		}
		from += atOnce
	}
	return 0, errNoSlot
}

// claim returns a claim of a new owner.
func (st *stage) claim(options node.ClaimOptions, keys ...string) *node.Claim {
	c := node.NewClaim(keys, node.AttemptToken(node.NewAge()), 1)
	c.Ask(options)
	return c
}

// step is a command with the only right outcome, and what any other one means.
type step struct {
	want    node.Outcome
	command node.Command
	wrong   error
}

// play runs the steps, until one fails.
func (st *stage) play(ctx context.Context, steps ...step) error {
	for _, s := range steps {
		if _, err := st.run(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// run runs one step, and returns the command with its result.
func (st *stage) run(ctx context.Context, s step) (node.Command, error) {
	batch := []node.Command{s.command}
	_ = st.Do(ctx, batch) // the command has the error
	return batch[0], inTime(ctx, s.judge(batch[0]))
}

// inTime returns err, or that there was no answer in time.
func inTime(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errLate
	}
	return err
}

// judge returns what is wrong with the result of the step's command.
func (s step) judge(c node.Command) error {
	switch c.Outcome {
	case node.Unknown:
		return c.Err
	case s.want:
		return nil
	}
	return s.wrong
}

// clear deletes keys and what the library keeps with them, also after the end of ctx. A proxy may
// send a script and a DEL of the same key to different servers, so clear does both. Where this
// fails, the keys expire.
func (st *stage) clear(ctx context.Context, keys ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleaningTime)
	defer cancel()
	all := slices.Clone(keys)
	for _, key := range keys {
		all = append(all, node.Companion(key, node.Queue), node.Companion(key, node.Waiters), node.Companion(key, node.Fence))
	}
	var commands []rueidis.Completed
	if st.Check(all) == nil {
		commands = append(commands, st.eval(deleteAll, all))
	}
	for _, key := range all {
		commands = append(commands, st.client.B().Del().Key(key).Build())
	}
	st.client.DoMulti(ctx, commands...)
}

// Scripts for keys that are on the server of the first of them.
const (
	deleteAll = "for i = 1, #KEYS do redis.call('DEL', KEYS[i]) end"
	expireAll = "for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end"
)

func (st *stage) eval(script string, keys []string, args ...string) rueidis.Completed {
	return st.client.B().Arbitrary("EVAL", script, strconv.Itoa(len(keys))).Keys(keys...).Args(args...).Build()
}

// told returns err as an operator is to read it: with the prefix in place of keys, and without
// tokens.
func (st *stage) told(err error) error {
	return &retold{redact.Tokens(st.scene.ReplaceAllLiteralString(err.Error(), "")), err}
}

// retold is an error with another text.
type retold struct {
	text string
	err  error
}

func (r *retold) Error() string { return r.text }
func (r *retold) Unwrap() error { return r.err }
