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
func (s *Backend) Counters() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for key := range s.counters {
		if s.counted(key) > 0 {
			n++
		}
	}
	return n
}

// Counter returns the counter of a key's fences, 0 if there is none.
func (s *Backend) Counter(key string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counted(node.Counter(key))
}

// Count sets the counter of a key's fences to value.
func (s *Backend) Count(key string, value int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(node.Counter(key), value, time.Hour)
}

func (s *Backend) counted(key string) int64 {
	if c := s.counters[key]; time.Now().Before(c.expires) {
		return c.value
	}
	return 0
}

func (s *Backend) count(key string, value int64, retention time.Duration) {
	if s.counters == nil {
		s.counters = make(map[string]counter)
	}
	s.counters[key] = counter{value, time.Now().Add(s.local(retention))}
}

// raise sets the counters of the keys to one number, at least fence and by step above each of
// them, and returns it. Without a fence in terms it returns 0.
func (s *Backend) raise(keys []string, terms node.Terms, fence, step int64) int64 {
	if terms.Floor == 0 {
		return 0
	}
	for _, key := range keys {
		fence = max(fence, s.counted(node.Counter(key))+step)
	}
	for _, key := range keys {
		s.count(node.Counter(key), fence, terms.Retention)
	}
	return fence
}

func (s *Backend) confirm(c *node.Command) node.Outcome {
	for _, key := range c.Claim.Keys {
		if token, held := s.get(key); !held || token != c.Claim.Token {
			return node.Refused
		}
	}
	c.Fence = s.raise(c.Claim.Keys, c.Claim.Terms(), c.Fence, 0)
	return node.Done
}

// quarantined returns how long the node must not vote: see internal/redisnode/guard.lua. Wipe
// stands for a restart.
func (s *Backend) quarantined(quarantine time.Duration) time.Duration {
	if quarantine == 0 {
		return 0
	}
	if !s.marked {
		s.marked, s.since = true, time.Now()
	}
	return max(0, time.Until(s.since.Add(s.local(quarantine))))
}

// Trust ends the node's quarantine, as trust.lua does.
func (s *Backend) Trust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust()
}

func (s *Backend) trust() { s.marked, s.since = true, time.Time{} }

// Votes reports whether the node votes under a restart guard.
func (s *Backend) Votes(quarantine time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marked && s.quarantined(quarantine) == 0
}

// refuse answers c on a node that does not vote for left.
func refuse(c *node.Command, left time.Duration) node.Outcome {
	c.Err = &node.Quarantined{Until: time.Now().Add(left)}
	return node.Unknown
}
