package redistest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// dieWithTest makes the kernel kill the server when the test binary dies without running
// its clean-ups, as by a -timeout or SIGKILL.
func dieWithTest() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// stopped returns nil if the process is in state T. When kill(2) returns, the signal has
// been sent but need not have taken effect.
func stopped(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	// pid (name) state ...; the name may hold anything, parentheses too.
	if _, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" ")); !ok || rest[0] != 'T' {
		return fmt.Errorf("not stopped: %s", bytes.TrimSpace(stat))
	}
	return nil
}
