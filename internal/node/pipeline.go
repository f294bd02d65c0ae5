package node

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
)

// Do implements Store. The transport repeats nothing: every command is a write.
func (s *Redis) Do(ctx context.Context, batch []Command) error {
	client, err := s.connected()
	if err != nil {
		err = NotConnected(err)
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
func (s *Redis) finish(ctx context.Context, client rueidis.Client, batch []Command, able *ability, seen shown, err error) error {
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
		} else if seen.proof() == unproven && slices.ContainsFunc(batch, func(c Command) bool { return c.Outcome != Unknown && c.form(seen) == asScript }) {
			able.raise(seen, mute)
		}
		return err
	}
	var granted []*Command
	for i := range batch {
		if c := &batch[i]; c.IsPlain() && c.Outcome == Done {
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
				c.Outcome, c.Err = Unknown, errNotProven
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
func (s *Redis) verify(ctx context.Context, client rueidis.Client, granted []*Command) []bool {
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
func (s *Redis) command(client rueidis.Client, c *Command, seen shown, whole bool) rueidis.Completed {
	keys, token, terms := c.Claim.Keys, c.Claim.Token, c.Claim.Terms()
	switch c.form(seen) {
	case asSet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL)).Build()
	case asSetGet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL), "GET").Build()
	case asExists:
		return client.B().Arbitrary("EXISTS").Keys(keys[0] + queueSuffix).Build()
	}
	script := scripts[c.Kind]
	if c.Kind == Ping && s.oldLua.Load() {
		script = ping6
	}
	command := client.B().Arbitrary("EVALSHA", script.digest)
	if whole {
		command = client.B().Arbitrary("EVAL", script.text)
	}
	if c.Claim.Fenced() && (c.Kind == Acquire || c.Kind == Confirm) {
		keys = c.Claim.asked.counted
	}
	if c.Kind == Ping { // its key names the server: the server takes it for no key
		return command.Args("0").Keys(keys[0]).Build()
	}
	if len(keys) == 1 { // no slice
		command = command.Args("1").Keys(keys[0]).Args(token)
	} else {
		command = command.Args(strconv.Itoa(len(keys))).Keys(keys...).Args(token)
	}
	floor, retention := "0", "0"
	if c.Claim.Fenced() {
		floor, retention = c.Claim.asked.floor, s.retention.of(terms.Retention)
	}
	switch c.Kind {
	case Acquire:
		command = command.Args(s.ttl.of(c.TTL), strconv.Itoa(len(c.Claim.Keys)), floor, retention, s.quarantine.of(terms.Quarantine))
	case Confirm:
		command = command.Args(strconv.FormatInt(c.Fence, 10), retention)
	case Extend:
		command = command.Args(s.ttl.of(c.TTL), s.quarantine.of(terms.Quarantine))
	case Join:
		e := c.Entry
		if c.Claim.Fenced() {
			floor = strconv.FormatInt(e.Floor, 10)
		}
		command = command.Args(strconv.FormatInt(e.Number, 10), strconv.FormatInt(e.Order, 10), millis(e.Waited), e.Channel, c.Nonce, millis(e.Window),
			millis(e.Lease), floor, retention, s.quarantine.of(terms.Quarantine), Counter(keys[0]))
	}
	return command.Build()
}

