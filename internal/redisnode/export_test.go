package redisnode

// Open is how many connections of a Store are open.
func Open(s *Redis) int {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	return len(s.connections.open)
}
