//go:build !linux

package redistest

import "syscall"

// dieWithTest does nothing: this system cannot kill a child with its parent, so only the
// clean-ups end the server.
func dieWithTest() *syscall.SysProcAttr { return nil }

func stopped(int) error { return nil }
