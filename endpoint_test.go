package redlock_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// Hosted services are Clusters with one endpoint.
func TestAClusterByOneEndpoint(t *testing.T) {
	settle(t)
	c := redistest.StartCluster(t)
	endpoint := c.Servers()[0]
	foreign := c.KeyOf(c.Servers()[1], "k")
	t.Run("alone", func(t *testing.T) { lifecycle(t, c, lockertest.Open(t, []string{endpoint.URL() + "?cluster=true"})) })
	t.Run("one of three", func(t *testing.T) {
		lifecycle(t, c, lockertest.Open(t, append(plainURLs(t), endpoint.URL()+"?cluster=true")))
	})
	t.Run("without cluster=true", func(t *testing.T) {
		l := lockertest.Open(t, []string{endpoint.URL()})
		for _, opts := range [][]redlock.LockOption{nil, {redlock.WithFence()}} {
			_, err := l.TryAcquire(t.Context(), foreign, time.Minute, opts...)
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			require.ErrorContains(t, err, endpoint.Addr()+": MOVED ")
			require.ErrorContains(t, err, ": this is a Cluster: add ?cluster=true to its URL")
		}
	})
	t.Run("New with a single client", func(t *testing.T) {
		client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{endpoint.Addr()}, ForceSingleClient: true, Dialer: patient}))
		require.NoError(t, err)
		defer client.Close()
		l, err := redlock.New([]rueidis.Client{client})
		require.NoError(t, err)
		defer l.Close()
		_, err = l.TryAcquire(t.Context(), foreign, time.Minute)
		require.ErrorContains(t, err, ": this is a Cluster: make its client with rueidis in cluster mode, without ForceSingleClient")
	})
	t.Run("the restart guard", func(t *testing.T) {
		_, err := redlock.Open(t.Context(), []string{endpoint.URL() + "?cluster=true"}, redlock.WithRestartGuard(time.Minute, 0))
		require.ErrorContains(t, err, "urls[0]: is a Cluster: WithRestartGuard")
	})
}

// With cluster=true no lock is ever that of a single server.
func TestAServerThatIsNoClusterIsRefusedAsOne(t *testing.T) {
	settle(t)
	s := redistest.Start(t)
	l := lockertest.Open(t, []string{s.URL() + "?cluster=true"})
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, s.Addr()+": not connected: not a Cluster: CLUSTER SLOTS: ")
	require.ErrorContains(t, err, "cluster support disabled (for a single server, leave cluster=true out of the URL)")
	require.Empty(t, s.Keys(t))
}

func TestWhatDoesNotGoWithAClusterIsRefused(t *testing.T) {
	for query, want := range map[string]string{
		"redis://a?cluster=maybe":                      "cluster is neither true nor false",
		"redis://a?cluster=true&cluster=false":         "cluster is there twice",
		"redis://a:1?cluster=true&master_set=m":        "cluster besides master_set: a node is a Cluster or a Sentinel group",
		"unix:///tmp/no-such.sock?cluster=true":        "cluster with a socket: a Cluster needs host:port",
		"redis://a:1?cluster=false&addr=b:1":           "cluster is false, but there are several addresses, which are those of a Cluster",
		"redis://a:1?master_set=m&cluster=f&addr=b:12": "cluster besides master_set: a node is a Cluster or a Sentinel group",
	} {
		_, err := redlock.Open(t.Context(), []string{query})
		require.EqualError(t, err, "redlock: urls[0]: "+want+": must be like redis://[user:password@]host[:port][/db]")
	}
	for _, query := range []string{"?cluster=false", "?cluster", "?cluster=1&addr=127.0.0.1:2"} {
		settle(t)
		lockertest.Open(t, []string{"redis://127.0.0.1:1" + query})
	}
}

