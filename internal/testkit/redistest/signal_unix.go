//go:build unix

package redistest

import "syscall"

// What pauses a process, and has it go on.
const (
	sigstop = syscall.SIGSTOP
	sigcont = syscall.SIGCONT
)
