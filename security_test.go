package redlock_test

import (
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

const password = "correct-horse"

// aclLine returns the ACL SETUSER of SECURITY.md that follows the comment with this
// beginning, as a command with our password.
func aclLine(t *testing.T, comment string) []string {
	t.Helper()
	document, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(document), "\n# "+comment)
	require.True(t, ok, "SECURITY.md has no line for: %s", comment)
	_, rest, _ = strings.Cut(rest, "\n")
	line, _, _ := strings.Cut(rest, "\n")
	require.Contains(t, line, "ACL SETUSER redlock ")
	return strings.Fields(strings.ReplaceAll(line, "PASSWORD", password))
}

const (
	aclServer   = "every server that holds locks"
	aclQueue    = "for the queues of waiters"
	aclGuard    = "for WithRestartGuard"
	aclCluster  = "in a Cluster, besides"
	aclChannels = "for the queues of a Cluster"
	aclGroup    = "in a Sentinel group, besides"
	aclSentinel = "the Sentinels themselves"
	aclProbes   = "idle connections are probed"
	aclName     = "connections tell the name"
)

// must sends a command to the server, and returns its reply. On a loaded machine the 2 s
// that the oracle takes for one may not be enough.
func must(t *testing.T, s *redistest.Server, args ...string) any {
	t.Helper()
	for deadline := time.Now().Add(eventually.Soon); ; {
		reply, err := s.Do(args...)
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() && time.Now().Before(deadline) {
			continue
		}
		require.NoError(t, err, "%q", args)
		return reply
	}
}

// refused returns the denials in the server's ACL LOG.
func refused(t *testing.T, s *redistest.Server) []string {
	t.Helper()
	var objects []string
	for _, entry := range must(t, s, "ACL", "LOG").([]any) {
		fields := entry.([]any)
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == "object" {
				objects = append(objects, fields[i+1].(string))
			}
		}
	}
	return objects
}

// errNoPermission matches the denials of a server. The second form is that of a script up
// to Redis 7.0, the third that of a script since then.
var errNoPermission = regexp.MustCompile(`NOPERM|The user executing the script can't|ACL failure in script`)

// allowName lets connections tell the name of the client library. Redis 7.0 does
// not know the command, and does not note it either.
func allowName(t *testing.T, servers ...*redistest.Server) {
	t.Helper()
	if redistest.AtLeast(t, 7, 0) && !redistest.AtLeast(t, 7, 2) {
		return
	}
	for _, s := range servers {
		must(t, s, aclLine(t, aclName)...)
	}
}

// everything sends each kind of command that a Locker with this one node sends, and
// returns the denials. Once all commands are allowed it leaves no key.
func everything(t *testing.T, l *redlock.Locker, s *redistest.Server, prefix string) error {
	t.Helper()
	must(t, s, "SCRIPT", "FLUSH")
	var errs []error
	for _, keys := range [][]string{{prefix + "1"}, {prefix + "1a", prefix + "1b"}, {prefix + "2"}, {prefix + "2a", prefix + "2b"}} {
		lock, err := l.TryAcquireAll(t.Context(), keys, time.Minute)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, lock.Extend(t.Context(), time.Hour))
		if strings.HasPrefix(keys[0], prefix+"1") {
			errs = append(errs, lock.Release(t.Context()))
			continue
		}
		must(t, s, "DEL", keys[0])
		if err := lock.Extend(t.Context(), time.Hour); !errors.Is(err, redlock.ErrLost) { // set again, and no vote
			errs = append(errs, err, lock.Release(t.Context()))
		}
	}
	return errors.Join(errs...)
}