// A service that ends connections when their password has expired.
func TestAPasswordThatExpiresIsAskedForAgain(t *testing.T) {
	servers := redistest.StartN(t, 3)
	grant := func(password string) {
		for _, s := range servers {
			must(t, s, "ACL", "SETUSER", "iam", "reset", "on", ">"+password, "~*", "&*", "+@all")
		}
	}
	var password atomic.Pointer[string]
	set := func(text string) { password.Store(&text); grant(text) }
	set("first-secret")
	var asked atomic.Int64
	addrs := make(chan string, 1000)
	l := lockertest.Open(t, redistest.URLs(servers), redlock.WithCredentials(func(ctx context.Context, addr string) (string, string, error) {
		if _, ok := ctx.Deadline(); !ok {
			return "", "", errors.New("no deadline")
		}
		asked.Add(1)
		addrs <- addr
		return "iam", *password.Load(), nil
	}))
	held, err := l.Acquire(t.Context(), "held", time.Hour)
	require.NoError(t, err)
	eventually.True(t, "all hold it", func() bool {
		for _, s := range servers {
			if value, _ := s.Get(t, "held"); value != held.Token() {
				return false
			}
		}
		return true
	})
	before := asked.Load()
	require.GreaterOrEqual(t, before, int64(3))
	for range 3 {
		require.Contains(t, []string{servers[0].Addr(), servers[1].Addr(), servers[2].Addr()}, <-addrs)
	}

	set("second-secret")
	for _, s := range servers {
		must(t, s, "CLIENT", "KILL", "USER", "iam")
	}
	eventually.True(t, "the lock is extended with the new password", func() bool { return held.Extend(t.Context(), time.Hour) == nil })
	require.Greater(t, asked.Load(), before)
	require.NoError(t, held.Release(t.Context()))
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }, untilFree))

	// The old password is refused, without a word of it.
	grant("third-secret")
	for _, s := range servers {
		must(t, s, "CLIENT", "KILL", "USER", "iam")
	}
	eventually.True(t, "the servers refuse it", func() bool {
		_, err = l.TryAcquire(t.Context(), "k", time.Minute)
		return err != nil && strings.Contains(err.Error(), "WRONGPASS")
	})
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.NotContains(t, err.Error(), "secret")
	set("fourth-secret")
	eventually.True(t, "locks go on", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		return err == nil && lock.Release(t.Context()) == nil
	})
}

func TestCredentialsReachEveryServerOfAGroup(t *testing.T) {
	settle(t)
	s := redistest.StartSentinel(t)
	for _, server := range s.Servers() {
		must(t, server, "ACL", "SETUSER", "iam", "on", ">secret", "~*", "&*", "+@all")
	}
	ofSentinels := ""
	if redistest.AtLeast(t, 6, 2) { // before, Sentinels have no users
		ofSentinels = "watcher"
		for _, sentinel := range s.Sentinels() {
			must(t, sentinel, "ACL", "SETUSER", "watcher", "on", ">another secret", "&*", "+@all")
		}
	}
	l := lockertest.Open(t, []string{s.URL()}, redlock.WithCredentials(func(_ context.Context, addr string) (string, string, error) {
		switch {
		case !slices.Contains(s.Addrs(), addr):
			return "iam", "secret", nil
		case ofSentinels == "":
			return "", "", nil
		}
		return ofSentinels, "another secret", nil
	}))
	lock, err := l.Acquire(t.Context(), "k", time.Minute, untilFree)
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))
	require.Contains(t, must(t, s.Master(), "CLIENT", "LIST"), "user=iam")
	if ofSentinels != "" {
		require.True(t, slices.ContainsFunc(s.Sentinels(), func(sentinel *redistest.Server) bool {
			return strings.Contains(must(t, sentinel, "CLIENT", "LIST").(string), "user=watcher")
		}))
	}

	c := redistest.StartCluster(t)
	for _, server := range c.Servers() {
		must(t, server, "ACL", "SETUSER", "iam", "on", ">secret", "~*", "&*", "+@all")
	}
	lifecycle(t, c, lockertest.Open(t, []string{c.Servers()[0].URL() + "?cluster=true"}, redlock.WithCredentials(func(context.Context, string) (string, string, error) {
		return "iam", "secret", nil
	})))
	for _, server := range c.Servers() {
		require.Contains(t, must(t, server, "CLIENT", "LIST"), "user=iam")
	}
}

var errToken = errors.New("the token service is down")

