package redisnode

import (
	"testing"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// Open returns the number of open connections that Dial has made for s.
func Open(s *Redis) int {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	return len(s.connections.open)
}

// SetSubscribeTime sets how long a server of a Cluster may take to answer SSUBSCRIBE, until the test ends.
func SetSubscribeTime(t testing.TB, d time.Duration) {
	before := subscribeTime
	t.Cleanup(func() { subscribeTime = before })
	subscribeTime = d
}

// ChangeScripts changes the text of each script, by its file's name, until the test ends. A part
// that scripts include stands in their texts.
func ChangeScripts(t testing.TB, change func(name, text string) string) {
	before := scripts
	t.Cleanup(func() { scripts = before })
	for kind, name := range [...]string{
		node.Acquire: "acquire.lua", node.Extend: "extend.lua", node.Release: "release.lua", node.Leave: "leave.lua", node.Join: "join.lua",
		node.Confirm: "confirm.lua", node.Trust: "trust.lua", node.Ping: "ping.lua", node.Read: "owner.lua",
	} {
		if name != "" { // Look has no script
			scripts[kind] = newScript(change(name, scripts[kind].text))
		}
	}
}
