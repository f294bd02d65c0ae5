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

	// The parts that others include:
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
		// From Redis 7 on a server where scripts may not write refuses a script that begins with
		// #! as a whole, before it touches a key. An older server answers that it does not
		// compile.
		node.Ping: newScript(pingText),
		node.Read: newScript(ownerText),
	}
	ping6 = newScript(ping6Text)
)

// script is a Lua script that is sent by its digest, and whole only if the server does not know
// it. rueidis.Lua does this for one call; for many it loads the script again each time, which
// costs a round trip.
type script struct {
	text, digest string
	commands     []string // the commands that it runs, sorted
}

var calls = regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)

// newScript replaces each line of text that names a part by that part.
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