func TestAnErrorOfTheCredentialsIsTheNodes(t *testing.T) {
	s := redistest.Start(t)
	failing := func(err error) func(context.Context, string) (string, string, error) {
		return func(context.Context, string) (string, string, error) { return "user", "secret", err }
	}
	l := lockertest.Open(t, []string{s.URL()}, redlock.WithCredentials(failing(errToken)))
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, failed.Nodes[0], errToken)
	require.ErrorContains(t, err, s.Addr()+": not connected: credentials: the token service is down")

	l = lockertest.Open(t, []string{s.URL()}, redlock.WithCredentials(failing(errors.New("POST /token?of=secret: 403"))))
	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorContains(t, err, "credentials: POST /token?of=…: 403")

	l = lockertest.Open(t, []string{s.URL()}, redlock.WithCredentials(failing(context.DeadlineExceeded)))
	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "no ctx of the caller's has ended")
	require.ErrorContains(t, err, "not connected: credentials: context deadline exceeded")
}

// Closing does not wait for a function that waits.
func TestCredentialsThatHangEndWithTheLocker(t *testing.T) {
	s := redistest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
	defer cancel()
	began := time.Now()
	l, err := redlock.Open(ctx, []string{s.URL()}, redlock.WithCredentials(func(ctx context.Context, _ string) (string, string, error) {
		<-ctx.Done()
		return "", "", ctx.Err()
	}))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestCredentialsAreInOnePlace(t *testing.T) {
	fn := func(context.Context, string) (string, string, error) { return "", "", nil }
	for _, user := range []string{"user:secret@", "user@", ":secret@"} {
		_, err := redlock.Open(t.Context(), []string{"redis://a", "redis://" + user + "b"}, redlock.WithCredentials(fn))
		require.EqualError(t, err, "redlock: urls[1]: a user or a password besides WithCredentials: must be in one place")
	}
	_, err := redlock.Open(t.Context(), []string{"redis://a"}, redlock.WithCredentials(nil))
	require.EqualError(t, err, "redlock: WithCredentials(nil): must be a function")

	s := redistest.Start(t)
	client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, Dialer: patient}))
	require.NoError(t, err)
	defer client.Close()
	_, err = redlock.New([]rueidis.Client{client}, redlock.WithCredentials(fn))
	require.EqualError(t, err, "redlock: WithCredentials: is for Open: must be an AuthCredentialsFn of the clients that New is given")
}

// tlsURL is the URL of a server with TLS and these files.
func tlsURL(s *redistest.TLSServer, ca, cert, key string) string {
	return "rediss://" + s.TLSAddr() + "?" + url.Values{"tls_ca": {ca}, "tls_cert": {cert}, "tls_key": {key}}.Encode()
}

func TestFilesOfTLSInAURL(t *testing.T) {
	var urls []string
	var first *redistest.TLSServer
	for range 3 {
		s := redistest.StartTLS(t)
		if first == nil {
			first = s
		}
		ca, cert, key := s.Files(t)
		urls = append(urls, tlsURL(s, ca, cert, key)+"&dial_timeout=20s")
	}
	l := lockertest.Open(t, urls)
	lock, err := l.Acquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "the first holds it", func() bool { value, _ := first.Get(t, "k"); return value == lock.Token() })
	require.NoError(t, lock.Release(t.Context()))

	// Another authority's certificates are trusted by neither side.
	other := redistest.StartTLS(t)
	ca, cert, key := other.Files(t)
	own, _, _ := first.Files(t)
	for url, want := range map[string]string{
		tlsURL(first, ca, cert, key):                                      "certificate signed by unknown authority",
		tlsURL(first, own, cert, key):                                     "unknown certificate authority|reset by peer|broken pipe|EOF",
		"rediss://" + first.TLSAddr() + "?tls_ca=" + url.QueryEscape(own): "certificate required .for a client certificate: |reset by peer|broken pipe|EOF",
	} {
		_, err := lockertest.Open(t, []string{url + "&dial_timeout=20s"}).TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.Regexp(t, want, err.Error())
	}
}

