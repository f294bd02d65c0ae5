package redisnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// Do implements Store. The transport repeats nothing: every command is a write.
func (s *Redis) Do(ctx context.Context, batch []node.Command) error {
	client, err := s.connected()
	if err != nil {
		err = node.NotConnected(err)
		for i := range batch {
			batch[i].Err = err
		}
		return err
	}
	able := s.ability(batch[0].Claim.Keys)
	seen := able.now()
	var results []rueidis.RedisResult
	if len(batch) == 1 { // spares the results' slice
		result := client.Do(ctx, s.command(client, &batch[0], seen, false))
		err = s.read(&batch[0], able, seen, result)
		if !s.isToRepeat(&batch[0], result) {
			return s.finish(ctx, client, batch, able, seen, err)
		}
		results = []rueidis.RedisResult{result}
	} else {
		commands := make([]rueidis.Completed, len(batch))
		for i := range batch {
			commands[i] = s.command(client, &batch[i], seen, false)
		}
		results = client.DoMulti(ctx, commands...)
		for i := range batch {
			err = s.read(&batch[i], able, seen, results[i])
		}
	}
	for range 2 { // a Ping may turn out to be for an older server
		var unknown []int
		var again []rueidis.Completed
		for i, result := range results {
			if s.isToRepeat(&batch[i], result) {
				unknown = append(unknown, i)
				again = append(again, s.command(client, &batch[i], seen, true))
			}
		}
		if len(again) == 0 {
			break
		}
		for j, result := range client.DoMulti(ctx, again...) {
			results[unknown[j]] = result
			err = s.read(&batch[unknown[j]], able, seen, result)
		}
	}
	return s.finish(ctx, client, batch, able, seen, err)
}

// finish draws from the answers to a batch, which was built at seen, what they show of the server. It returns err, the
// error that the last command found the connection in.
func (s *Redis) finish(ctx context.Context, client rueidis.Client, batch []node.Command, able *ability, seen shown, err error) error {
	if s.topology != nil {
		s.topology.refresh(client, err != nil)
	}
	if s.demoted.Load() {
		s.redial(ctx, client)
	}
	if seen.proof() == tells && able.now() == seen { // as it is nearly always
		return err
	}
	if !able.isCounted() {
		if err != nil { // the next command may be the first on another connection
			able.reset()
		} else if seen.proof() == unproven && slices.ContainsFunc(batch, func(c node.Command) bool { return c.Outcome != node.Unknown && formOf(&c, seen) == asScript }) {
			able.raise(seen, mute)
		}
		return err
	}
	var granted []*node.Command
	for i := range batch {
		if c := &batch[i]; c.IsPlain() && c.Outcome == node.Done {
			granted = append(granted, c)
		}
	}
	switch p := seen.proof(); {
	case len(granted) == 0:
	case p == unproven:
		if s.verify(ctx, client, granted[:1])[0] {
			able.raise(seen, echoes)
		} else {
			able.raise(seen, mute)
		}
	case p != mute && !able.votes(seen): // the answers were nil
		ours := s.verify(ctx, client, granted)
		for i, c := range granted {
			if !ours[i] {
				c.Outcome, c.Err = node.Unknown, errNotProven
			}
		}
		if ours[0] {
			able.raise(seen, tells)
		} else {
			able.raise(seen, mute)
		}
	}
	return err
}

// verify asks once more for the keys of commands which have just been acquired, or may have been, with GET. It reports
// for each whether the answer was the value of the key, and that the token of the command.
//
// Should a key be gone by now, it is set again, for 1 ms: so nothing is left of it, even if a release of the claim has
// passed in between and will not be repeated. If it is there, the server changes nothing.
func (s *Redis) verify(ctx context.Context, client rueidis.Client, granted []*node.Command) []bool {
	commands := make([]rueidis.Completed, len(granted))
	for i, c := range granted {
		commands[i] = client.B().Arbitrary("SET").Keys(c.Claim.Keys[0]).Args(c.Claim.Token, "NX", "PX", "1", "GET").Build()
	}
	ours := make([]bool, len(granted))
	for i, result := range client.DoMulti(ctx, commands...) {
		value, err := result.ToString()
		ours[i] = err == nil && value == granted[i].Claim.Token
	}
	return ours
}

