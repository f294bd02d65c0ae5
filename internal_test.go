package redlock

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

// instant is a node that grants everything at once: what remains is our own
// cost.
type instant struct{}

func (instant) Do(_ context.Context, batch []node.Command) error {
	for i := range batch {
		batch[i].Outcome = node.Done
	}
	return nil
}

func (instant) Server([]string) string { return "" }

func (instant) Listen(context.Context, string, func(), func(node.Push)) error {
	return node.ErrNoPush
}
func (instant) Samples() []string { return []string{"k"} }
func (instant) Channels() node.Channels { // as servers have: keys are released through their queues
	return node.ChannelPerLocker
}
func (instant) Check([]string) error { return nil }
func (instant) Close()               {}

// cycle is a TryAcquire and a Release over three instant nodes.
func cycle(t testing.TB, opts ...Option) func() {
	config, err := configure(3, opts)
	require.NoError(t, err)
	l := newLocker(config, []voter{{"a", instant{}}, {"b", instant{}}, {"c", instant{}}})
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	ctx := context.Background()
	return func() {
		lock, err := l.TryAcquire(ctx, "k", time.Minute)
		if err == nil {
			err = lock.Release(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func passOn(next Handler) Handler {
	return func(ctx context.Context, op *Op) error { return next(ctx, op) }
}

// allocsPerCycle bounds the allocations of a TryAcquire and a Release over three nodes, and
// pooled is what its average may vary by from run to run. The race detector raises both.
var allocsPerCycle, pooled = 8, 0

func TestWithoutMiddlewareACycleAllocatesNothingForIt(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(2000, cycle(t)), float64(allocsPerCycle))
}

func TestABackgroundReleaseAllocatesNoMoreThanAnother(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(2000, cycle(t, WithBackgroundRelease())), float64(allocsPerCycle))
}

func TestAMiddlewareCostsTwoAllocationsPerOperation(t *testing.T) {
	const operations = 2 // acquire and release
	none, one := testing.AllocsPerRun(2000, cycle(t)), testing.AllocsPerRun(2000, cycle(t, WithMiddleware(passOn)))
	require.LessOrEqual(t, one, none+2*operations+float64(pooled))
}

func BenchmarkMiddleware(b *testing.B) {
	for name, opts := range map[string][]Option{"none": nil, "one": {WithMiddleware(passOn)}} {
		b.Run("middleware="+name, func(b *testing.B) {
			run := cycle(b, opts...)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

func TestANodeIsOneHoweverItsAddressIsWritten(t *testing.T) {
	for _, same := range [][]string{
		{"localhost:6379", "127.0.0.1:6379", "[::1]:6379", "[0:0:0:0:0:0:0:1]:6379", "LOCALHOST.:6379", ":6379", "0.0.0.0:6379", "[::ffff:127.0.0.1]:6379"},
		{"r1.example:6379", "R1.Example:6379", "r1.example.:6379"},
		{"[2001:db8::1]:6379", "[2001:DB8:0::1]:6379"},
	} {
		for _, addr := range same {
			require.Equal(t, site(same[0]), site(addr))
		}
	}
	distinct := make(sites)
	for i, addr := range []string{"localhost:1", "localhost:2", "127.0.0.2:1", "/tmp/a", "/tmp/A", "/tmp/a:1", "/tmp/A:1", "r1:1", "r2:1"} {
		_, _, ok := distinct.occupy(i, []string{addr}, "")
		require.True(t, ok, addr)
	}
	_, _, ok := distinct.occupy(9, []string{"[::1]:1"}, "a group that another's Sentinels watch too")
	require.True(t, ok)
	i, addr, ok := distinct.occupy(10, []string{"r3:1", "[::1]:2"}, "")
	require.False(t, ok)
	require.Equal(t, 1, i)
	require.Equal(t, "[::1]:2", addr)
	_, _, ok = distinct.occupy(11, []string{"r4:1", "R4:1"}, "")
	require.True(t, ok, "one's own address twice")
}

// Open's reading of URLs: no panic, no password in an error, and an address in
// whatever is accepted. The URL is put together so that the test knows which
// part of it is the password, however broken the rest is.
func FuzzURL(f *testing.F) {
	for _, c := range [][4]string{
		{"redis", "user", "hunter2", "host:6379/0"},
		{"rediss", "", "hunter2", "host"},
		{"valkey", "user", "hunter2", "[::1]:1"},
		{"unix", "", "hunter2", "/run/redis.sock?db=1"},
		{"uNiX", "", "hunter2", ""},
		{"http", "user", "hunter2", "host"},
		{"", "user", "hunter2", "host"},
		{"redis", "user", "hun/ter2", "host"},
		{"redis", "user", "1/hunter2", "host:6379/0"},
		{"redis", "user", "1?db=hunter2", "host"},
		{"redis", "user", "1#hunter2", "host"},
		{"redis", "user", "%zz", "host"},
		{"redis", "user", "hun@ter2", "host"},
		{"redis", "us/er", "hunter2", "host"},
		{"unix", "/user", "hunter2", "/run/redis.sock"},
		{"redis", "user", "hunter2", "host:port"},
		{"redis", "user", "hunter2", "host/a/b"},
		{"redis", "user", "hunter2", "host/x"},
		{"redis", "user", "hunter2", "host?db=x"},
		{"redis", "user", "hunter2", "host?dial_timeout=x&write_timeout=-1s"},
		{"redis", "user", "hunter2", "host?addr=a:1&addr=b"},
		{"redis", "user", "hunter2", "host?addr="},
		{"redis", "user", "hunter2", "host?master_set=m&addr=%20"},
		{"rediss", "user", "hunter2", "host?skip_verify=x"},
		{"redis", "", "", ":0"},
		{"redis", "\x00", "\xff", "\x7f"},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, scheme, user, password, rest string) {
		url := scheme + "://" + user + ":" + password + "@" + rest
		for _, urls := range [][]string{{url}, {rest}, {url, url}, {rest, "redis://other", rest}} {
			options, err := parse(urls)
			if err != nil {
				require.Nil(t, options)
				require.True(t, strings.HasPrefix(err.Error(), "redlock: urls["), err.Error())
				if len(password) > 3 && !strings.Contains(scheme+user+rest, password) {
					require.NotContains(t, err.Error(), password)
				}
				continue
			}
			require.Len(t, options, len(urls))
			for _, o := range options {
				require.NotEmpty(t, o.InitAddress)
				require.NotContains(t, o.InitAddress, "")
				require.True(t, o.AlwaysPipelining && o.DisableCache && o.PipelineMultiplex == -1, "tuned")
			}
		}
	})
}

func TestALossByAJumpOfTheClockSaysSo(t *testing.T) {
	at := time.Date(2026, 1, 2, 13, 0, 5, 0, time.UTC)
	refused := errors.New("refused")
	for _, c := range []struct {
		loss keeper.Loss
		want string
	}{
		{keeper.Loss{}, "not extended"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour + 1, At: at}}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at}, Capped: true}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at, Suspended: true}}, "the machine was suspended for 1h0m0s, until 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at}, Err: refused}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z: not extended: refused"},
	} {
		c.loss.Claim, c.loss.Until = &node.Claim{Keys: []string{"k"}}, at
		err := (&Locker{}).lostError(c.loss)
		require.EqualError(t, err, `redlock: hold "k": lock lost: valid until 13:00:05.000Z: `+c.want)
		require.ErrorIs(t, err, ErrLost)
		require.Equal(t, c.loss.Err != nil, errors.Is(err, refused))
	}
}