// Each connection names the host that it is to, a Cluster's endpoint too.
func TestTheHostNameIsSentAndVerified(t *testing.T) {
	settle(t)
	for _, query := range []string{"", "?cluster=true", "?master_set=m"} {
		names := make(chan string, 100)
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- hello.ServerName
			return nil, errors.New("that is all")
		}})
		require.NoError(t, err)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).HandshakeContext(context.Background())
				conn.Close()
			}
		}()
		_, port, err := net.SplitHostPort(ln.Addr().String())
		require.NoError(t, err)
		lockertest.Open(t, []string{"rediss://localhost:" + port + query})
		require.Equal(t, "localhost", <-names, query)
		ln.Close()
	}
}

// A file that cannot be used is named, and none of what it holds.
func TestFilesOfTLSThatCannotBeUsedAreRefused(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := redistest.StartTLS(t).Files(t)
	_, cert2, _ := redistest.StartTLS(t).Files(t)
	secret, err := os.ReadFile(key)
	require.NoError(t, err)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	empty := write("empty.pem", "")
	broken := write("broken.pem", "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n")
	brokenKey := write("broken.key", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n")
	encrypted := write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n")
	old := write("old.key", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----\n")
	missing := filepath.Join(dir, "missing.pem")
	const keyWanted = "must be a PEM file with the certificate's private key (BEGIN PRIVATE KEY), without a passphrase"
	for _, c := range []struct {
		query []string // names and values
		want  string
	}{
		{[]string{"tls_ca", missing}, `tls_ca "` + missing + `" cannot be read: `},
		{[]string{"tls_ca", dir}, `tls_ca "` + dir + `" is not a regular file: must be a PEM file`},
		{[]string{"tls_ca", empty}, `tls_ca "` + empty + `" holds no certificate: must be a PEM file with the certificates of the authorities (BEGIN CERTIFICATE)`},
		{[]string{"tls_ca", key}, `tls_ca "` + key + `" holds no certificate: `},
		{[]string{"tls_ca", ""}, "tls_ca is empty: must be the name of a PEM file"},
		{[]string{"tls_ca", ca, "tls_ca", ca}, "tls_ca is there twice: must be one file"},
		{[]string{"tls_ca", ca, "skip_verify", "true"}, "tls_ca besides skip_verify, which trusts any server"},
		{[]string{"tls_ca", ca, "skip_verify", ""}, "tls_ca besides skip_verify, which trusts any server"},
		{[]string{"tls_ca", string(secret)}, "tls_ca is not the name of a file: must be that of a PEM file, and not its text"},
		{[]string{"tls_ca", strings.Split(string(secret), "\n")[1]}, "tls_ca (its file) cannot be read: "},
		{[]string{"tls_cert", cert}, "tls_cert is there without tls_key: must be both, the client's certificate and its private key"},
		{[]string{"tls_key", key}, "tls_key is there without tls_cert: must be both, the client's certificate and its private key"},
		{[]string{"tls_cert", missing, "tls_key", key}, `tls_cert "` + missing + `" cannot be read: `},
		{[]string{"tls_cert", key, "tls_key", cert}, `tls_cert "` + key + `" holds no certificate: must be a PEM file with the client's certificate`},
		{[]string{"tls_cert", broken, "tls_key", key}, `tls_cert "` + broken + `" holds a certificate that cannot be read: `},
		{[]string{"tls_cert", cert, "tls_key", missing}, `tls_key "` + missing + `" cannot be read: `},
		{[]string{"tls_cert", cert, "tls_key", cert}, `tls_key "` + cert + `" holds no private key: ` + keyWanted},
		{[]string{"tls_cert", cert, "tls_key", encrypted}, `tls_key "` + encrypted + `" is encrypted: ` + keyWanted},
		{[]string{"tls_cert", cert, "tls_key", old}, `tls_key "` + old + `" is encrypted: ` + keyWanted},
		{[]string{"tls_cert", cert, "tls_key", brokenKey}, `tls_key "` + brokenKey + `" holds no private key of the certificate in "` + cert + `": ` + keyWanted},
		{[]string{"tls_cert", cert2, "tls_key", key}, `tls_key "` + key + `" holds no private key of the certificate in "` + cert2 + `": ` + keyWanted},
	} {
		query := make(url.Values)
		for i := 0; i < len(c.query); i += 2 {
			query.Add(c.query[i], c.query[i+1])
		}
		_, err := redlock.Open(t.Context(), []string{"rediss://user:hunter2@r1?" + query.Encode()})
		require.ErrorContains(t, err, "redlock: urls[0]: "+c.want)
		require.LessOrEqual(t, strings.Count(err.Error(), ": must be "), 1, err)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "aHVudGVyMg")
		for line := range strings.Lines(string(secret)) {
			require.NotContains(t, err.Error(), strings.TrimSpace(line))
		}
		query = url.Values{"tls_ca": {ca}}
		for _, scheme := range []string{"redis://r1", "valkey://r1", "unix:///tmp/no-such.sock"} {
			_, err = redlock.Open(t.Context(), []string{scheme + "?" + query.Encode()})
			require.ErrorContains(t, err, "redlock: urls[0]: tls_ca without TLS: the scheme must be rediss or valkeys")
		}
	}
}

// What a server lacks is said at the first use, with what needs it.
func TestWhatAServerLacksIsSaidWithWhatNeedsIt(t *testing.T) {
	without := func(command string) *redistest.Server { return redistest.Start(t, "--rename-command", command, "") }
	refuses := func(s *redistest.Server, url, want string, opts ...redlock.Option) {
		t.Helper()
		l := lockertest.Open(t, []string{url}, append(opts, redlock.WithNodeTimeout(eventually.Soon))...)
		for range 2 {
			_, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			require.ErrorContains(t, err, s.Addr()+": ")
			require.ErrorContains(t, err, want)
		}
		_, held := s.Get(t, "k")
		require.False(t, held)
	}
	for _, command := range []string{"EVAL", "EVALSHA"} {
		s := without(command)
		refuses(s, s.URL(), `with "k": unknown command '`+command+"' (every lock needs EVALSHA and EVAL: nothing works without them)")
	}
	s := redistest.Start(t)
	for denial, want := range map[string]string{
		"-evalsha": "(every lock needs EVALSHA and EVAL: nothing works without them)",
		"-info":    "(WithRestartGuard needs INFO in scripts; without that option locks, queues and fences work)",
		"-time":    "(WithRestartGuard needs TIME in scripts; without that option locks and fences work, and waits poll)",
	} {
		must(t, s, "ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all", denial)
		url := "redis://app:secret@" + s.Addr()
		refuses(s, url, want, redlock.WithRestartGuard(time.Minute, 0))
		if denial == "-info" {
			kind, failure := waitOnce(t, url, time.Hour)
			require.Equal(t, redlock.WaitGranted, kind)
			require.NoError(t, failure)
		}
	}

	s = without("TIME")
	kind, failure := waitOnce(t, s.URL(), 50*ms)
	require.Equal(t, redlock.WaitPolled, kind)
	require.ErrorContains(t, failure, "(queues need TIME in scripts; without them waits poll)")
	for _, query := range []string{"", "?protocol=2"} { // a server before Redis 6 does not know HELLO
		kind, failure = waitOnce(t, without("HELLO").URL()+query, time.Hour)
		require.Equal(t, redlock.WaitGranted, kind)
		require.NoError(t, failure)
	}
}

// waitOnce waits for a fenced lock that another Locker holds, and tries again after each pause.
// It returns how the wait ended, and why no queue served it.
func waitOnce(t *testing.T, url string, pause time.Duration) (kind redlock.WaitKind, failure error) {
	t.Helper()
	l := lockertest.Open(t, []string{url}, redlock.WithFence(), redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
		err := next(ctx, op)
		kind, failure = op.Wait, op.QueueErr
		return err
	})))
	held, err := lockertest.Open(t, []string{url}).TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	released := make(chan error, 1)
	time.AfterFunc(200*ms, func() { released <- held.Release(context.Background()) })
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	lock, err := l.Acquire(ctx, "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(pause, 0, -1)))
	require.NoError(t, err)
	require.NoError(t, <-released)
	require.NoError(t, lock.Release(t.Context()))
	return kind, failure
}
