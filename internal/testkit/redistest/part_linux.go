package redistest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// part is the process of a program that stands between clients and servers, with a file for
// its configuration. It listens on a port of its own, and is killed when the test ends.
type part struct {
	addr string
	dir  string
	proc *process
}

// Addr returns the host:port that clients dial.
func (p *part) Addr() string { return p.addr }

// URL returns [part.Addr] as a redis:// URL.
func (p *part) URL() string { return "redis://" + p.addr }

// startPart runs a program of the Debian package with the configuration for an address, which
// configure writes into a directory, and returns once it listens there. Without the program
// the test fails, it is never skipped.
func startPart(t testing.TB, debian, program string, configure func(p *part) (config string, args []string, err error)) *part {
	t.Helper()
	bin, err := exec.LookPath(program)
	if err != nil { // where daemons are, which is in the PATH of root alone
		bin, err = exec.LookPath("/usr/sbin/" + program)
	}
	if err != nil {
		t.Fatalf("redistest: no %s to test with: %v; run make deps, which installs the package %s", program, err, debian)
	}
	p := &part{dir: t.TempDir()}
	t.Cleanup(func() {
		if p.proc != nil {
			p.proc.kill()
		}
	})
	for range portTries {
		if err = p.start(bin, configure); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("redistest: %s: %v", program, err)
	}
	return p
}

func (p *part) start(bin string, configure func(p *part) (config string, args []string, err error)) (err error) {
	if p.addr, err = freeAddr(); err != nil {
		return err
	}
	config, args, err := configure(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.configFile(), []byte(config), 0o600); err != nil {
		return err
	}
	if p.proc, err = launch(bin, p.dir, args, nil); err != nil {
		return err
	}
	err = p.proc.await(func() error { return listens(p.proc.os.Pid, p.addr) })
	if err == nil {
		return nil
	}
	p.proc.kill()
	out := p.proc.output()
	if lower := strings.ToLower(out); strings.Contains(lower, "address already in use") || strings.Contains(lower, "cannot bind socket") {
		err = errPortTaken
	}
	return fmt.Errorf("%s on %s does not serve: %w\n%s", bin, p.addr, err, out)
}

func (p *part) configFile() string { return filepath.Join(p.dir, "part.conf") }

// listens returns nil if the process listens on an IPv4 address of TCP. A connection would
// not show it: another program may listen on a port that this one could not have.
func listens(pid int, addr string) error {
	at := netip.MustParseAddrPort(addr)
	ip := at.Addr().As4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], at.Port())
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return err
	}
	const listening = "0A"
	inodes := make(map[string]bool)
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[3] == listening {
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return err
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && inodes[target] {
			return nil
		}
	}
	return errors.New("process " + strconv.Itoa(pid) + " does not listen there")
}

// portOf returns the port of a host:port.
func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
