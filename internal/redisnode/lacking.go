package redisnode

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/redis-kit/redlock/internal/node"
)

// lacking returns the error of c with what needs the command that the server refused, and what
// works without it, if the answer to c shows which command that is. If no lock of the Locker
// works without it, the error is marked as node.ErrLacking.
func lacking(c *node.Command, sent form, answer error) error {
	needed, always := needs(c, sent, answer)
	switch {
	case needed == "":
		return c.Err
	case always:
		return node.Lacking(fmt.Errorf("%w (%s)", c.Err, needed))
	}
	return fmt.Errorf("%w (%s)", c.Err, needed)
}

// needs says what needs the command that the server refused, and whether every lock does.
func needs(c *node.Command, sent form, answer error) (needed string, always bool) {
	text, code := answered(answer)
	if sent != asScript || text == "" || code == "NOSCRIPT" { // which advises EVAL
		return "", false
	}
	if said := discreet(answer).Error(); !inScript(text) {
		if scripting.MatchString(said) && !strings.Contains(said, "access a key") { // which may be named eval
			return "every lock needs EVALSHA and EVAL: nothing works without them", true
		}
		return "", false
	}
	line := failedLine(scripts[c.Kind].text, text)
	guarded := c.Claim.Options().Quarantine > 0 || c.Kind == node.Trust
	switch {
	case strings.Contains(line, "redis.call('INFO'"):
		return "WithRestartGuard needs INFO in scripts; without that option locks, queues and fences work", true
	case !strings.Contains(line, "redis.call('TIME'"):
	case guarded:
		return "WithRestartGuard needs TIME in scripts; without that option locks and fences work, and waits poll", true
	case c.Kind == node.Join:
		return "queues need TIME in scripts; without them waits poll", false
	}
	return "", false
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
