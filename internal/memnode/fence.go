package memnode

import (
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// counter counts the fences of a key. This file follows internal/redisnode/fence.lua and
// guard.lua.
type counter struct {
	value   int64
	expires time.Time
}

// Counters returns the number of fence counters.
func (b *Backend) Counters() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for key := range b.counters {
		if b.counted(key) > 0 {
			n++
		}
	}
	return n
}

// Counter returns the counter of a key's fences, 0 if there is none.
func (b *Backend) Counter(key string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counted(node.Companion(key, node.Fence))
}

// Count sets the counter of a key's fences to value.
func (b *Backend) Count(key string, value int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count(node.Companion(key, node.Fence), value, time.Hour)
}

func (b *Backend) counted(key string) int64 {
	if c := b.counters[key]; time.Now().Before(c.expires) {
		return c.value
	}
	return 0
}

func (b *Backend) count(key string, value int64, retention time.Duration) {
	if b.counters == nil {
		b.counters = make(map[string]counter)
	}
	b.counters[key] = counter{value, time.Now().Add(b.local(retention))}
}

// raise sets the counters of the keys to one number, at least fence and by step above each of
// them, and returns it. Without a fence in options it returns 0.
func (b *Backend) raise(keys []string, options node.ClaimOptions, fence, step int64) int64 {
	if options.Floor == 0 {
		return 0
	}
	for _, key := range keys {
		fence = max(fence, b.counted(node.Companion(key, node.Fence))+step)
	}
	for _, key := range keys {
		b.count(node.Companion(key, node.Fence), fence, options.Retention)
	}
	return fence
}

func (b *Backend) confirm(c *node.Command) node.Outcome {
	for _, key := range c.Claim.Keys {
		if token, held := b.get(key); !held || token != c.Claim.Token {
			return node.Refused
		}
	}
	c.Fence = b.raise(c.Claim.Keys, c.Claim.Options(), c.Fence, 0)
	return node.Done
}

// quarantined returns how long the node must not vote: see internal/redisnode/guard.lua. Wipe
// stands for a restart.
func (b *Backend) quarantined(quarantine time.Duration) time.Duration {
	if quarantine == 0 {
		return 0
	}
	if !b.marked {
		b.marked, b.since = true, time.Now()
	}
	return max(0, time.Until(b.since.Add(b.local(quarantine))))
}

// Trust ends the node's quarantine, as trust.lua does.
func (b *Backend) Trust() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trust()
}

func (b *Backend) trust() { b.marked, b.since = true, time.Time{} }

// Votes reports whether the node votes under a restart guard.
func (b *Backend) Votes(quarantine time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.marked && b.quarantined(quarantine) == 0
}

// refuse answers c on a node that must not vote yet, for another left.
func refuse(c *node.Command, left time.Duration) node.Outcome {
	c.Err = &node.Quarantined{Until: time.Now().Add(left)}
	return node.Unknown
}
