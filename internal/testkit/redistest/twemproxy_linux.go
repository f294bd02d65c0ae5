package redistest

import (
	"fmt"
	"strings"
	"testing"
)

// Twemproxy is a nutcracker, which spreads keys over servers by their hash tags. It speaks
// RESP2 alone, and ends a connection that sends a command it does not know: HELLO, CLIENT,
// SUBSCRIBE, INFO, TIME, SCRIPT, or EVAL without a key.
type Twemproxy struct{ *part }

// StartTwemproxy starts a twemproxy in front of servers.
func StartTwemproxy(t testing.TB, servers ...*Server) *Twemproxy {
	t.Helper()
	return &Twemproxy{startPart(t, "nutcracker", "nutcracker", func(p *part) (string, []string, error) {
		lines := []string{
			"pool:",
			"  listen: " + p.addr,
			"  redis: true",
			"  hash: fnv1a_64",
			`  hash_tag: "{}"`,
			"  distribution: ketama", // the default
			"  auto_eject_hosts: false",
			"  servers:",
		}
		for i, s := range servers {
			lines = append(lines, fmt.Sprintf("   - %s:1 server%d", s.addr, i))
		}
		// It must listen for statistics too.
		stats, err := freeAddr()
		return strings.Join(lines, "\n") + "\n", []string{"-c", p.configFile(), "-a", "127.0.0.1", "-s", portOf(stats)}, err
	})}
}
