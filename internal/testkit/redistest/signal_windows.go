package redistest

import "syscall"

// Windows has no such signals: sending one returns an error that says so.
const (
	sigstop = syscall.Signal(0x13)
	sigcont = syscall.Signal(0x12)
)