// IsPlain reports whether c needs no script. Then it may be that it is not told whose a key is: from Redis 7.0 on it is,
// where the Store has counted the connections and the server has proven it.
func (c *Command) IsPlain() bool {
	return c.Kind == Acquire && !c.Script && len(c.Claim.Keys) == 1 && c.Claim.asked == nil
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
func (c *Command) form(seen shown) form {
	if c.Kind == Look {
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
func (s *Redis) read(c *Command, able *ability, seen shown, result rueidis.RedisResult) error {
	c.Outcome, c.Err = Unknown, nil
	if err := result.NonRedisError(); err != nil {
		c.Err = wireError(err)
		return c.Err
	}
	sent := c.form(seen)
	switch {
	case sent == asSetGet:
		c.Outcome, c.Err = c.readSetGet(result)
	case sent == asSet:
		c.Outcome, c.Err = readSet(result)
	case c.Entry != nil:
		c.Outcome, c.Err = c.readPlace(result)
	case c.Kind == Acquire || c.Kind == Read:
		c.Outcome, c.Err = c.readOwner(result)
	default:
		c.Outcome, c.Err = c.readNumber(result)
	}
	if c.Err != nil {
		s.judge(c, able, seen, result.Error())
	}
	return nil
}

// judge completes the error of c, to which the server answered with answer if that is an error, and draws what it says
// of the server.
func (s *Redis) judge(c *Command, able *ability, seen shown, answer error) {
	sent := c.form(seen)
	switch {
	case isDenial(answer):
		c.Err = c.denied(sent, answer)
		if sent == asScript { // a plain SET must not leave what no script can delete
			able.reset()
		}
	case isDemotion(answer):
		c.Err = s.isReplica(c.Err)
		s.demoted.Store(true)
	}
	switch {
	case surelyNotRun(answer):
		c.Err = NotRun(c.Err)
	case sent == asSetGet: // it does not know GET there, or takes no notice of it
		able.raise(seen, mute)
	}
}

// readNumber reads an answer that is a number: those of the other scripts, and of EXISTS.
func (c *Command) readNumber(result rueidis.RedisResult) (Outcome, error) {
	n, err := result.ToInt64()
	if err != nil {
		return Unknown, discreet(err)
	}
	keys, fenced := int64(len(c.Claim.Keys)), c.Claim.Fenced()
	switch c.Kind {
	case Acquire:
		switch {
		case n < 0:
			return Unknown, quarantined(-n)
		case fenced && n >= c.Claim.Terms().Floor:
			c.Fence = n
			return Done, nil
		case !fenced && n == 1:
			return Done, nil
		}
	case Confirm:
		switch {
		case n == 0:
			return Refused, nil
		case n >= c.Fence:
			c.Fence = n
			return Done, nil
		}
	case Extend:
		switch {
		case n < 0:
			return Unknown, quarantined(-n)
		case n <= 2:
			return [...]Outcome{Refused, Done, Refilled}[n], nil
		}
	case Look:
		if n == 0 || n == 1 {
			return [...]Outcome{Done, Refused}[n], nil
		}
	case Release, Leave:
		switch {
		case n == keys:
			return Done, nil
		case n >= 0 && n < keys:
			return Refused, nil
		}
	case Trust, Ping, Read:
		if n == 1 {
			return Done, nil
		}
	}
	return Unknown, fmt.Errorf("unexpected reply: %d", n)
}

// readOwner reads the answer of acquire.lua and owner.lua.
func (c *Command) readOwner(result rueidis.RedisResult) (Outcome, error) {
	answer, err := result.ToArray()
	if err != nil { // it is none: what it is, and what errors are, readNumber says
		return c.readNumber(result)
	}
	if len(answer) == 2 && answer[1].IsString() {
		if n, err := answer[0].ToInt64(); err == nil && n == 0 {
			c.Owner, err = answer[1].ToString()
			if c.Owner == "" {
				c.Owner = Foreign
			}
			return Refused, err
		}
	}
	return Unknown, errors.New("unexpected reply to the question who owns a key")
}

func readSet(result rueidis.RedisResult) (Outcome, error) {
	reply, err := result.ToMessage()
	if rueidis.IsRedisNil(err) {
		return Refused, nil
	}
	if err != nil {
		return Unknown, discreet(err)
	}
	if text, err := reply.ToString(); !reply.IsString() || err != nil || text != "OK" {
		return Unknown, errors.New("unexpected reply to SET")
	}
	return Done, nil
}

// readSetGet reads the answer to a SET with GET: what the key holds, or nil if it was free.
func (c *Command) readSetGet(result rueidis.RedisResult) (Outcome, error) {
	reply, err := result.ToMessage()
	switch {
	case rueidis.IsRedisNil(err):
		return Done, nil
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE "):
		c.Owner = Foreign
		return Refused, nil
	case err != nil:
		return Unknown, discreet(err)
	}
	owner, err := reply.ToString()
	switch {
	case !reply.IsString() || err != nil:
		return Unknown, errors.New("unexpected reply to SET")
	case owner == "OK":
		return Unknown, errors.New("the server did not honour GET of SET")
	}
	if c.Owner = owner; owner == "" {
		c.Owner = Foreign
	}
	return Refused, nil
}

// readPlace reads the answer of join.lua.
func (c *Command) readPlace(result rueidis.RedisResult) (Outcome, error) {
	answer, err := result.ToArray()
	if err != nil {
		return Unknown, discreet(err)
	}
	var numbers [3]int64
	for i := range min(len(answer), len(numbers)) {
		if numbers[i], err = answer[i].ToInt64(); err != nil {
			return Unknown, errPlace
		}
	}
	switch state, value, rank := numbers[0], numbers[1], numbers[2]; {
	case len(answer) == 2 && state == 1 && value >= c.Entry.Floor && (value > 0) == c.Claim.Fenced():
		c.Fence = value
		return Done, nil
	case len(answer) == 2 && state == -1 && value > 0:
		return Unknown, quarantined(value)
	case len(answer) == 4 && state == 0:
		if c.Owner, err = answer[3].ToString(); err == nil {
			c.Held, c.Rank = time.Duration(value)*time.Millisecond, int(rank)
			return Refused, nil
		}
	}
	return Unknown, errPlace
}

var errPlace = errors.New("unexpected reply of a queue")

// isToRepeat reports whether c is to be sent again, whole. A server that answers NOSCRIPT
// has not run it, so that is safe, as is asking a Ping in another way.
func (s *Redis) isToRepeat(c *Command, result rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(result.Error())
	if !ok {
		return false
	}
	if c.Kind == Ping && strings.HasPrefix(err.Error(), "Error compiling script") {
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
