package node

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/redis/rueidis"
)

// surelyNotRun reports whether a server's error says for certain that a plain
// command did not run and never will. An error that is not among these may come
// from a proxy that has lost the answer.
func surelyNotRun(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	text := answer.Error() // without its ERR, which rueidis cuts off
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "OOM", "READONLY", "NOPERM", "NOAUTH", "WRONGPASS", "MOVED", "ASK", "LOADING", "BUSY", "MISCONF",
		"CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "DENIED":
		return true
	}
	return strings.HasPrefix(text, "unknown command '") || strings.HasPrefix(text, "unknown command `") ||
		text == "max number of clients reached"
}

// wireError is the error of a connection. It marks those after which the command
// certainly never left.
func wireError(err error) error {
	if dialFailed(err) {
		return NotConnected(dialError(err))
	}
	return discreet(err)
}

// dialFailed reports whether err is that of a dial or a handshake. The ctx of a
// call has no deadline, so a deadline that is exceeded is that of rueidis' own.
func dialFailed(err error) bool {
	var op *net.OpError
	var greeting *handshakeError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &greeting) || errors.As(err, &op) && op.Op == "dial"
}

var errDialTimeout = errors.New("the server did not accept a connection, or did not answer on it, in time")

// dialError is the error of a dial or a handshake. It is never a context error:
// no ctx of a user's has ended.
func dialError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errDialTimeout
	}
	return discreet(err)
}

// discreet is a server's error without what it repeats of the command: about
// one that it does not know, or does not let anybody use, Redis quotes the
// arguments, and so tokens and passwords. It also leaves out the digest of a
// script, which Redis 7.2 and later append to what failed in it.
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
