//go:build unix && !cgo

package main

import (
	"os/signal"
	"syscall"
)

// ignoredAtStart reports whether the signal was ignored when the tool was started.
// Without cgo this is known only of HUP and INT: see ignored_cgo.go.
func ignoredAtStart(s syscall.Signal) bool { return signal.Ignored(s) }
