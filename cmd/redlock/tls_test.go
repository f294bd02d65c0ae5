//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestEveryCommandUsesTheFilesOfTLS(t *testing.T) {
	s := redistest.StartTLS(t, safe...)
	ca, cert, key := s.Files(t)
	flags := []string{"-tls-ca", ca, "-tls-cert", cert, "-tls-key", key}
	commands := func(flags ...string) [][]string {
		return [][]string{
			append(append([]string{"run"}, flags...), "k", "--", "true"),
			append(append([]string{"status"}, flags...), "k"),
			append([]string{"doctor"}, flags...),
		}
	}
	for _, nodes := range []string{s.TLSAddr(), "rediss://" + s.TLSAddr() + "?dial_timeout=20s"} {
		for _, args := range commands(flags...) {
			code, stdout, stderr := use(t, nodes, args...)
			require.Zero(t, code, "%q: %s%s", args, stdout, stderr)
			require.NotContains(t, stdout, "unreachable")
		}
	}
	code, _, stderr := use(t, "rediss://"+s.TLSAddr()+"?dial_timeout=20s", "status", "k")
	require.Equal(t, exitNoQuorum, code, stderr)

	t.Setenv(caFlag.variable, ca)
	t.Setenv(certFlag.variable, cert)
	t.Setenv(keyFlag.variable, key)
	for _, args := range commands() {
		code, stdout, stderr := use(t, s.TLSAddr(), args...)
		require.Zero(t, code, "%q: %s%s", args, stdout, stderr)
	}
	code, _, stderr = use(t, s.TLSAddr(), "status", "-tls-cert", "", "-tls-key", "", "k")
	require.Equal(t, exitNoQuorum, code, "without a certificate: %s", stderr)
	// A URL's own files come first.
	code, _, stderr = use(t, "rediss://"+s.TLSAddr()+"?tls_ca="+filepath.Join(t.TempDir(), "none.pem"), "status", "k")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, `none.pem" cannot be read: `)
}

func TestFilesOfTLSThatDoNotFitAreAMistakeOnTheCommandLine(t *testing.T) {
	ca, cert, key := redistest.StartTLS(t).Files(t)
	secret, err := os.ReadFile(key)
	require.NoError(t, err)
	for _, c := range []struct {
		nodes string
		flags []string
		want  string
	}{
		{"r1:6379", []string{"-tls-ca", "/no/ca.pem"}, `-tls-ca: "/no/ca.pem" cannot be read: no such file or directory: must be a PEM file`},
		{"r1:6379", []string{"-tls-ca", key}, `-tls-ca: "` + key + `" holds no certificate: must be a PEM file with the certificates of the authorities`},
		{"r1:6379", []string{"-tls-ca", string(secret)}, `-tls-ca: (its file) cannot be read: `},
		{"r1:6379", []string{"-tls-cert", cert}, "-tls-cert: needs -tls-key or REDLOCK_TLS_KEY, the file with the certificate's private key"},
		{"r1:6379", []string{"-tls-key", key}, "-tls-key: needs -tls-cert or REDLOCK_TLS_CERT, the file with the key's certificate"},
		{"r1:6379", []string{"-tls-cert", cert, "-tls-key", ca}, `-tls-key: "` + ca + `" holds no private key: must be a PEM file with the certificate's private key (BEGIN PRIVATE KEY), without a passphrase`},
		{"r1:6379,redis://r2", []string{"-tls-ca", ca}, "node 2 of -nodes: -tls-ca is given, and this URL is without TLS: the scheme must be rediss or valkeys"},
		{"unix:///tmp/no-such.sock", []string{"-tls-cert", cert, "-tls-key", key}, "node 1 of -nodes: -tls-cert is given, and this URL is without TLS: "},
		{"rediss://r1?skip_verify=true", []string{"-tls-ca", ca}, "node 1 of -nodes: tls_ca besides skip_verify, which trusts any server"},
	} {
		for _, args := range [][]string{
			append(append([]string{"run"}, c.flags...), "k", "--", "true"),
			append(append([]string{"status"}, c.flags...), "k"),
			append([]string{"doctor"}, c.flags...),
		} {
			code, _, stderr := use(t, c.nodes, args...)
			require.Equal(t, exitUsage, code, stderr)
			require.Contains(t, stderr, c.want)
			require.NotContains(t, stderr, "PRIVATE KEY-")
		}
	}
	t.Setenv(caFlag.variable, "/no/ca.pem")
	_, _, stderr := use(t, "r1:6379", "doctor")
	require.Contains(t, stderr, `REDLOCK_TLS_CA: "/no/ca.pem" cannot be read: `)
}

// The endpoint of a hosted service is a Cluster.
func TestDoctorLooksIntoAClusterByOneEndpoint(t *testing.T) {
	c := redistest.StartCluster(t, safe...)
	_, found, d := consult(t, c.Servers()[0].URL())
	require.Equal(t, danger, found["mode "+c.Servers()[0].Addr()])
	require.Contains(t, text(d, "mode"), "one server of a Cluster")
	_, found, d = consult(t, c.Servers()[0].URL()+"?cluster=true")
	require.Len(t, d.Servers, 3)
	require.NotContains(t, found, "mode "+c.Servers()[0].Addr())

	other := c.Servers()[0]
	if c.Owner("k") == other {
		other = c.Servers()[1]
	}
	_, out, _ := use(t, other.URL(), "status", "k")
	require.Contains(t, out, ": this is a Cluster: add ?cluster=true to its URL")

	plain := redistest.Start(t, safe...)
	_, _, d = consult(t, plain.URL()+"?cluster=true")
	require.Contains(t, d.Servers[0].Error, "not a Cluster: CLUSTER SLOTS: ")
}