func TestFloorsDoNotGoBackWithTheClock(t *testing.T) {
	var f fenceClock
	ahead := time.Now().Add(time.Hour).UnixMicro()
	f.last.Store(ahead) // the clock has been set back by an hour since
	require.Equal(t, ahead+1, f.next())
	require.Equal(t, ahead+2, f.next())
}

// A clock that is far off for a while leaves nothing behind in the process.
func TestAFloorIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fenceClock
		require.NoError(t, checkClock(time.Now()))
		before := f.next()
		require.Less(t, before, int64(maxFloor))
		time.Sleep(time.Until(time.UnixMicro(maxFloor)))
		require.EqualError(t, checkClock(time.Now()), "redlock: WithFence: the clock of this machine says 2112-09-17: must be before 2112-09-17")
		require.EqualValues(t, 1<<53, f.next(), "which the nodes refuse")
		require.Equal(t, before, f.last.Load())
	})
}

func TestNoTwoClaimsOfAProcessHaveTheSameFloor(t *testing.T) {
	const goroutines, each = 8, 1000
	var f fenceClock
	var all sync.WaitGroup
	var mu sync.Mutex // guards seen
	seen := make(map[int64]bool)
	for range goroutines {
		all.Go(func() {
			for range each {
				floor := f.next()
				mu.Lock()
				seen[floor] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Len(t, seen, goroutines*each)
}
