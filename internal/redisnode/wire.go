package redisnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// surelyNotRun reports whether a server's error proves that a command did not run and never
// will or, of a script, that it changed nothing. Any other error may come from a proxy that has
// lost the answer.
func surelyNotRun(err error) bool {
	text, code := answered(err)
	switch code {
	case "OOM", "READONLY", "MISCONF", "NOREPLICAS": // of a script, at its first write
		return true
	}
	if inScript(text) {
		return false
	}
	switch code {
	case "NOPERM", "NOAUTH", "WRONGPASS", "MOVED", "ASK", "LOADING", "BUSY",
		"CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN", "MASTERDOWN", "DENIED":
		return true
	}
	return isUnknownCommand(text) || text == "max number of clients reached"
}

// answered returns the text of an error that a server has answered with, without its ERR, which
// rueidis cuts off, and the code at its beginning. Both are empty if err is not a server's.
func answered(err error) (text, code string) {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return "", ""
	}
	text = answer.Error()
	code, _, _ = strings.Cut(text, " ")
	return text, code
}

// inScript reports whether a server's error is of a command in a script, which may have changed
// something before. A script that returns the error cuts off the part that names the script.
func inScript(text string) bool {
	return strings.Contains(text, "@user_script:") || isDenialInScript(text)
}

// isDenialInScript reports whether a server's error denies a command in a script, in the words
// of Redis 6, 7.0 or 7.2. The last are those for a command that no script may run, which hosted
// services use for INFO.
func isDenialInScript(text string) bool {
	return strings.Contains(text, "The user executing the script can't ") || strings.Contains(text, "ACL failure in script: ") ||
		strings.Contains(text, "Unknown Redis command called from ") ||
		strings.Contains(text, "This Redis command is not allowed from script")
}

func isUnknownCommand(text string) bool {
	return strings.HasPrefix(text, "unknown command '") || strings.HasPrefix(text, "unknown command `")
}

// isDenial reports whether a server's error says that the command is unknown, or that the user
// may not run it or access its keys.
func isDenial(err error) bool {
	text, code := answered(err)
	return code == "NOPERM" || isUnknownCommand(text) || isDenialInScript(text)
}

// denied returns the error of c, which was sent in that form, where the server denies a
// command or a key. The error names both: Redis names the command only outside scripts,
// and the key only from version 8 on.
func denied(c *node.Command, sent form, answer error) error {
	text := answer.Error()
	what, keys := "SET", c.Declared(nil)
	switch {
	case c.Kind == node.Ping:
		return fmt.Errorf("EVALSHA: %w", discreet(answer))
	case sent == asExists:
		what = "EXISTS"
	case sent == asScript:
		what = "EVALSHA"
		if inScript(text) {
			what = "the script of " + strings.Join(scripts[c.Kind].commands, ", ")
		}
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = strconv.Quote(key)
	}
	return fmt.Errorf("%s with %s: %w", what, strings.Join(names, ", "), discreet(answer))
}

// isDemotion reports whether a server's error says that it takes no writes, or none yet.
// Its address may belong to another server by now, so it is dialled again:
//
//   - READONLY: it is a replica. An endpoint points to another server after a failover,
//     but connections stay where they are.
//   - MASTERDOWN: it is a replica, and has lost its master.
//   - LOADING: it has restarted, or copies its data from a master, and may be a replica
//     when it is done. That can take minutes, in which the endpoint may have moved.
//
// A master that lacks replicas (NOREPLICAS), cannot save (MISCONF), is full (OOM) or busy
// (BUSY, UNKILLABLE) is still the one to ask: another connection changes nothing. MOVED
// and CLUSTERDOWN are of a Cluster, whose client finds its servers.
func isDemotion(err error) bool {
	text, code := answered(err)
	return code == "READONLY" || code == "MASTERDOWN" || code == "LOADING" ||
		inScript(text) && strings.Contains(text, "-READONLY ") // as Redis 6 has it
}

// isRedirection reports whether a server's error sends the client to another server of its
// Cluster.
func isRedirection(err error) bool {
	_, code := answered(err)
	return code == "MOVED" || code == "ASK"
}

// isMigration reports whether a server's error says that it runs no command for several keys of a
// slot while the slot moves.
func isMigration(err error) bool {
	_, code := answered(err)
	return code == "TRYAGAIN"
}

// wireError is the error of a connection. It is marked as ErrNotConnected if the command
// certainly never left.
func wireError(err error) error {
	if dialFailed(err) {
		return node.NotConnected(dialError(err))
	}
	return discreet(err)
}

// dialFailed reports whether err is of a dial or a handshake. The ctx of a call has no deadline,
// so a deadline that is exceeded is rueidis' own.
func dialFailed(err error) bool {
	var op *net.OpError
	var greeting *handshakeError
	var unknown *credentialsError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &greeting) || errors.As(err, &unknown) || errors.As(err, &op) && op.Op == "dial"
}

var errDialTimeout = errors.New("the server did not accept a connection, or did not answer on it, in time")

// dialError returns the error of a dial or a handshake. It is never a context error: no
// ctx of the user's has ended.
func dialError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errDialTimeout
	}
	if text, code := answered(err); code == "NOPROTO" || strings.Contains(text, "HELLO") && !isUnknownCommand(text) {
		return fmt.Errorf("HELLO was refused: %w (for RESP2, over which locks, queues and fences work too, add ?protocol=2 to the URL, or set AlwaysRESP2)", discreet(err))
	}
	if text, code := answered(err); code == "NOPERM" && strings.Contains(text, "'ping'") {
		return fmt.Errorf("PING was refused: %w (over RESP2 a connection begins with PING instead of HELLO: give the user +ping)", discreet(err))
	}
	return discreet(err)
}

// discreet returns a server's error without the parts that quote the command. For a command
// that is unknown or disabled Redis quotes the arguments, and so tokens and passwords.
// discreet also leaves out the digest of a script, which Redis 7.2 and later append to
// errors in it.
func discreet(err error) error {
	text := err.Error()
	said, _, cut := strings.Cut(text, ", with args beginning with:")
	if i := strings.LastIndex(said, " script: "); i >= 0 && strings.Contains(said[i:], ", on @user_script:") {
		said, cut = said[:i], true
	}
	if !cut {
		return err
	}
	return errors.New(said)
}
