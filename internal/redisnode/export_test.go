package redisnode

// Open returns the number of open connections that Dial has made for s.
func Open(s *Redis) int {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	return len(s.connections.open)
}