// The rights in SECURITY.md are enough, and each of them is needed.
func TestTheACLOfSecurityMdIsEnoughAndMinimal(t *testing.T) {
	s := redistest.Start(t)
	line := aclLine(t, aclServer)
	must(t, s, line...)
	l := lockertest.Open(t, []string{"redis://redlock:" + password + "@" + s.Addr()}, redlock.WithNodeTimeout(eventually.Soon))
	run := func() error { return everything(t, l, s, "lock:") }
	nothingLeft := func() bool { return len(s.Keys(t)) == 0 }
	require.NoError(t, run())
	eventually.True(t, "nothing is left", nothingLeft)

	denials := []string{"resetkeys"}
	for _, rule := range line {
		if command, ok := strings.CutPrefix(rule, "+"); ok {
			denials = append(denials, "-"+command)
		}
	}
	require.Len(t, denials, 9)
	for _, what := range denials {
		must(t, s, "ACL", "SETUSER", "redlock", what)
		must(t, s, "ACL", "LOG", "RESET")
		err := run()
		require.ErrorIs(t, err, redlock.ErrNoQuorum, what)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired, "%s: refused is not held by others", what)
		require.Regexp(t, errNoPermission, err.Error(), what)
		require.NotEmpty(t, refused(t, s), what)
		must(t, s, line...)
		eventually.True(t, "nothing is left once it is allowed again", nothingLeft)
	}
	_, err := l.TryAcquire(t.Context(), "other", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, "NOPERM")

	// What is not needed is refused quietly, but noted, until it is allowed.
	must(t, s, "ACL", "LOG", "RESET")
	eventually.True(t, "an idle connection is probed", func() bool { return fmt.Sprint(refused(t, s)) == "[ping]" })
	_, err = l.Ping(t.Context())
	require.NoError(t, err, "it needs no more than a lock does")
	must(t, s, aclLine(t, aclProbes)...)
	must(t, s, "ACL", "LOG", "RESET")
	allowName(t, s)
	again := lockertest.Open(t, []string{"redis://redlock:" + password + "@" + s.Addr()})
	require.NoError(t, everything(t, again, s, "lock:"))
	_, err = again.Ping(t.Context())
	require.NoError(t, err)
	probes := func() string {
		_, probes, _ := strings.Cut(must(t, s, "INFO", "commandstats").(string), "cmdstat_ping:")
		probes, _, _ = strings.Cut(probes, ",")
		return probes
	}
	before := probes()
	eventually.True(t, "another probe", func() bool { return probes() != before })
	require.Empty(t, refused(t, s))
}

// An older set of rights has no pattern for what is beside the keys of locks.
func TestAUserWhoMayAccessOnlyTheKeysOfLocksReleasesThem(t *testing.T) {
	s := redistest.Start(t)
	must(t, s, aclLine(t, aclServer)...)
	must(t, s, "ACL", "SETUSER", "redlock", "resetkeys", "~lock:*")
	l := lockertest.Open(t, []string{"redis://redlock:" + password + "@" + s.Addr()})
	for range 3 {
		require.NoError(t, everything(t, l, s, "lock:"))
	}
	eventually.True(t, "nothing is left", func() bool { return len(s.Keys(t)) == 0 })
}

// With the rights for the queues a wait is ended by a grant. Without any one of
// them it ends all the same, and every lock is released.
func TestTheACLForTheQueuesOfSecurityMdIsEnoughAndMinimal(t *testing.T) {
	s := redistest.Start(t)
	line := aclLine(t, aclQueue)
	if !redistest.AtLeast(t, 6, 2) {
		line = slices.DeleteFunc(line, func(rule string) bool { return strings.HasPrefix(rule, "&") })
	}
	must(t, s, aclLine(t, aclServer)...)
	must(t, s, line...)
	allowName(t, s)
	wait := func() (redlock.WaitKind, error) {
		var ended redlock.WaitKind
		url := "redis://redlock:" + password + "@" + s.Addr()
		l := lockertest.Open(t, []string{url}, redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			err := next(ctx, op)
			ended = op.Wait
			return err
		})))
		other := lockertest.Open(t, []string{url})
		held, err := other.TryAcquire(t.Context(), "lock:k", time.Minute)
		require.NoError(t, err)
		time.AfterFunc(100*ms, func() { _ = held.Release(t.Context()) })
		lock, err := l.Acquire(t.Context(), "lock:k", time.Minute, redlock.WithRetry(redlock.FixedRetry(300*ms, 0, -1)))
		if err == nil {
			err = lock.Release(t.Context())
		}
		return ended, errors.Join(err, l.Close(), other.Close())
	}
	must(t, s, "ACL", "LOG", "RESET")
	ended, err := wait()
	require.NoError(t, err)
	require.Equal(t, redlock.WaitGranted, ended)
	require.Empty(t, slices.DeleteFunc(refused(t, s), func(what string) bool { return what == "ping" }))
	for _, rule := range line {
		command, ok := strings.CutPrefix(rule, "+")
		if !ok {
			continue
		}
		must(t, s, "ACL", "SETUSER", "redlock", "-"+command)
		must(t, s, "ACL", "LOG", "RESET")
		_, err := wait()
		require.NoError(t, err, command)
		require.NotEmpty(t, refused(t, s), command)
		must(t, s, line...)
		eventually.True(t, "no lock is left", func() bool { _, held := s.Get(t, "lock:k"); return !held })
	}
}

