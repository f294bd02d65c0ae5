package sim

import (
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// counter counts the fences of a key: see internal/node/fence.lua, which this
// follows.
type counter struct {
	value   int64
	expires time.Time
}

// Counters is the number of counters of fences.
func (s *Store) Counters() int {
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

// Counter is the counter of a key's fences, 0 if there is none.
func (s *Store) Counter(key string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counted(node.Counter(key))
}

// Count sets the counter of a key's fences.
func (s *Store) Count(key string, value int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(node.Counter(key), value, time.Hour)
}

func (s *Store) counted(key string) int64 {
	if c := s.counters[key]; time.Now().Before(c.expires) {
		return c.value
	}
	return 0
}

func (s *Store) count(key string, value int64, retention time.Duration) {
	if s.counters == nil {
		s.counters = make(map[string]counter)
	}
	s.counters[key] = counter{value, time.Now().Add(s.local(retention))}
}

func (s *Store) raise(keys []string, terms node.Terms, fence, step int64) int64 {
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

func (s *Store) confirm(c *node.Command) node.Outcome {
	for _, key := range c.Claim.Keys {
		if token, held := s.get(key); !held || token != c.Claim.Token {
			return node.Refused
		}
	}
	c.Fence = s.raise(c.Claim.Keys, c.Claim.Terms(), c.Fence, 0)
	return node.Done
}

// quarantined is for how long the node must not vote: see
// internal/node/guard.lua. A Store is restarted by Wipe.
func (s *Store) quarantined(quarantine time.Duration) time.Duration {
	if quarantine == 0 {
		return 0
	}
	if !s.marked {
		s.marked, s.since = true, time.Now()
	}
	return max(0, time.Until(s.since.Add(s.local(quarantine))))
}

// Trust ends the node's quarantine, as trust.lua does.
func (s *Store) Trust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust()
}

func (s *Store) trust() { s.marked, s.since = true, time.Time{} }

// Votes reports whether the node votes, under a restart guard.
func (s *Store) Votes(quarantine time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marked && s.quarantined(quarantine) == 0
}

func refuse(c *node.Command, left time.Duration) node.Outcome {
	c.Err = &node.Quarantined{Until: time.Now().Add(left)}
	return node.Unknown
}
