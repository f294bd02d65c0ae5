package redisnode

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// read fills in the outcome of c, and returns the error of the connection. It accepts only the
// exact answers that the commands give. Any other answer is an error, after which the keys may
// be there.
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

// judge completes the error of c, and applies what it shows of the server. answer is the
// server's answer, if that was an error.
func (s *Redis) judge(c *node.Command, able *ability, seen shown, answer error) {
	sent := formOf(c, seen)
	switch {
	case isDenial(answer):
		c.Err = node.Denied(denied(c, sent, answer))
		if sent == asScript { // a plain SET must not leave what no script can delete
			able.reset()
		}
	case isDemotion(answer):
		c.Err = s.isReplica(c.Err)
		s.demoted.Store(true)
	case isRedirection(answer):
		c.Err = s.isOfCluster(c.Err)
	case isMigration(answer):
		c.Err = node.Migrating(c.Err)
	}
	c.Err = lacking(c, sent, answer)
	switch {
	case surelyNotRun(answer):
		c.Err = node.NotRun(c.Err)
	case sent == asSetGet: // the server does not know GET there, or ignores it
		able.note(seen, mute)
	}
}

// readNumber reads the answer of the other scripts, and of EXISTS: a number.
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
		case fenced && n >= c.Claim.Options().Floor:
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
	if err != nil { // a number, or an error
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
	return node.Unknown, errors.New("unexpected reply of a script that names the owner of a key")
}

// readSet reads the answer to a SET: OK, or nil if the key is held.
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

// readSetGet reads the answer to a SET with GET: the value of the key, or nil if it was free.
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
		return node.Unknown, errors.New("the server ignored GET in SET")
	}
	if c.Owner = owner; owner == "" {
		c.Owner = node.Foreign
	}
	return node.Refused, nil
}

// readJoin reads the answer of join.lua.
func readJoin(c *node.Command, result rueidis.RedisResult) (node.Outcome, error) {
	answer, err := result.ToArray()
	if err != nil {
		return node.Unknown, discreet(err)
	}
	var numbers [3]int64
	for i := range min(len(answer), len(numbers)) {
		if numbers[i], err = answer[i].ToInt64(); err != nil {
			return node.Unknown, errJoinReply
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
	return node.Unknown, errJoinReply
}

var errJoinReply = errors.New("unexpected reply of a queue")

// quarantined returns the error of a node that does not vote for another ms milliseconds.
func quarantined(ms int64) error {
	return &node.Quarantined{Until: time.Now().Add(time.Duration(ms) * time.Millisecond)}
}
