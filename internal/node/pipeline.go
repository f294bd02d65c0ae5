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
	keys, token := c.Claim.Keys, c.Claim.Token
	if c.Kind == Acquire && len(keys) == 1 {
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL)).Build()
	}
	if c.Kind == Look {
		return client.B().Arbitrary("EXISTS").Keys(keys[0] + queueSuffix).Build()
	}
	script := scripts[c.Kind]
	command := client.B().Arbitrary("EVALSHA", script.digest)
	if whole {
		command = client.B().Arbitrary("EVAL", script.text)
	}
	if len(keys) == 1 { // no slice
		command = command.Args("1").Keys(keys[0]).Args(token)
	} else {
		command = command.Args(strconv.Itoa(len(keys))).Keys(keys...).Args(token)
	}
	switch {
	case c.Entry != nil:
		e := c.Entry
		command = command.Args(strconv.FormatInt(e.Number, 10), strconv.FormatInt(e.Order, 10), e.Channel, millis(e.Window), millis(e.Lease))
	case !c.releases():
		command = command.Args(s.ttl.of(c.TTL))
	}
	return command.Build()
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
	if c.Kind == Acquire && len(c.Claim.Keys) == 1 {
		c.Outcome, c.Err = readSet(result)
		return nil
	}
	if c.Entry != nil {
		c.Outcome, c.Err = c.readPlace(result)
		return nil
	}
	n, err := result.ToInt64()
	switch {
	case err != nil:
		c.Err = discreet(err)
	case c.releases() && n >= 0 && n <= int64(len(c.Claim.Keys)):
		c.Outcome = Refused
		if n == int64(len(c.Claim.Keys)) {
			c.Outcome = Done
		}
	case c.Kind == Look && n == 0:
		c.Outcome = Done
	case c.Kind == Look && n == 1:
		c.Outcome = Refused
	case n == 0 && !c.releases():
		c.Outcome = Refused
	case n == 1 && !c.releases():
		c.Outcome = Done
	case n == 2 && c.Kind == Extend:
		c.Outcome = Refilled
	default:
		c.Err = fmt.Errorf("unexpected reply to a script: %d", n)
	}
	return nil
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
	var yours int64
	if len(answer) > 0 {
		yours, err = answer[0].ToInt64()
	}
	switch {
	case err == nil && yours == 1 && len(answer) == 1:
		return Done, nil
	case err != nil || yours != 0 || len(answer) != 3:
		return Unknown, errors.New("unexpected reply of a queue")
	}
	held, err := answer[1].ToInt64()
	owner, err2 := answer[2].ToString()
	if err != nil || err2 != nil {
		return Unknown, errors.New("unexpected reply of a queue")
	}
	c.Held, c.Owner = time.Duration(held)*time.Millisecond, owner
	return Refused, nil
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
