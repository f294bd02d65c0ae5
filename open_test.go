package redlock_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func TestBadURLsAreRefusedWithoutTheirPasswords(t *testing.T) {
	for _, c := range []struct {
		urls []string
		want string
	}{
		{nil, "redlock: no nodes: at least one is needed, three or five are usual"},
		{[]string{"redis://a", "http://user:secret@b"}, "redlock: urls[1]: invalid URL scheme: http: must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://user:secret@a:port"}, "redlock: urls[0]: not a URL: must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"user:secret@a"}, "redlock: urls[0]: not a URL: must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://user:secret@a/x"}, `redlock: urls[0]: the path is not the number of a database: must be like redis://[user:password@]host[:port][/db]`},
		{[]string{"redis://a", "redis://b", "redis://user:secret@a:6379/2"}, "redlock: urls[0] and urls[2] are the same node, a:6379: a node votes once"},
		{[]string{"redis://localhost", "redis://127.0.0.1:6379/2"}, "redlock: urls[0] and urls[1] are the same node, 127.0.0.1:6379: a node votes once"},
		{[]string{"redis://a:1?addr=b:1", "redis://B:1?addr=c:1"}, "redlock: urls[0] and urls[1] are the same node, B:1: a node votes once"},
		{[]string{"redis://a:1?addr=b:1&master_set=m", "redis://b:1?master_set=m"}, "redlock: urls[0] and urls[1] are the same node, b:1: a node votes once"},
		{[]string{"unix:///tmp/a", "unix:///tmp/a"}, "redlock: urls[0] and urls[1] are the same node, /tmp/a: a node votes once"},
		{[]string{"redis://user:1/secret@a:6379"}, "redlock: urls[0]: an @ after the host (what is special in a password must be percent-encoded): must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://user:1?db=secret@a"}, "redlock: urls[0]: an @ after the host (what is special in a password must be percent-encoded): must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://user:sec@ret/secret@a"}, "redlock: urls[0]: an @ after the host (what is special in a password must be percent-encoded): must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"unix://"}, "redlock: urls[0]: no path of a socket: must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://a?dial_timeout=-1s"}, "redlock: urls[0]: a timeout is negative: must be like redis://[user:password@]host[:port][/db]"},
		{[]string{"redis://a:1?addr=b&master_set=m"}, "redlock: urls[0]: addr is not host:port: must be like redis://[user:password@]host[:port][/db]"},
		{make([]string, 65), "redlock: 65 nodes: at most 64 are supported"},
	} {
		l, err := redlock.Open(context.Background(), c.urls)
		require.Nil(t, l, c.want)
		require.EqualError(t, err, c.want)
		require.NotContains(t, err.Error(), "secret")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := redlock.Open(ctx, []string{"redis://127.0.0.1:1"})
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhatIsNotAURLIsRefusedWithoutAWordOfIt(t *testing.T) {
	for _, text := range []string{
		"", " ", "hunter2", "hunter2:6379", "r1:6379,password=hunter2", "r1:6379,password=hunter2,ssl=True,abortConnect=False",
		"host=r1 port=6379 password=hunter2", "Server=r1;Password=hunter2;", `{"host":"r1","password":"hunter2"}`, `["redis://:hunter2@r1:6379"]`,
		`"redis://:hunter2@r1:6379"`, "'redis://:hunter2@r1:6379'", " redis://:hunter2@r1:6379", "redis://:hunter2@r1:6379 ", "redis://:hunter2@r1:6379\n",
		"redis://:hunter2@r1 :6379", "redis://:hunter 2@r1:6379", "redis://:hunter2@r1:6379,", "redis://:hunter2@r1:6379;", "redis://r1:6379,password=hunter2",
		"redis://r1:6379,hunter2", "redis://r1:6379:hunter2", "redis://r1,hunter2", "redis://hunter2=", "redis://hunter2!", "redis://hunter2+x:6379", "redis://-hunter2", "redis://hunter2-.example", "redis://hünter2",
		"redis://:6379", "redis://", "redis:///2", "redis://user:hunter2@", "redis://user:hunter2@:6379", "redis://user:hunter2", "redis://:hunter2/x+9=@r1:6379",
		"redis://r1:0", "redis://r1:65536", "redis://r1:", "redis://r1:6379x", "redis://::1:6379", "redis://[r1]:6379", "redis://[10.0.0.1]:6379", "redis://10.0.0", "redis://10.0.0.256", "redis://0x7f000001.1",
		"redis://a..b", "redis://.a", "redis://" + strings.Repeat("a", 64), "redis://" + strings.Repeat("a.", 130),
		"redis://r1/hunter2", "redis://r1/", "redis://r1/-1", "redis://r1/1/2", "redis://r1?db=hunter2", "redis://r1#hunter2", "redis://:pass#hunter2",
		"redis://r1?password=hunter2", "redis://r1?ssl=true", "redis://r1?hunter2", "redis://r1?a=1;b=2", "redis://r1?db=%zz",
		"redis://r1?dial_timeout=hunter2", "redis://r1?write_timeout=-1s", "redis://r1?skip_verify=hunter2", "redis://r1?client_name=a%20hunter2", "redis://r1?addr=hunter2", "redis://r1:1?addr=hunter2=:1", "redis://r1:1?addr=:1",
		"redis:r1", "redis:r1:6379", "redis:/r1", "user:hunter2@r1:6379", ":hunter2@r1:6379", "//user:hunter2@r1", "hunter2://r1", "tcp://:hunter2@r1:6379", "jdbc:redis://:hunter2@r1:6379",
		"unix://", "unix:///", "unix://tmp/hunter2.sock",
	} {
		l, err := redlock.Open(t.Context(), []string{"redis://r0", text})
		require.Nil(t, l, text)
		require.ErrorContains(t, err, "redlock: urls[1]: ", text)
		require.ErrorContains(t, err, ": must be like redis://[user:password@]host[:port][/db]", text)
		require.NotContains(t, err.Error(), "hunter", text)
		require.NotContains(t, err.Error(), "r1", text)
	}
}

func TestURLsOfEveryKindAreAccepted(t *testing.T) {
	for _, text := range []string{
		"redis://127.0.0.1", "redis://127.0.0.1:1/2", "valkey://127.0.0.1:1", "redis://[::1]:1", "redis://[::1]", "redis://LOCALHOST.:1", "redis://a_b-c.d1.invalid:1",
		"redis://user:p%40ss%2Fword,;='+%23@127.0.0.1:1", "redis://:p@ss:word@127.0.0.1:1", "rediss://127.0.0.1:1?skip_verify=true", "valkeys://127.0.0.1:1?skip_verify",
		"redis://127.0.0.1:1?db=1&dial_timeout=1s&write_timeout=1s&protocol=2&client_cache=0&max_retries=0&client_name=a-b",
		"redis://127.0.0.1:1?addr=127.0.0.2:1", "redis://127.0.0.1:1?addr=[::1]:2&master_set=my-group.1", "unix:///tmp/no%20such.sock", "unix://user:password@/tmp/no-such.sock?db=1",
	} {
		l, err := redlock.Open(t.Context(), []string{text})
		require.NoError(t, err, text)
		require.NoError(t, l.Close())
	}
}

// A node may be reached by a socket.
func TestASocketOfThisMachineIsANode(t *testing.T) {
	server := redistest.Start(t, "--unixsocket", "redis.sock", "--maxclients", "1")
	l := lockertest.Open(t, []string{"unix://" + server.Dir() + "/redis.sock"})
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	defer lock.Release(t.Context())
	other := lockertest.Open(t, []string{"unix://" + server.Dir() + "/redis.sock"})
	_, err = other.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorContains(t, err, "not connected: ERR max number of clients reached")
}

func TestNodesThatAreDownAtOpenTakePartAsSoonAsTheyAnswer(t *testing.T) {
	ns := start(t, 3)
	for _, s := range ns.servers {
		s.Kill()
	}
	l := ns.open()
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.ErrorContains(t, err, "not connected")

	ns.servers[0].Restart()
	ns.servers[2].Restart()
	lock, err := l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(20*ms, 0, -1)))
	require.NoError(t, err)
	require.NoError(t, lock.Release(t.Context()))

	ns.servers[1].Restart()
	eventually.True(t, "the third too", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.NoError(t, err)
		defer func() { require.NoError(t, lock.Release(t.Context())) }()
		_, ok := ns.servers[1].Get(t, "k")
		return ok
	})
}

