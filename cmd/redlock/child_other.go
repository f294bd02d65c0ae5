//go:build unix && !linux

package main

import "syscall"

// dieWithTool has no equal here: the child of a tool that was killed goes on without its
// lock.
func dieWithTool(*syscall.SysProcAttr) {}