// With the rights for fences and for the restart guard, a lock that has both is
// acquired, confirmed where the counters differ, and granted by the queues.
// Without any one of the rights it is refused.
func TestTheACLForFencesAndTheGuardOfSecurityMdIsEnoughAndMinimal(t *testing.T) {
	servers := redistest.StartN(t, 3)
	queue := aclLine(t, aclQueue)
	if !redistest.AtLeast(t, 6, 2) {
		queue = slices.DeleteFunc(queue, func(rule string) bool { return strings.HasPrefix(rule, "&") })
	}
	each := func(args ...string) {
		for _, s := range servers {
			must(t, s, args...)
		}
	}
	allow := func() {
		for _, comment := range []string{aclServer, aclGuard} {
			each(aclLine(t, comment)...)
		}
	}
	allow()
	allowName(t, servers...)
	var urls []string
	for _, s := range servers {
		urls = append(urls, "redis://redlock:"+password+"@"+s.Addr())
	}
	open := func() *redlock.Locker {
		return lockertest.Open(t, urls, redlock.WithFence(), redlock.WithRestartGuard(time.Minute, 0), redlock.WithNodeTimeout(eventually.Soon),
			redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1))) // a wait is ended by a grant, or not at all
	}
	l := open()

	_, err := l.TryAcquire(t.Context(), "lock:k", time.Minute)
	var failed *redlock.QuorumError
	require.ErrorAs(t, err, &failed)
	require.True(t, slices.ContainsFunc(failed.Nodes, func(node redlock.NodeError) bool {
		return errors.As(node, new(*redlock.QuarantineError))
	}), "%v", err) // the last is not waited for
	require.NoError(t, l.TrustNodes(t.Context()))

	// Nodes that disagree are asked to confirm, and have no right that is for that alone.
	const ahead = int64(1) << 52
	must(t, servers[0], "SET", "{lock:k}:redlock:fence", fmt.Sprint(ahead))
	must(t, servers[1], "SET", "{lock:k}:redlock:fence", fmt.Sprint(ahead+1))
	fenced := func(key string) int64 {
		lock, err := l.TryAcquire(t.Context(), key, time.Minute)
		require.NoError(t, err)
		require.NoError(t, lock.Extend(t.Context(), 0))
		require.NoError(t, lock.Release(t.Context()))
		return lock.Fence()
	}
	require.Greater(t, fenced("lock:k"), ahead)
	require.Positive(t, fenced("lock:{k}"))

	each(queue...)
	held, err := open().TryAcquire(t.Context(), "lock:k", time.Minute)
	require.NoError(t, err)
	time.AfterFunc(100*ms, func() { _ = held.Release(t.Context()) })
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Soon)
	defer cancel()
	granted, err := l.Acquire(ctx, "lock:k", time.Minute)
	require.NoError(t, err)
	require.Greater(t, granted.Fence(), held.Fence())
	require.NoError(t, granted.Release(t.Context()))
	for _, s := range servers {
		require.Subset(t, []string{"ping"}, refused(t, s))
	}

	for what, denial := range map[string][]string{
		"the counters": {"resetkeys", "~lock:*", "~redlock:guard"},
		"the marker":   {"resetkeys", "~lock:*", "~{lock:*"},
		"INFO":         {"-info"},
		"TIME":         {"-time"},
	} {
		each(append([]string{"ACL", "SETUSER", "redlock"}, denial...)...)
		_, err := l.TryAcquire(t.Context(), "lock:k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum, what)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired, what)
		require.Regexp(t, errNoPermission, err.Error(), what)
		allow()
		eventually.True(t, "the nodes vote again: "+what, func() bool {
			lock, err := l.TryAcquire(t.Context(), "lock:k", time.Minute)
			return err == nil && lock.Release(t.Context()) == nil
		})
	}
}

