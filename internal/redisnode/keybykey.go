package redisnode

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// A command of several keys that was refused for what it declares beside one of them is sent
// again key by key:
//
//   - A Cluster that migrates a slot answers TRYAGAIN if some of the keys are missing where it
//     looks. Locks that are held must live through that.
//   - A user who may not access the companions of a key is refused its Leave, whose script
//     declares them. The key must be released all the same.
//
// That is safe. A server that has refused the command for its keys has run nothing. An extension
// counts only if each key was ours when it was extended, and each then lives for the ttl from a
// time after the round's start (invariants 1, 3). A release deletes each key independently, in
// one script or in several. But an extension of several keys that is refused changes nothing,
// and one key by key may have set some; and a Leave also takes the claim out of the queue: see
// Command.Partial.

// isToSplit reports whether c is to be sent again key by key.
func isToSplit(c *node.Command, result rueidis.RedisResult) bool {
	if c.Kind != node.Leave && (c.Kind != node.Release && c.Kind != node.Extend || len(c.Claim.Keys) == 1) {
		return false
	}
	text, code := answered(result.Error())
	return code == "TRYAGAIN" || c.Kind == node.Leave && code == "NOPERM" && !inScript(text)
}

// splitAll sends those commands of a batch again that are to be sent key by key, and fills in
// their results. It returns err, or the connection's error if there was a later one.
func (s *Redis) splitAll(ctx context.Context, client rueidis.Client, batch []node.Command, results []rueidis.RedisResult, able *ability, seen shown, err error) error {
	for i := range batch {
		if c := &batch[i]; isToSplit(c, results[i]) {
			err = s.split(ctx, client, c, able, seen)
		}
	}
	return err
}

// split sends c key by key, and returns the connection's error.
func (s *Redis) split(ctx context.Context, client rueidis.Client, c *node.Command, able *ability, seen shown) (err error) {
	kind := c.Kind
	if kind == node.Leave {
		kind = node.Release
	}
	parts, commands := make([]node.Command, len(c.Claim.Keys)), make([]rueidis.Completed, len(c.Claim.Keys))
	for i := range parts {
		claim := node.NewClaim(c.Claim.Keys[i:i+1], c.Claim.Token, 1)
		claim.Ask(c.Claim.Options())
		parts[i] = node.Command{Kind: kind, Claim: claim, TTL: c.TTL}
		commands[i] = s.command(client, &parts[i], seen, true) // whole: the server that the slot moves to may not know the script
	}
	for i, result := range client.DoMulti(ctx, commands...) {
		err = s.read(&parts[i], able, seen, result)
	}
	combine(c, parts)
	return err
}

// combine makes the result of c of those of its parts.
func combine(c *node.Command, parts []node.Command) {
	c.Outcome, c.Err, c.Partial = node.Done, nil, false
	var failed *node.Command
	for i := range parts {
		p := &parts[i]
		switch p.Outcome {
		case node.Unknown:
			failed = p
			c.Partial = c.Partial || !errors.Is(p.Err, node.ErrNotRun)
		case node.Refused:
			c.Outcome = node.Refused
			c.Partial = c.Partial || c.Kind == node.Leave // the claim may be in the queue though it has no key
		default:
			c.Partial = true
			if p.Outcome == node.Refilled && c.Outcome == node.Done {
				c.Outcome = node.Refilled
			}
		}
	}
	switch {
	case failed == nil || c.Outcome == node.Refused && c.Kind == node.Extend: // a refused key decides
	case len(parts) == 1:
		c.Outcome, c.Err = node.Unknown, failed.Err
	case c.Partial: // unlike the key that failed, another may have been set: this is no ErrNotRun
		c.Outcome, c.Err = node.Unknown, fmt.Errorf("key %q: %v", failed.Claim.Keys[0], failed.Err)
	default:
		c.Outcome, c.Err = node.Unknown, fmt.Errorf("key %q: %w", failed.Claim.Keys[0], failed.Err)
	}
}
