package redistest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// StartWithClocks is [StartN] for servers that have a wall clock each, which
// [Server.SetClock] moves. It needs libfaketime, in $LIBFAKETIME or where
// distributions put it; without it the test fails, it is never skipped.
func StartWithClocks(t testing.TB, n int, args ...string) []*Server {
	t.Helper()
	lib, err := libfaketime()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return startN(t, n, args, func(s *Server) error {
		s.env = []string{
			// libfaketime asks for memory before it is ready, and jemalloc,
			// which distributions build Redis with, for the time before it is:
			// neither ever starts. With glibc's allocator before jemalloc's
			// they do not meet.
			"LD_PRELOAD=libc_malloc_debug.so.0 " + lib,
			"FAKETIME_TIMESTAMP_FILE=" + s.clockFile(),
			"FAKETIME_NO_CACHE=1",            // the file is looked at each time
			"FAKETIME_DONT_FAKE_MONOTONIC=1", // a clock that is set is the wall clock
		}
		// libfaketime leaves these behind when its process is killed.
		s.buried = func(pid int) {
			litter, _ := filepath.Glob("/dev/shm/*faketime_*_" + strconv.Itoa(pid))
			for _, file := range litter {
				_ = os.Remove(file)
			}
		}
		return s.writeClock(0)
	})
}

// SetClock has the server's wall clock run ahead of the machine's by offset, or
// behind it, and returns when the server has it so. The server must have been
// started by [StartWithClocks], and run.
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

// time is what the server's wall clock says.
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

// writeClock replaces the file, so that no half of it is ever read.
func (s *Server) writeClock(offset time.Duration) error {
	next := s.clockFile() + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+.6f\n", offset.Seconds()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.clockFile())
}

func libfaketime() (string, error) {
	var found []string
	if env := os.Getenv("LIBFAKETIME"); env != "" {
		found = []string{env}
	} else {
		for _, dir := range []string{"/usr/lib/*", "/usr/lib", "/usr/lib64", "/usr/local/lib"} {
			files, _ := filepath.Glob(dir + "/faketime/libfaketime.so.1")
			found = append(found, files...)
		}
	}
	for _, file := range found {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", errors.New("no libfaketime to move the clock of a server with: " +
		"apt-get install libfaketime, or set LIBFAKETIME to its libfaketime.so.1")
}