func TestAWrongPasswordIsAnErrorThatDoesNotRepeatIt(t *testing.T) {
	s := redistest.Start(t)
	must(t, s, aclLine(t, aclServer)...)
	for _, user := range []string{"redlock", "unknown"} {
		l := lockertest.Open(t, []string{"redis://" + user + ":hunter2-hunter2@" + s.Addr()})
		_, err := l.TryAcquire(t.Context(), "lock:k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired)
		require.NotContains(t, err.Error(), "hunter2")
		require.ErrorContains(t, err, "WRONGPASS")
	}
}

// aclOfACluster is that test for a Cluster, aclOfAGroup for a Sentinel group.
func aclOfACluster(t *testing.T, c *redistest.Cluster) {
	each := func(args ...string) {
		for _, s := range c.Servers() {
			must(t, s, args...)
		}
	}
	each(aclLine(t, aclServer)...)
	more := aclLine(t, aclCluster)
	each(more...)
	allowName(t, c.Servers()...)
	connect := func(shards bool) (*redlock.Locker, error) {
		option := redlock.Tune(rueidis.ClientOption{InitAddress: c.Addrs(), Username: "redlock", Password: password, Dialer: patient})
		option.ClusterOption.PreferClusterShards = shards // heeded on Redis 7: up to 6 SLOTS is asked, from 8 on SHARDS
		client, err := rueidis.NewClient(option)
		if err != nil {
			return nil, err
		}
		t.Cleanup(client.Close)
		l, err := redlock.New([]rueidis.Client{client})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		return l, nil
	}
	move := func(l *redlock.Locker) error {
		to := c.Servers()[0]
		if c.Owner("lock:{m}") == to {
			to = c.Servers()[1]
		}
		c.BeginMove("lock:{m}", to)
		defer c.EndMove("lock:{m}", to)
		lock, err := l.TryAcquire(t.Context(), "lock:{m}", time.Minute)
		if err == nil {
			err = lock.Release(t.Context())
		}
		return err
	}
	for _, shards := range []bool{false, true} {
		l, err := connect(shards)
		require.NoError(t, err)
		for _, s := range c.Servers() {
			require.NoError(t, everything(t, l, s, "lock:{"+c.KeyOf(s, "")+"}"))
		}
		require.NoError(t, move(l))
	}
	for _, s := range c.Servers() {
		require.Subset(t, []string{"ping"}, refused(t, s))
	}
	l, err := connect(false)
	require.NoError(t, err)
	for _, rule := range more[3:] {
		denial := "-" + rule[1:]
		if !redistest.AtLeast(t, 7, 0) { // which has no shards, and denies whole commands only
			if rule == "+cluster|shards" {
				continue
			}
			denial, _, _ = strings.Cut(denial, "|")
		}
		each("ACL", "SETUSER", "redlock", denial)
		switch rule {
		case "+cluster|slots":
			if _, err = connect(false); redistest.AtLeast(t, 8, 0) {
				require.NoError(t, err, "no client asks for slots")
			} else {
				require.ErrorContains(t, err, "NOPERM")
			}
		case "+cluster|shards":
			_, err = connect(true)
			require.ErrorContains(t, err, "NOPERM")
		case "+asking": // the servers send the client to and fro for as long as the slot moves
			require.ErrorIs(t, move(l), redlock.ErrNoQuorum)
		default:
			t.Fatal("not tested:", rule)
		}
		each(more...)
	}
}

// aclOfTheQueuesOfACluster is TestTheACLForTheQueuesOfSecurityMdIsEnoughAndMinimal for a Cluster.
// Where a server refuses the subscription, an operation says so.
func aclOfTheQueuesOfACluster(t *testing.T, c *redistest.Cluster) {
	each := func(args ...string) {
		for _, s := range c.Servers() {
			must(t, s, args...)
		}
	}
	line := aclLine(t, aclChannels)
	allow := func() {
		each(aclLine(t, aclServer)...)
		each(aclLine(t, aclCluster)...)
		each(line...)
		allowName(t, c.Servers()...)
	}
	url := strings.Replace(c.URL(), "redis://", "redis://redlock:"+password+"@", 1)
	wait := func(key string) (kind redlock.WaitKind, failure error) {
		l := lockertest.Open(t, []string{url}, redlock.WithMiddleware(lockertest.On(redlock.OpAcquire, func(ctx context.Context, op *redlock.Op, next redlock.Handler) error {
			err := next(ctx, op)
			kind, failure = op.Wait, op.QueueErr
			return err
		})))
		other := lockertest.Open(t, []string{url})
		held, err := other.Acquire(t.Context(), key, time.Minute, untilFree)
		require.NoError(t, err)
		time.AfterFunc(time.Second, func() { _ = held.Release(t.Context()) })
		lock, err := l.Acquire(t.Context(), key, time.Minute, redlock.WithRetry(redlock.FixedRetry(300*ms, 0, -1)))
		require.NoError(t, err)
		require.NoError(t, lock.Release(t.Context()))
		require.NoError(t, errors.Join(l.Close(), other.Close()))
		return kind, failure
	}
	denials := func() (what []string) {
		for _, s := range c.Servers() {
			what = append(what, refused(t, s)...)
		}
		return slices.DeleteFunc(what, func(what string) bool { return what == "ping" })
	}
	allow()
	for _, key := range []string{"lock:k", "lock:{k}"} {
		each("ACL", "LOG", "RESET")
		kind, failure := wait(key)
		require.Equal(t, redlock.WaitGranted, kind)
		require.NoError(t, failure)
		require.Empty(t, denials())
		for _, rule := range line[3:] {
			denial := []string{"-" + strings.TrimPrefix(rule, "+")}
			if strings.HasPrefix(rule, "&") {
				denial = append([]string{"resetchannels"}, slices.DeleteFunc(slices.Clone(line[3:5]), func(other string) bool { return other == rule })...)
			}
			if (rule == "&lock:*") == (key == "lock:k") && (key == "lock:{k}" || strings.HasPrefix(rule, "&")) {
				continue // is for the other key, or tested with that
			}
			each(append([]string{"ACL", "SETUSER", "redlock"}, denial...)...)
			each("ACL", "LOG", "RESET")
			_, failure := wait(key)
			require.NotEmpty(t, denials(), rule)
			if rule == "+ssubscribe" || strings.HasPrefix(rule, "&") {
				require.ErrorContains(t, failure, "SSUBSCRIBE: NOPERM", rule)
				require.ErrorContains(t, failure, "see SECURITY.md; without them waits poll", rule)
				require.ErrorContains(t, failure, "node 127.0.0.1:", rule)
			}
			allow()
		}
	}
	each("ACL", "LOG", "RESET")
}

func aclOfAGroup(t *testing.T, g *redistest.Sentinel) {
	all := func(args []string) {
		for _, s := range g.Servers() {
			must(t, s, args...)
		}
	}
	all(aclLine(t, aclServer))
	all(aclLine(t, aclGroup))
	allowName(t, g.Servers()...)
	line := aclLine(t, aclSentinel)
	option := redlock.Tune(rueidis.ClientOption{
		InitAddress: g.Addrs(),
		Username:    "redlock", Password: password, Dialer: patient,
		Sentinel: rueidis.SentinelOption{MasterSet: redistest.MasterSet, Username: "redlock", Password: password},
	})
	if !redistest.AtLeast(t, 6, 2) { // whose Sentinels have no users
		line, option.Sentinel.Username, option.Sentinel.Password = nil, "", ""
	}
	allow := func() {
		if line == nil {
			return
		}
		for _, s := range g.Sentinels() {
			must(t, s, line...)
		}
		allowName(t, g.Sentinels()...)
	}
	allow()
	connect := func() (*redlock.Locker, func(), error) {
		client, err := rueidis.NewClient(option)
		if err != nil {
			return nil, nil, err
		}
		l, err := redlock.New([]rueidis.Client{client})
		require.NoError(t, err)
		return l, func() {
			assert.NoError(t, l.Close())
			client.Close()
		}, nil
	}
	l, stop, err := connect()
	require.NoError(t, err)
	require.NoError(t, everything(t, l, g.Master(), "lock:"))
	stop()
	noted := func() (objects []string) {
		for _, s := range g.Sentinels() {
			objects = append(objects, refused(t, s)...)
		}
		return objects
	}
	if line != nil {
		require.Empty(t, noted())
	}
	for _, s := range g.Servers() {
		require.Subset(t, []string{"ping"}, refused(t, s))
	}

	all([]string{"ACL", "SETUSER", "redlock", "-role"})
	_, _, err = connect()
	require.ErrorContains(t, err, "NOPERM")
	all(aclLine(t, aclGroup))
	for _, rule := range line {
		var denial string
		switch {
		case strings.HasPrefix(rule, "+"):
			denial = "-" + rule[1:]
		case strings.HasPrefix(rule, "&"):
			denial = "resetchannels"
		default:
			continue
		}
		for _, s := range g.Sentinels() {
			must(t, s, "ACL", "SETUSER", "redlock", denial)
			must(t, s, "ACL", "LOG", "RESET")
		}
		if _, stop, err := connect(); err != nil {
			require.ErrorContains(t, err, "NOPERM", denial)
		} else {
			eventually.True(t, "something is refused: "+denial, func() bool { return len(noted()) > 0 })
			stop()
		}
		allow()
	}
}

func TestTLSWithClientCertificates(t *testing.T) {
	var clients []rueidis.Client
	var servers []*redistest.TLSServer
	for range 3 {
		s := redistest.StartTLS(t)
		client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{
			InitAddress:       []string{s.TLSAddr()},
			ForceSingleClient: true,
			TLSConfig:         s.TLSConfig(t),
			Dialer:            patient,
		}))
		require.NoError(t, err)
		t.Cleanup(client.Close)
		clients, servers = append(clients, client), append(servers, s)
	}
	l, err := redlock.New(clients)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	err = redlock.Do(t.Context(), l, "k", 10*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		for _, s := range servers {
			eventually.True(t, "each holds it", func() bool { value, _ := s.Get(t, "k"); return value == lock.Token() })
		}
		return lock.Extend(ctx, time.Minute)
	})
	require.NoError(t, err)
	eventually.True(t, "nothing is left", func() bool { return len(servers[0].Keys(t))+len(servers[1].Keys(t))+len(servers[2].Keys(t)) == 0 })

	for _, c := range []struct{ scheme, query, want string }{
		{"rediss", "?dial_timeout=20s", "certificate signed by unknown authority"},
		// The server wants ours: we read that, or fail to write to a connection
		// that it has closed.
		{"rediss", "?dial_timeout=20s&skip_verify=true", "certificate required|reset by peer|broken pipe|EOF"},
		{"redis", "?dial_timeout=20s", "reset by peer|broken pipe|EOF"},
	} {
		var urls []string
		for _, s := range servers {
			urls = append(urls, c.scheme+"://user:"+password+"@"+s.TLSAddr()+c.query)
		}
		_, err := lockertest.Open(t, urls).TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.NotErrorIs(t, err, redlock.ErrNotAcquired)
		require.Regexp(t, c.want, err.Error())
		require.ErrorContains(t, err, servers[0].TLSAddr())
		require.NotContains(t, err.Error(), password)
	}
}

