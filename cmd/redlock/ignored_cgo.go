//go:build unix && cgo

package main

/*
#include <signal.h>

static char ignored[65];

// Go's runtime replaces the handlers of all signals but HUP and INT before any Go code
// runs, and does not reveal what they were. A constructor comes before the runtime.
__attribute__((constructor)) static void look(void) {
	for (int s = 1; s < 65; s++) {
		struct sigaction action;
		ignored[s] = sigaction(s, 0, &action) == 0 && action.sa_handler == SIG_IGN;
	}
}

static int was_ignored(int s) { return s > 0 && s < 65 && ignored[s]; }
*/
import "C"

import "syscall"

// ignoredAtStart reports whether the signal was ignored when the tool was started.
func ignoredAtStart(s syscall.Signal) bool { return C.was_ignored(C.int(s)) != 0 }
