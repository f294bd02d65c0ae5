package redistest

import (
	"path/filepath"
	"strings"
	"testing"
)

// Stunnel is a stunnel that ends TLS in front of a server without TLS, for clients that show a
// certificate. A client that names localhost (SNI) gets to the server. Any other is passed on
// to a port where nothing listens.
type Stunnel struct {
	*part
	ca authority
}

// StartStunnel starts a stunnel in front of a server. Its certificates are made for it alone,
// and for localhost and 127.0.0.1.
func StartStunnel(t testing.TB, s *Server) *Stunnel {
	t.Helper()
	dir := t.TempDir()
	ca, err := newAuthority()
	if err == nil {
		err = ca.write(dir)
	}
	if err != nil {
		t.Fatalf("redistest: certificates: %v", err)
	}
	nowhere, err := freeAddr()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return &Stunnel{ca: ca, part: startPart(t, "stunnel4", "stunnel", func(p *part) (string, []string, error) {
		files := []string{
			"cert = " + filepath.Join(dir, "server.pem"),
			"key = " + filepath.Join(dir, "server.key"),
			"CAfile = " + filepath.Join(dir, "ca.pem"),
			"verifyChain = yes",
		}
		lines := append([]string{"foreground = yes", "pid =", "[default]", "accept = " + p.addr, "connect = " + nowhere}, files...)
		lines = append(append(lines, "[named]", "sni = default:localhost", "connect = "+s.addr), files...)
		return strings.Join(lines, "\n") + "\n", []string{p.configFile()}, nil
	})}
}

// URL returns the address by its host name, as a rediss:// URL.
func (s *Stunnel) URL() string { return "rediss://localhost:" + portOf(s.addr) }

// Files are those of a client which trusts the stunnel, and which it trusts: as
// [TLSServer.Files].
func (s *Stunnel) Files(t testing.TB) (ca, cert, key string) {
	t.Helper()
	return s.ca.files(t)
}