// rediss:// is TLS on every connection, those to Sentinels and to the other
// servers of a Cluster too.
func TestRedissIsNeverPlain(t *testing.T) {
	settle(t)
	for _, query := range []string{"", "?master_set=mymaster", "?addr=127.0.0.1:1"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		first := make(chan byte, 1)
		go func() {
			defer ln.Close()
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, 1)
			_, _ = conn.Read(b)
			first <- b[0]
		}()
		lockertest.Open(t, []string{"rediss://user:" + password + "@" + ln.Addr().String() + query})
		require.Equal(t, byte(22), <-first, "a TLS handshake: %s", query)
	}
}

func TestTokensAre128BitsAndUnique(t *testing.T) {
	l := start(t, 3).open()
	var mu sync.Mutex
	seen := make(map[string]bool)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				lock, err := l.TryAcquire(t.Context(), fmt.Sprint(i, "-", j), time.Minute)
				if !assert.NoError(t, err) {
					return
				}
				assert.Equal(t, lock.Token(), token.FindString(lock.Token()))
				_, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(lock.Token()[:26])
				assert.NoError(t, err)
				mu.Lock()
				assert.False(t, seen[lock.Token()])
				seen[lock.Token()] = true
				mu.Unlock()
				assert.NoError(t, lock.Release(t.Context()))
			}
		})
	}
	all.Wait()
	require.GreaterOrEqual(t, 26*5, 128)
	require.Len(t, seen, 8*50)
}
