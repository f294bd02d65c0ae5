package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/redis-kit/redlock"
)

// The exit codes of the tool, taken from sysexits.h where one fits. Any other code is the
// exit code of the command that run ran.
const (
	exitUsage    = 64 // EX_USAGE
	exitNoQuorum = 69 // EX_UNAVAILABLE
	exitLost     = 70 // EX_SOFTWARE
	exitHeld     = 75 // EX_TEMPFAIL
	exitDanger   = 78 // EX_CONFIG
	exitNoExec   = 126
	exitNotFound = 127
	exitSignal   = 128 // plus the number of the signal
)

const exitHelp = `Exit codes:
   64  the command line is wrong
   69  too many nodes failed or did not answer
   70  run: the lock was lost before the command had ended
   75  run: another owner holds the lock
   78  doctor: something endangers locks
   126, 127  run: the command cannot be run, was not found
   128+n  run: the command, or the wait for the lock, was ended by signal n
   Any other code of run is the command's own.`

// exitError ends the tool with a code.
type exitError struct {
	code int
	err  error // printed on stderr; nil: nothing
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// exitCode reports err to w, if there is something to say, and returns the code to exit
// with.
func exitCode(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := codeOf(err)
	if exit := (exitError{}); !errors.As(err, &exit) || exit.err != nil {
		sayf(w, "%v", err)
	}
	return code
}

func codeOf(err error) int {
	exit := exitError{}
	switch {
	case errors.As(err, &exit):
		return exit.code
	case isUsage(err):
		return exitUsage
	case errors.Is(err, redlock.ErrNotAcquired):
		return exitHeld
	case errors.Is(err, redlock.ErrNoQuorum):
		return exitNoQuorum
	case errors.Is(err, redlock.ErrNotHeld): // lost before the command began
		return exitLost
	}
	return 1
}

// sayf writes one line, with the tool's name in front.
func sayf(w io.Writer, format string, args ...any) {
	text := strings.TrimPrefix(fmt.Sprintf(format, args...), "redlock: ")
	_, _ = fmt.Fprintln(w, "redlock:", strings.ReplaceAll(text, "\n", "; "))
}
