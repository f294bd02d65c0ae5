package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	var results []rueidis.RedisResult
	if len(batch) == 1 { // spares the results' slice
		result := client.Do(ctx, s.command(client, &batch[0], false))
		err = s.read(&batch[0], result)
		if !isNoScript(result) {
			return s.connection(client, err)
		}
		results = []rueidis.RedisResult{result}
	} else {
		commands := make([]rueidis.Completed, len(batch))
		for i := range batch {
			commands[i] = s.command(client, &batch[i], false)
		}
		results = client.DoMulti(ctx, commands...)
		for i := range batch {
			err = s.read(&batch[i], results[i])
		}
	}
	// A server that answers NOSCRIPT has not run it, so sending it again, whole,
	// is safe.
	var unknown []int
	var again []rueidis.Completed
	for i, result := range results {
		if isNoScript(result) {
			unknown = append(unknown, i)
			again = append(again, s.command(client, &batch[i], true))
		}
	}
	if len(again) > 0 {
		for j, result := range client.DoMulti(ctx, again...) {
			err = s.read(&batch[unknown[j]], result)
		}
	}
	return s.connection(client, err)
}

// connection returns the error that the last command of a pipeline found the
// connection in.
func (s *Redis) connection(client rueidis.Client, err error) error {
	if s.topology != nil {
		s.topology.refresh(client, err != nil)
	}
	return err
}

// command builds what is sent for c: with its scripts whole, or by their digest.
func (s *Redis) command(client rueidis.Client, c *Command, whole bool) rueidis.Completed {
	keys, token, terms := c.Claim.Keys, c.Claim.Token, c.Claim.Terms()
	if c.IsPlain() {
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL)).Build()
	}
	if c.Kind == Ping { // the server takes the key for a text that it is to repeat
		return client.B().Arbitrary("PING").Keys(keys[0]).Build()
	}
	if c.Kind == Look {
		return client.B().Arbitrary("EXISTS").Keys(keys[0] + queueSuffix).Build()
	}
	script := scripts[c.Kind]
	command := client.B().Arbitrary("EVALSHA", script.digest)
	if whole {
		command = client.B().Arbitrary("EVAL", script.text)
	}
	if c.Claim.Fenced() && (c.Kind == Acquire || c.Kind == Confirm) {
		keys = c.Claim.asked.counted
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

// IsPlain reports whether c needs no script: then it is not told whose a key is.
func (c *Command) IsPlain() bool {
	return c.Kind == Acquire && !c.Script && len(c.Claim.Keys) == 1 && c.Claim.asked == nil
}

// read fills in what came of c, and returns the error of the connection. Only the
// very answers that the commands give are taken for one: whatever else comes is
// an error, after which the keys may be there.
func (s *Redis) read(c *Command, result rueidis.RedisResult) error {
	c.Outcome, c.Err = Unknown, nil
	if err := result.NonRedisError(); err != nil {
		c.Err = wireError(err)
		return c.Err
	}
	switch {
	case c.IsPlain():
		c.Outcome, c.Err = readSet(result)
	case c.Entry != nil:
		c.Outcome, c.Err = c.readPlace(result)
	case c.Kind == Ping:
		c.Outcome, c.Err = c.readEcho(result)
	case c.Kind == Acquire || c.Kind == Read:
		c.Outcome, c.Err = c.readOwner(result)
	default:
		c.Outcome, c.Err = c.readNumber(result)
	}
	return nil
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
	case Trust, Read:
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
		if surelyNotRun(err) {
			return Unknown, NotRun(discreet(err))
		}
		return Unknown, discreet(err)
	}
	if text, err := reply.ToString(); !reply.IsString() || err != nil || text != "OK" {
		return Unknown, errors.New("unexpected reply to SET")
	}
	return Done, nil
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

// readEcho reads the answer to PING.
func (c *Command) readEcho(result rueidis.RedisResult) (Outcome, error) {
	switch text, err := result.ToString(); {
	case err != nil:
		return Unknown, discreet(err)
	case text != c.Claim.Keys[0]:
		return Unknown, errors.New("unexpected reply to PING")
	}
	return Done, nil
}

func isNoScript(result rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(result.Error())
	return ok && err.IsNoScript()
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
