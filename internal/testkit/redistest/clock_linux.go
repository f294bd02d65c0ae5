package redistest

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

//go:embed preload/clock.c
var clockSource string

// StartWithClocks is [StartN] for servers that have a wall clock each, which
// [Server.SetClock] moves. It builds a library for them to preload, with the C
// compiler that `go env CC` names; without one the test fails, it is never
// skipped.
func StartWithClocks(t testing.TB, n int, args ...string) []*Server {
	t.Helper()
	lib, err := buildClock(t.TempDir())
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	// jemalloc's thread asks for the wall clock and sleeps until a time that the
	// kernel takes for its own: on a clock that is behind it would spin.
	args = append([]string{"--jemalloc-bg-thread", "no"}, args...)
	return startN(t, n, args, func(s *Server) error {
		s.env = []string{"LD_PRELOAD=" + lib, "REDISTEST_CLOCK=" + s.clockFile()}
		return s.writeClock(0)
	})
}

// buildClock builds the library that gives a process a wall clock of its own.
func buildClock(dir string) (lib string, err error) {
	source, lib := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, []byte(clockSource), 0o600); err != nil {
		return "", err
	}
	cc := []string{"cc"}
	if out, err := exec.Command("go", "env", "CC").Output(); err == nil && len(bytes.TrimSpace(out)) > 0 {
		cc = strings.Fields(string(out)) // it may have flags
	}
	cmd := exec.Command(cc[0], append(cc[1:], "-shared", "-fPIC", "-O2", "-o", lib, source)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("no clock for servers could be built: %w; run make deps, or set CC to a C compiler\n%s", err, out)
	}
	return lib, nil
}

// SetClock sets the server's wall clock ahead of the machine's by offset, or behind it,
// and returns when the server sees the new time. The server must have been started by
// [StartWithClocks], and be running.
func (s *Server) SetClock(offset time.Duration) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || s.env == nil {
		s.t.Errorf("redistest: set the clock of %s: it has none of its own", s.addr)
		return
	}
	err := s.writeClock(offset)
	if err == nil {
		err = s.proc.await(func() error {
			from := time.Now().Add(offset)
			now, err := s.time()
			if err != nil {
				return err
			}
			if now.Before(from.Add(-time.Millisecond)) || now.After(time.Now().Add(offset+time.Millisecond)) {
				return fmt.Errorf("its time is %v instead of %v", now, from)
			}
			return nil
		})
	}
	if err != nil {
		s.t.Errorf("redistest: set the clock of %s: %v", s.addr, err)
	}
}

// time returns the time of the server's wall clock.
func (s *Server) time() (time.Time, error) {
	reply, err := s.Do("TIME")
	if err != nil {
		return time.Time{}, err
	}
	parts := reply.([]any)
	seconds, err1 := strconv.ParseInt(parts[0].(string), 10, 64)
	micros, err2 := strconv.ParseInt(parts[1].(string), 10, 64)
	return time.Unix(seconds, 1000*micros), errors.Join(err1, err2)
}

func (s *Server) clockFile() string { return filepath.Join(s.dir, "clock") }

// writeClock writes the offset where the server has it mapped, in one piece.
func (s *Server) writeClock(offset time.Duration) error {
	const size = 8
	file, err := os.OpenFile(s.clockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	page, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	atomic.StoreInt64((*int64)(unsafe.Pointer(&page[0])), int64(offset))
	return syscall.Munmap(page)
}
