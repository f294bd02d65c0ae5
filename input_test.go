package redlock_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
)

// unlike is a client of somebody's own, two of which cannot be compared.
type unlike struct {
	rueidis.Client
	_ []int
}

func TestClientsNeedNotBeComparable(t *testing.T) {
	ns := start(t, 1)
	client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{ns.servers[0].Addr()}}))
	require.NoError(t, err)
	defer client.Close()
	l, err := redlock.New([]rueidis.Client{unlike{Client: client}})
	require.NoError(t, err)
	require.NoError(t, redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil }))
	require.NoError(t, l.Close())
}

func TestBadNodesAndOptionsAreRefused(t *testing.T) {
	ns := start(t, 2)
	client := func(i int) rueidis.Client {
		c, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{InitAddress: []string{ns.servers[i].Addr()}}))
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	a, b, again := client(0), client(1), client(0)
	one := []rueidis.Client{a}
	for _, c := range []struct {
		nodes []rueidis.Client
		opts  []redlock.Option
		want  string
	}{
		{nil, nil, "redlock: no nodes: at least one is needed, three or five are usual"},
		{[]rueidis.Client{a, nil}, nil, "redlock: nodes[1] is nil: must be a client"},
		{[]rueidis.Client{a, b, a}, nil, "redlock: nodes[0] and nodes[2] are the same client: a node votes once"},
		{[]rueidis.Client{a, (*unlike)(nil)}, nil, "redlock: nodes[1] is nil: must be a client"},
		{[]rueidis.Client{b, a, again}, nil, "redlock: nodes[1] and nodes[2] are the same node, " + ns.servers[0].Addr() + ": a node votes once"},
		{one, []redlock.Option{nil}, "redlock: option 0 is nil"},
		{one, []redlock.Option{redlock.WithDriftFactor(-0.01)}, "redlock: WithDriftFactor(-0.01): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithDriftFactor(0.2)}, "redlock: WithDriftFactor(0.2): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithDriftFactor(math.NaN())}, "redlock: WithDriftFactor(NaN): must be between 0 and 0.1"},
		{one, []redlock.Option{redlock.WithNodeTimeout(0)}, "redlock: WithNodeTimeout(0s): must be above 0"},
		{one, []redlock.Option{redlock.WithNodeTimeout(-time.Second)}, "redlock: WithNodeTimeout(-1s): must be above 0"},
		{one, []redlock.Option{redlock.WithRetry(nil)}, "redlock: WithRetry(nil): must be a policy, such as NoRetry()"},
		{one, []redlock.Option{redlock.WithExtendThreshold(-1)}, "redlock: WithExtendThreshold(-1ns): must not be negative"},
		{one, []redlock.Option{redlock.WithGrace(-1)}, "redlock: WithGrace(-1ns): must not be negative"},
		{one, []redlock.Option{redlock.WithMaxHold(-1)}, "redlock: WithMaxHold(-1ns): must be 0 (no limit) or at least 10ms"},
		{one, []redlock.Option{redlock.WithMaxHold(ms)}, "redlock: WithMaxHold(1ms): must be 0 (no limit) or at least 10ms"},
	} {
		l, err := redlock.New(c.nodes, c.opts...)
		require.Nil(t, l, c.want)
		require.EqualError(t, err, c.want)
	}
}

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

func TestNamesThatTheLibraryUsesAreNoKeys(t *testing.T) {
	ns := start(t, 1)
	for prefix, keys := range map[string][]string{
		"":         {"k:waiters", "k:waiting", "k:fence", "{k}:fence", "{k}a:fence", ":fence", "redlock:guard"},
		"shop:":    {"k:waiters", "k:waiting", "{k}:fence"},
		"redlock:": {"guard"},
	} {
		l := ns.open(redlock.WithKeyPrefix(prefix), redlock.WithMiddleware(func(redlock.Handler) redlock.Handler {
			return func(context.Context, *redlock.Op) error { t.Error("it is asked for"); return nil }
		}))
		for _, key := range keys {
			want := fmt.Sprintf("redlock: acquire %q: the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard", prefix+key)
			never := func(context.Context) error { t.Error("it is held"); return nil }
			_, err := l.Acquire(t.Context(), key, time.Second)
			require.EqualError(t, err, want)
			_, err = l.TryAcquire(t.Context(), key, time.Second, redlock.WithFence())
			require.EqualError(t, err, want)
			_, err = l.AcquireAll(t.Context(), []string{"a", key, "z"}, time.Second)
			require.EqualError(t, err, want)
			_, err = l.TryAcquireAll(t.Context(), []string{key, "a"}, time.Second)
			require.EqualError(t, err, want)
			require.EqualError(t, redlock.Do(t.Context(), l, key, time.Second, never), want)
			require.EqualError(t, redlock.Campaign(t.Context(), l, key, time.Second, never), want)
		}
	}
	require.Empty(t, ns.servers[0].Keys(t))
	l := ns.open()
	for _, key := range []string{"waiters", "k:waiters:1", "{k:fence}", "redlock:guard:1"} {
		lock, err := l.TryAcquire(t.Context(), key, time.Minute)
		require.NoError(t, err, key)
		require.NoError(t, lock.Release(t.Context()))
	}
}

func TestBadArgumentsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	ns := start(t, 1)
	l := ns.open()
	const ttl = time.Second
	for _, c := range []struct {
		keys []string
		ttl  time.Duration
		opts []redlock.LockOption
		want string
	}{
		{[]string{""}, ttl, nil, `redlock: acquire "": key is empty: any other string is accepted`},
		{nil, ttl, nil, `redlock: acquire: no keys: at least one is needed`},
		{[]string{"a", ""}, ttl, nil, `redlock: acquire ["a" ""]: keys[1] is empty: any other string is accepted`},
		{[]string{"k"}, 0, nil, `redlock: acquire "k": ttl 0s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, -ttl, nil, `redlock: acquire "k": ttl -1s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, 9 * ms, nil, `redlock: acquire "k": ttl 9ms: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, ttl, []redlock.LockOption{nil}, `redlock: acquire "k": option 0 is nil`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithRetry(nil)}, `redlock: acquire "k": WithRetry(nil): must be a policy, such as NoRetry()`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithExtendThreshold(ttl)}, `redlock: acquire "k": WithExtendThreshold(1s): must be below the ttl, 1s`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(2 * ttl)}, `redlock: acquire "k": WithGrace(2s): must be below the validity, 988ms: the ttl, 1s, less the drift`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(990 * ms), redlock.WithoutAutoExtend()}, `redlock: acquire "k": WithGrace(990ms): must be below the validity, 988ms: the ttl, 1s, less the drift`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(200 * ms), redlock.WithMaxHold(200 * ms)}, `redlock: acquire "k": WithGrace(200ms): must be below WithMaxHold, 200ms`},
		{[]string{"k"}, redlock.MaxTTL + 1, nil, `redlock: acquire "k": ttl 87600h0m0.000000001s: must be from 10ms to 87600h0m0s`},
		{[]string{"k"}, ttl, []redlock.LockOption{redlock.WithGrace(900 * ms)}, `redlock: acquire "k": WithGrace(900ms): must be below the threshold of extension, 666.666666ms, or the lock ends before it is extended`},
	} {
		lock, err := l.TryAcquireAll(t.Context(), c.keys, c.ttl, c.opts...)
		require.Nil(t, lock, c.want)
		require.EqualError(t, err, c.want)
		if len(c.keys) == 1 {
			_, err = redlock.With(t.Context(), l, c.keys[0], c.ttl, func(context.Context) (int, error) { return 0, nil }, c.opts...)
			require.EqualError(t, err, c.want)
		}
	}
	_, err := redlock.With[int](t.Context(), l, "k", ttl, nil)
	require.EqualError(t, err, `redlock: hold "k": fn is nil: must be a function`)
	require.EqualError(t, redlock.Do(t.Context(), l, "k", ttl, nil), `redlock: hold "k": fn is nil: must be a function`)
	reply, err := ns.servers[0].Do("INFO", "commandstats")
	require.NoError(t, err)
	require.NotContains(t, reply, "cmdstat_set:", "nothing was sent")

	held, err := l.TryAcquire(t.Context(), "k", ttl, redlock.WithGrace(100*ms))
	require.NoError(t, err)
	require.EqualError(t, held.Extend(t.Context(), ms), `redlock: extend "k": ttl 1ms: must be 0 (as acquired) or from 10ms to 87600h0m0s`)
	require.EqualError(t, held.Extend(t.Context(), math.MaxInt64), `redlock: extend "k": ttl 2562047h47m16.854775807s: must be 0 (as acquired) or from 10ms to 87600h0m0s`)
	require.EqualError(t, held.Extend(t.Context(), 103*ms), `redlock: extend "k": ttl 103ms: its validity, 99.97ms, must be above the grace, 100ms`)
	require.EqualError(t, held.AutoExtend(ttl), `redlock: extend "k": threshold 1s: must be 0 (the default) or above the grace, 100ms, and below the ttl, 1s`)
	require.EqualError(t, held.AutoExtend(50*ms), `redlock: extend "k": threshold 50ms: must be 0 (the default) or above the grace, 100ms, and below the ttl, 1s`)
	none := redlock.RetryPolicy(func() backoff.BackOff { return nil })
	_, err = l.Acquire(t.Context(), "k", ttl, redlock.WithRetry(none))
	require.ErrorContains(t, err, "redlock: acquire \"k\": WithRetry: the policy returned nil: must return a backoff.BackOff: ")
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	require.NoError(t, held.Release(t.Context()))
}
