package redisnode

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/redis-kit/redlock/internal/node"
)

var (
	//go:embed acquire.lua
	acquireText string
	//go:embed extend.lua
	extendText string
	//go:embed release.lua
	releaseText string
	//go:embed leave.lua
	leaveText string
	//go:embed join.lua
	joinText string
	//go:embed confirm.lua
	confirmText string
	//go:embed trust.lua
	trustText string
	//go:embed ping.lua
	pingText string
	//go:embed ping6.lua
	ping6Text string
	//go:embed owner.lua
	ownerText string

	// What others include:
	//go:embed queue.lua
	queueText string
	//go:embed fence.lua
	fenceText string
	//go:embed guard.lua
	guardText string

	scripts = [...]script{
		node.Acquire: newScript(acquireText),
		node.Extend:  newScript(extendText),
		node.Release: newScript(releaseText),
		node.Leave:   newScript(leaveText),
		node.Join:    newScript(joinText),
		node.Confirm: newScript(confirmText),
		node.Trust:   newScript(trustText),
		// A script that begins with #! is refused as a whole where scripts may not write, from
		// Redis 7 on, and touches no key. Servers before that say that it does not compile.
		node.Ping: newScript(pingText),
		node.Read: newScript(ownerText),
	}
	ping6 = newScript(ping6Text)
)

// script is a Lua script that is sent by its digest, and whole only where the
// server does not know it. rueidis.Lua does this for one call; for many it
// loads the script anew each time, which costs a round trip.
type script struct {
	text, digest string
	commands     []string // that it runs, sorted
}

var calls = regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)

// newScript puts the parts where text asks for them.
func newScript(text string) script {
	text = strings.Replace(text, "--- queue.lua\n", queueText, 1)
	text = strings.Replace(text, "--- fence.lua\n", fenceText, 1)
	text = strings.Replace(text, "--- guard.lua\n", guardText, 1)
	sum := sha1.Sum([]byte(text))
	var commands []string
	for _, call := range calls.FindAllStringSubmatch(text, -1) {
		commands = append(commands, call[1])
	}
	slices.Sort(commands)
	return script{text, hex.EncodeToString(sum[:]), slices.Compact(commands)}
}