// The server sends the error once, and closes the connection.
func TestAServerWithTooManyClientsIsQuoted(t *testing.T) {
	server := redistest.Start(t, "--maxclients", "1")
	occupied, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer occupied.Close()
	_, err = io.WriteString(occupied, "PING\r\n")
	require.NoError(t, err)
	_, err = bufio.NewReader(occupied).ReadString('\n')
	require.NoError(t, err)
	l := lockertest.Open(t, []string{server.URL()})
	for range 20 {
		_, err := l.TryAcquire(t.Context(), "k", time.Minute)
		require.ErrorIs(t, err, redlock.ErrNoQuorum)
		require.ErrorContains(t, err, "not connected: ERR max number of clients reached")
		wait(t.Context(), 20*ms)
	}
	occupied.Close()
	eventually.True(t, "it takes part as soon as it has room", func() bool {
		lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
		return err == nil && lock.Release(t.Context()) == nil
	})
}

// No ctx of the caller's has ended when a dial takes too long.
func TestTheErrorOfADialNeverReadsLikeAContexts(t *testing.T) {
	ns := start(t, 1)
	ns.proxies[0].BlackHole(true)
	defer ns.proxies[0].BlackHole(false)
	for url, want := range map[string]string{
		ns.proxies[0].URL() + "?dial_timeout=200ms": "not connected: the server did not accept a connection, or did not answer on it, in time",
		"redis://127.0.0.1:1":                       "not connected: dial tcp 127.0.0.1:1: connect: connection refused",
	} {
		l := lockertest.Open(t, []string{url})
		for range 5 {
			_, err := l.TryAcquire(t.Context(), "k", time.Minute)
			require.ErrorIs(t, err, redlock.ErrNoQuorum)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			require.NotContains(t, err.Error(), "context")
			require.ErrorContains(t, err, want)
			wait(t.Context(), 100*ms)
		}
	}
}
