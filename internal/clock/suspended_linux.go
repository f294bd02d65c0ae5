package clock

import (
	"syscall"
	"time"
	"unsafe"
)

const (
	clockMonotonic = 1
	clockBoottime  = 7
)

// slept returns how long the machine has been suspended since it was started. During a
// suspension CLOCK_BOOTTIME goes on and CLOCK_MONOTONIC does not, and neither can be set.
// slept reads both itself: under testing/synctest, time.Now is another clock.
//
// CLOCK_BOOTTIME is read first, so that a pause between the two readings does not look like a
// suspension.
func slept() time.Duration {
	boot, ok := read(clockBoottime)
	mono, also := read(clockMonotonic)
	if !ok || !also {
		return 0 // an old kernel: the wall clock remains
	}
	return boot - mono
}

// read makes a system call that never blocks, so the scheduler need not know of it.
func read(clock uintptr) (time.Duration, bool) {
	var t syscall.Timespec
	_, _, failed := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), failed == 0
}
