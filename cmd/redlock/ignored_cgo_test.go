//go:build unix && cgo

package main

import (
	"syscall"
	"testing"
)

func TestAnySignalThatIsIgnoredStaysSo(t *testing.T) {
	for name, s := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		staysIgnored(t, name, s)
	}
}