// command builds what is sent for c: with its scripts whole, or by their digest.
func (s *Redis) command(client rueidis.Client, c *node.Command, seen shown, whole bool) rueidis.Completed {
	keys, token, terms := c.Claim.Keys, c.Claim.Token, c.Claim.Terms()
	switch formOf(c, seen) {
	case asSet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL)).Build()
	case asSetGet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL), "GET").Build()
	case asExists:
		return client.B().Arbitrary("EXISTS").Keys(node.WaitersKey(keys[0])).Build()
	}
	script := scripts[c.Kind]
	if c.Kind == node.Ping && s.oldLua.Load() {
		script = ping6
	}
	command := client.B().Arbitrary("EVALSHA", script.digest)
	if whole {
		command = client.B().Arbitrary("EVAL", script.text)
	}
	if c.Claim.Fenced() && (c.Kind == node.Acquire || c.Kind == node.Confirm) {
		keys = c.Claim.Counted()
	}
	if c.Kind == node.Ping { // its key names the server: the server takes it for no key
		return command.Args("0").Keys(keys[0]).Build()
	}
	if len(keys) == 1 { // no slice
		command = command.Args("1").Keys(keys[0]).Args(token)
	} else {
		command = command.Args(strconv.Itoa(len(keys))).Keys(keys...).Args(token)
	}
	floor, retention := "0", "0"
	if c.Claim.Fenced() {
		floor, retention = c.Claim.FloorText(), s.retention.of(terms.Retention)
	}
	switch c.Kind {
	case node.Acquire:
		command = command.Args(s.ttl.of(c.TTL), strconv.Itoa(len(c.Claim.Keys)), floor, retention, s.quarantine.of(terms.Quarantine))
	case node.Confirm:
		command = command.Args(strconv.FormatInt(c.Fence, 10), retention)
	case node.Extend:
		command = command.Args(s.ttl.of(c.TTL), s.quarantine.of(terms.Quarantine))
	case node.Join:
		e := c.Entry
		if c.Claim.Fenced() {
			floor = strconv.FormatInt(e.Floor, 10)
		}
		command = command.Args(strconv.FormatInt(e.Number, 10), strconv.FormatInt(e.Order, 10), millis(e.Waited), e.Channel, c.Nonce, millis(e.Window),
			millis(e.Lease), floor, retention, s.quarantine.of(terms.Quarantine), node.Counter(keys[0]))
	}
	return command.Build()
}

// form is what a command is sent as.
type form uint8

const (
	asScript form = iota
	asSet
	asSetGet
	asExists
)

// form returns what c is sent as to a server of which so much has been seen.
func formOf(c *node.Command, seen shown) form {
	if c.Kind == node.Look {
		return asExists
	}
	if p := seen.proof(); c.IsPlain() && p != unproven {
		if p == mute {
			return asSet
		}
		return asSetGet
	}
	return asScript
}

// read fills in what came of c, and returns the error of the connection. Only the
// very answers that the commands give are taken for one: whatever else comes is
// an error, after which the keys may be there.
func (s *Redis) read(c *node.Command, able *ability, seen shown, result rueidis.RedisResult) error {
	c.Outcome, c.Err = node.Unknown, nil
	if err := result.NonRedisError(); err != nil {
		c.Err = wireError(err)
		return c.Err
	}
	sent := formOf(c, seen)
	switch {
	case sent == asSetGet:
		c.Outcome, c.Err = readSetGet(c, result)
	case sent == asSet:
		c.Outcome, c.Err = readSet(result)
	case c.Entry != nil:
		c.Outcome, c.Err = readJoin(c, result)
	case c.Kind == node.Acquire || c.Kind == node.Read:
		c.Outcome, c.Err = readOwner(c, result)
	default:
		c.Outcome, c.Err = readNumber(c, result)
	}
	if c.Err != nil {
		s.judge(c, able, seen, result.Error())
	}
	return nil
}

// judge completes the error of c, to which the server answered with answer if that is an error, and draws what it says
// of the server.
func (s *Redis) judge(c *node.Command, able *ability, seen shown, answer error) {
	sent := formOf(c, seen)
	switch {
	case isDenial(answer):
		c.Err = denied(c, sent, answer)
		if sent == asScript { // a plain SET must not leave what no script can delete
			able.reset()
		}
	case isDemotion(answer):
		c.Err = s.isReplica(c.Err)
		s.demoted.Store(true)
	}
	switch {
	case surelyNotRun(answer):
		c.Err = node.NotRun(c.Err)
	case sent == asSetGet: // it does not know GET there, or takes no notice of it
		able.raise(seen, mute)
	}
}

// readNumber reads an answer that is a number: those of the other scripts, and of EXISTS.
func readNumber(c *node.Command, result rueidis.RedisResult) (node.Outcome, error) {
	n, err := result.ToInt64()
	if err != nil {
		return node.Unknown, discreet(err)
	}
	keys, fenced := int64(len(c.Claim.Keys)), c.Claim.Fenced()
	switch c.Kind {
	case node.Acquire:
		switch {
		case n < 0:
			return node.Unknown, quarantined(-n)
		case fenced && n >= c.Claim.Terms().Floor:
			c.Fence = n
			return node.Done, nil
		case !fenced && n == 1:
			return node.Done, nil
		}
	case node.Confirm:
		switch {
		case n == 0:
			return node.Refused, nil
		case n >= c.Fence:
			c.Fence = n
			return node.Done, nil
		}
	case node.Extend:
		switch {
		case n < 0:
			return node.Unknown, quarantined(-n)
		case n <= 2:
			return [...]node.Outcome{node.Refused, node.Done, node.Refilled}[n], nil
		}
	case node.Look:
		if n == 0 || n == 1 {
			return [...]node.Outcome{node.Done, node.Refused}[n], nil
		}
	case node.Release, node.Leave:
		switch {
		case n == keys:
			return node.Done, nil
		case n >= 0 && n < keys:
			return node.Refused, nil
		}
	case node.Trust, node.Ping, node.Read:
		if n == 1 {
			return node.Done, nil
		}
	}
	return node.Unknown, fmt.Errorf("unexpected reply: %d", n)
}

