//go:build unix && !linux

package main

import "syscall"

// dieWithTool does nothing: this system cannot kill a child with its parent. The child of a
// tool that was killed goes on without its lock.
func dieWithTool(*syscall.SysProcAttr) {}
