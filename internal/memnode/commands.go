package memnode

import (
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// This file follows acquire.lua, owner.lua, extend.lua and release.lua of internal/redisnode.

func (b *Backend) acquire(c *node.Command) node.Outcome {
	left := b.quarantined(c.Claim.Options().Quarantine)
	ours := 0
	for _, key := range c.Claim.Keys {
		switch owner, held := b.get(key); {
		case !held:
		case owner != c.Claim.Token || c.IsPlain():
			if !c.IsPlain() || !b.Mute {
				c.Owner = owner
			}
			return node.Refused
		default:
			ours++
		}
	}
	if ours == len(c.Claim.Keys) {
		c.Owner = c.Claim.Token
		return node.Refused
	}
	if left > 0 {
		return refuse(c, left)
	}
	c.Fence = b.raise(c.Claim.Keys, c.Claim.Options(), c.Claim.Options().Floor, 1)
	for _, key := range c.Claim.Keys {
		b.set(key, c.Claim.Token, c.TTL)
	}
	return node.Done
}

func (b *Backend) read(c *node.Command) node.Outcome {
	for _, key := range c.Claim.Keys {
		if owner, held := b.get(key); held {
			c.Owner = owner
			return node.Refused
		}
	}
	return node.Done
}

func (b *Backend) extend(c *node.Command) node.Outcome {
	outcome := node.Done
	for _, key := range c.Claim.Keys {
		switch token, held := b.get(key); {
		case !held:
			outcome = node.Refilled
		case token != c.Claim.Token:
			return node.Refused
		}
	}
	if outcome == node.Refilled {
		if left := b.quarantined(c.Claim.Options().Quarantine); left > 0 {
			return refuse(c, left)
		}
	}
	for _, key := range c.Claim.Keys {
		if _, held := b.get(key); !held || b.keys[key].expires.Before(time.Now().Add(b.local(c.TTL))) {
			b.set(key, c.Claim.Token, c.TTL)
		}
	}
	return outcome
}

func (b *Backend) release(c *node.Command) node.Outcome {
	outcome := node.Done
	for _, key := range c.Claim.Keys {
		if token, held := b.get(key); held && token == c.Claim.Token {
			delete(b.keys, key)
		} else {
			outcome = node.Refused
		}
	}
	return outcome
}
