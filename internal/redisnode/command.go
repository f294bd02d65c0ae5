package redisnode

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// command builds the command of Redis that is sent for c. A script is sent whole, or by its
// digest.
func (s *Redis) command(client rueidis.Client, c *node.Command, seen shown, whole bool) rueidis.Completed {
	var room [5]string
	keys, token, options := c.Declared(room[:0]), c.Claim.Token, c.Claim.Options()
	switch formOf(c, seen) {
	case asSet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL)).Build()
	case asSetGet:
		return client.B().Arbitrary("SET").Keys(keys[0]).Args(token, "NX", "PX", s.ttl.of(c.TTL), "GET").Build()
	case asExists:
		return client.B().Arbitrary("EXISTS").Keys(keys...).Build()
	}
	script := scripts[c.Kind]
	if c.Kind == node.Ping && s.oldLua.Load() {
		script = ping6
	}
	command := client.B().Arbitrary("EVALSHA", script.digest)
	if whole {
		command = client.B().Arbitrary("EVAL", script.text)
	}
	if c.Kind == node.Ping { // its key names the server
		key := c.Claim.Keys[0]
		if s.resp2 && !s.keyless.Load() {
			return command.Args("1").Keys(key).Args(key).Build()
		}
		return command.Args("0").Keys(key).Build() // the server takes it for no key
	}
	if len(keys) == 1 { // no slice
		command = command.Args("1").Keys(keys[0]).Args(token)
	} else {
		command = command.Args(strconv.Itoa(len(keys))).Keys(keys...).Args(token)
	}
	floor, retention := "0", "0"
	if c.Claim.Fenced() {
		floor, retention = c.Claim.FloorText(), s.retention.of(options.Retention)
	}
	switch c.Kind {
	case node.Acquire:
		command = command.Args(s.ttl.of(c.TTL), strconv.Itoa(len(c.Claim.Keys)), floor, retention, s.quarantine.of(options.Quarantine))
	case node.Confirm:
		command = command.Args(strconv.FormatInt(c.Fence, 10), retention)
	case node.Extend:
		command = command.Args(s.ttl.of(c.TTL), s.quarantine.of(options.Quarantine))
	case node.Join:
		e := c.Entry
		if c.Claim.Fenced() {
			floor = strconv.FormatInt(e.Floor, 10)
		}
		command = command.Args(strconv.FormatInt(e.Number, 10), strconv.FormatInt(e.Order, 10), millis(e.Waited), s.channel(e), c.Nonce, millis(e.Window),
			millis(e.Lease), floor, retention, s.quarantine.of(options.Quarantine))
	}
	return command.Build()
}

// channel returns the channel of an entry as queue.lua takes it.
func (s *Redis) channel(e *node.Entry) string {
	if s.topology != nil {
		return "S " + e.Channel
	}
	return "P " + e.Channel
}

// form is the kind of Redis command that a command is sent as.
type form uint8

const (
	asScript form = iota
	asSet
	asSetGet
	asExists
)

// formOf returns the form of c for a server that has shown seen.
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

// isToRepeat reports whether c is to be sent again, whole. That is safe: a server that answers
// NOSCRIPT has not run the script, and a Ping sets nothing.
func (s *Redis) isToRepeat(c *node.Command, result rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(result.Error())
	if !ok {
		return false
	}
	if c.Kind == node.Ping && strings.HasPrefix(err.Error(), "Error compiling script") {
		s.oldLua.Store(true)
		return true
	}
	if c.Kind == node.Ping && s.resp2 && strings.HasPrefix(err.Error(), "NOPERM ") {
		s.keyless.Store(true) // those of locks it may have access to
		return true
	}
	return err.IsNoScript()
}

// ttlText formats ttls, and remembers the last text: most locks of a process have the same ttl.
// The zero value is ready for use.
type ttlText struct {
	last atomic.Pointer[ttlAndText]
}

type ttlAndText struct {
	ttl  time.Duration
	text string
}

// of returns ttl in whole milliseconds, rounded up: a key never lives shorter than the validity
// that is counted from its ttl.
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
