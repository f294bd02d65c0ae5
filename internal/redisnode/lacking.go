package redisnode

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/redis-kit/redlock/internal/node"
)

// lacking says which command the server refused, if its answer to c shows that, with what needs
// the command and what works without it. Otherwise it returns "".
func lacking(c *node.Command, sent form, answer error) string {
	text, code := answered(answer)
	if sent != asScript || text == "" || code == "NOSCRIPT" { // which advises EVAL
		return ""
	}
	if said := discreet(answer).Error(); !inScript(text) {
		if scripting.MatchString(said) && !strings.Contains(said, "access a key") { // which may be named eval
			return "every lock needs EVALSHA and EVAL: nothing works without them"
		}
		return ""
	}
	line := failedLine(scripts[c.Kind].text, text)
	guarded := c.Claim.Options().Quarantine > 0 || c.Kind == node.Trust
	switch {
	case strings.Contains(line, "redis.call('INFO'"):
		return "WithRestartGuard needs INFO in scripts; without that option locks, queues and fences work"
	case !strings.Contains(line, "redis.call('TIME'"):
	case guarded:
		return "WithRestartGuard needs TIME in scripts; without that option locks and fences work, and waits poll"
	case c.Kind == node.Join:
		return "queues need TIME in scripts; without them waits poll"
	}
	return ""
}

var (
	scripting  = regexp.MustCompile(`(?i)\beval(sha)?\b`)
	userScript = regexp.MustCompile(`@user_script: ?(\d+)`)
)

// failedLine returns the line of a script that a server's error names; "" if it names none.
func failedLine(script, text string) string {
	found := userScript.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	lines := strings.Split(script, "\n")
	n, err := strconv.Atoi(found[1])
	if err != nil || n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}
