//go:build !linux

package redistest

import "syscall"

// dieWithTest has no equal here: the clean-ups have to do.
func dieWithTest() *syscall.SysProcAttr { return nil }

func stopped(int) error { return nil }
