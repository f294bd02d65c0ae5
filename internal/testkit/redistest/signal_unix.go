//go:build unix

package redistest

import "syscall"

// The signals that pause a process and resume it.
const (
	sigstop = syscall.SIGSTOP
	sigcont = syscall.SIGCONT
)
