package redistest

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// HAProxy is an haproxy that passes TCP connections on to one server, as in front of hosted
// services.
type HAProxy struct {
	*part
	t testing.TB
}

// StartHAProxy starts an haproxy in front of a server. The settings are lines for its section
// defaults, such as "timeout client 300ms"; without them idle connections stay open for an hour.
func StartHAProxy(t testing.TB, s *Server, settings ...string) *HAProxy {
	t.Helper()
	h := &HAProxy{t: t}
	h.part = startPart(t, "haproxy", "haproxy", func(p *part) (string, []string, error) {
		lines := append([]string{
			"global",
			"stats socket " + filepath.Join(p.dir, "admin") + " level admin",
			"noreuseport", // two of them must not share a port
			"hard-stop-after 1s",
			"defaults",
			"mode tcp",
			"timeout connect 5s",
			"timeout client 1h",
			"timeout server 1h",
		}, settings...)
		lines = append(lines,
			"frontend clients",
			"bind "+p.addr,
			"default_backend servers",
			"backend servers",
			"server redis "+s.addr,
		)
		return strings.Join(lines, "\n") + "\n", []string{"-db", "-f", p.configFile()}, nil
	})
	return h
}

// Point sends new connections to another server, as when the name of an endpoint moves. Open
// ones stay where they are.
func (h *HAProxy) Point(s *Server) {
	h.t.Helper()
	host, port, _ := net.SplitHostPort(s.addr)
	if said, err := h.admin(fmt.Sprintf("set server servers/redis addr %s port %s", host, port)); err != nil || !strings.Contains(said, "changed from") {
		h.t.Errorf("redistest: haproxy points to %s: %v %q", s.addr, err, said)
	}
}

// Cut ends the open connections.
func (h *HAProxy) Cut() {
	h.t.Helper()
	if said, err := h.admin("shutdown sessions server servers/redis"); err != nil || strings.TrimSpace(said) != "" {
		h.t.Errorf("redistest: haproxy cuts its connections: %v %q", err, said)
	}
}

// admin runs one command on the socket for administrators.
func (h *HAProxy) admin(command string) (string, error) {
	conn, err := net.DialTimeout("unix", filepath.Join(h.dir, "admin"), probeTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	said, err := io.ReadAll(conn)
	return string(said), err
}