// readOwner reads the answer of acquire.lua and owner.lua.
func readOwner(c *node.Command, result rueidis.RedisResult) (node.Outcome, error) {
	answer, err := result.ToArray()
	if err != nil { // it is none: what it is, and what errors are, readNumber says
		return readNumber(c, result)
	}
	if len(answer) == 2 && answer[1].IsString() {
		if n, err := answer[0].ToInt64(); err == nil && n == 0 {
			c.Owner, err = answer[1].ToString()
			if c.Owner == "" {
				c.Owner = node.Foreign
			}
			return node.Refused, err
		}
	}
	return node.Unknown, errors.New("unexpected reply to the question who owns a key")
}

func readSet(result rueidis.RedisResult) (node.Outcome, error) {
	reply, err := result.ToMessage()
	if rueidis.IsRedisNil(err) {
		return node.Refused, nil
	}
	if err != nil {
		return node.Unknown, discreet(err)
	}
	if text, err := reply.ToString(); !reply.IsString() || err != nil || text != "OK" {
		return node.Unknown, errors.New("unexpected reply to SET")
	}
	return node.Done, nil
}

// readSetGet reads the answer to a SET with GET: what the key holds, or nil if it was free.
func readSetGet(c *node.Command, result rueidis.RedisResult) (node.Outcome, error) {
	reply, err := result.ToMessage()
	switch {
	case rueidis.IsRedisNil(err):
		return node.Done, nil
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE "):
		c.Owner = node.Foreign
		return node.Refused, nil
	case err != nil:
		return node.Unknown, discreet(err)
	}
	owner, err := reply.ToString()
	switch {
	case !reply.IsString() || err != nil:
		return node.Unknown, errors.New("unexpected reply to SET")
	case owner == "OK":
		return node.Unknown, errors.New("the server did not honour GET of SET")
	}
	if c.Owner = owner; owner == "" {
		c.Owner = node.Foreign
	}
	return node.Refused, nil
}

// readPlace reads the answer of join.lua.
func readJoin(c *node.Command, result rueidis.RedisResult) (node.Outcome, error) {
	answer, err := result.ToArray()
	if err != nil {
		return node.Unknown, discreet(err)
	}
	var numbers [3]int64
	for i := range min(len(answer), len(numbers)) {
		if numbers[i], err = answer[i].ToInt64(); err != nil {
			return node.Unknown, errPlace
		}
	}
	switch state, value, rank := numbers[0], numbers[1], numbers[2]; {
	case len(answer) == 2 && state == 1 && value >= c.Entry.Floor && (value > 0) == c.Claim.Fenced():
		c.Fence = value
		return node.Done, nil
	case len(answer) == 2 && state == -1 && value > 0:
		return node.Unknown, quarantined(value)
	case len(answer) == 4 && state == 0:
		if c.Owner, err = answer[3].ToString(); err == nil {
			c.Held, c.Rank = time.Duration(value)*time.Millisecond, int(rank)
			return node.Refused, nil
		}
	}
	return node.Unknown, errPlace
}

var errPlace = errors.New("unexpected reply of a queue")

// isToRepeat reports whether c is to be sent again, whole. A server that answers NOSCRIPT
// has not run it, so that is safe, as is asking a Ping in another way.
func (s *Redis) isToRepeat(c *node.Command, result rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(result.Error())
	if !ok {
		return false
	}
	if c.Kind == node.Ping && strings.HasPrefix(err.Error(), "Error compiling script") {
		s.oldLua.Store(true)
		return true
	}
	return err.IsNoScript()
}

// ttlText makes texts of ttls, and remembers the last one: most locks of a
// process have the same. The zero value is ready for use.
type ttlText struct {
	last atomic.Pointer[ttlAndText]
}

type ttlAndText struct {
	ttl  time.Duration
	text string
}

// of is ttl in whole milliseconds, rounded up: a key never lives shorter than
// the validity that is counted from its ttl.
func (t *ttlText) of(ttl time.Duration) string {
	if last := t.last.Load(); last != nil && last.ttl == ttl {
		return last.text
	}
	text := millis(ttl)
	t.last.Store(&ttlAndText{ttl, text})
	return text
}

func millis(d time.Duration) string {
	whole := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		whole++
	}
	return strconv.FormatInt(whole, 10)
}

func quarantined(ms int64) error {
	return &node.Quarantined{Until: time.Now().Add(time.Duration(ms) * time.Millisecond)}
}
