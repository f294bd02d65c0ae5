package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TLSServer is a [Server] that also listens on a second port, with TLS, where it requires
// client certificates. The oracle uses the first port.
type TLSServer struct {
	*Server
	addr string
	ca   authority
}

// StartTLS is [Start] for a server with TLS. Its certificates are made for this server
// alone, and for localhost and 127.0.0.1.
func StartTLS(t testing.TB, args ...string) *TLSServer {
	t.Helper()
	dir := t.TempDir()
	ca, err := newAuthority()
	if err == nil {
		err = ca.write(dir)
	}
	if err != nil {
		t.Fatalf("redistest: certificates: %v", err)
	}
	s := &TLSServer{ca: ca}
	s.Server, s.addr = startWithPort(t, "--tls-port", append([]string{
		"--tls-ca-cert-file", filepath.Join(dir, "ca.pem"),
		"--tls-cert-file", filepath.Join(dir, "server.pem"),
		"--tls-key-file", filepath.Join(dir, "server.key"),
		"--tls-auth-clients", "yes",
	}, args...))
	return s
}

// TLSAddr returns the host:port where the server speaks TLS.
func (s *TLSServer) TLSAddr() string { return s.addr }

// TLSConfig returns the configuration of a client that trusts the server, and that the
// server trusts. Without its Certificates the server refuses the client.
func (s *TLSServer) TLSConfig(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := s.ca.issue("client")
	if err != nil {
		t.Fatalf("redistest: certificate: %v", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
}

// Files are those of a client which trusts the server, and which the server trusts: the
// authority's certificate, and the client's with its key.
func (s *TLSServer) Files(t testing.TB) (ca, cert, key string) {
	t.Helper()
	return s.ca.files(t)
}

// startWithPort is [Start] for a server with a second port, which goes after
// option on its command line. It returns that port's address too.
func startWithPort(t testing.TB, option string, args []string) (*Server, string) {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := &Server{t: t, bin: bin, dir: t.TempDir()}
	t.Cleanup(s.Kill)
	s.mu.Lock()
	defer s.mu.Unlock()
	var second string
	for range portTries {
		if s.addr, err = freeAddr(); err != nil {
			break
		}
		if second, err = freeAddr(); err != nil {
			break
		}
		_, port, _ := net.SplitHostPort(second)
		s.args = append(slices.Clone(args), option, port)
		if err = s.start(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return s, second
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := certificate("authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

func (a authority) issue(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.DNSNames = []string{"localhost"}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// files writes the authority's certificate, and another with its key, for the test.
func (a authority) files(t testing.TB) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	if err := a.write(dir); err != nil {
		t.Fatalf("redistest: certificates: %v", err)
	}
	return filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
}

// write writes the certificates and the key of a server to dir.
func (a authority) write(dir string) error {
	cert, err := a.issue("server")
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":     {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"server.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"server.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
