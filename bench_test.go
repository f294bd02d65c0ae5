package redlock_test

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// The benchmarks put each operation beside its floor: the same commands, sent
// by hand over the same connections. The servers run on the same machine, so
// only the ratio says something: benchstat -col /impl.

// benchTTL outlives any pause of the machine: nothing expires in a benchmark.
const benchTTL = 30 * time.Second

// benchCallers is how many goroutines contend for the connections in
// mode=parallel, on as many CPUs as there are.
const benchCallers = 32

// benchOp is an operation of redlock or of the floor.
type benchOp func(ctx context.Context, key string) error

func BenchmarkCycle(b *testing.B) {
	for _, n := range []int{1, 3, 5} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			locker, floor := benchNodes(b, n)
			redlockCycle := func(ctx context.Context, key string) error {
				lock, err := locker.TryAcquire(ctx, key, benchTTL)
				if err != nil {
					return err
				}
				return lock.Release(ctx)
			}
			b.Run("mode=serial", func(b *testing.B) { benchBoth(b, benchSerial, redlockCycle, floor.cycle) })
			b.Run("mode=parallel", func(b *testing.B) { benchBoth(b, benchParallel, redlockCycle, floor.cycle) })
		})
	}
}

func BenchmarkWith(b *testing.B) {
	b.Run("nodes=3", func(b *testing.B) {
		locker, floor := benchNodes(b, 3)
		benchBoth(b, benchSerial, benchWith(locker), floor.cycle)
	})
}

// BenchmarkWithAfar is With over nodes that are a round trip of 20 ms away: with
// WithBackgroundRelease, half of what the floor takes.
func BenchmarkWithAfar(b *testing.B) {
	b.Run("nodes=3", func(b *testing.B) {
		locker, floor := benchNodes(b, 3, func(p *redistest.Proxy) { p.Delay(10*time.Millisecond, 10*time.Millisecond) })
		benchBoth(b, benchSerial, benchWith(locker), floor.cycle)
		b.Run("impl=background", func(b *testing.B) { benchSerial(b, benchWith(locker, redlock.WithBackgroundRelease())) })
	})
}

func benchWith(locker *redlock.Locker, opts ...redlock.LockOption) benchOp {
	nothing := func(context.Context) (struct{}, error) { return struct{}{}, nil }
	return func(ctx context.Context, key string) error {
		_, err := redlock.With(ctx, locker, key, benchTTL, nothing, opts...)
		return err
	}
}

func BenchmarkExtend(b *testing.B) {
	b.Run("nodes=3", func(b *testing.B) {
		locker, floor := benchNodes(b, 3)
		lock, err := locker.TryAcquire(b.Context(), "redlock", benchTTL)
		require.NoError(b, err)
		token, ttl := rand.Text(), strconv.FormatInt(benchTTL.Milliseconds(), 10)
		for _, client := range floor {
			require.NoError(b, floorSet(b.Context(), client, "floor", token))
		}
		benchBoth(b, benchSerial,
			func(ctx context.Context, _ string) error { return lock.Extend(ctx, 0) },
			func(ctx context.Context, _ string) error { return floor.extend(ctx, "floor", token, ttl) })
	})
}

// BenchmarkSickNode measures acquisitions while one node of five is sick: by property P7
// of proof/README.md no percentile is more than twice that of five healthy ones.
func BenchmarkSickNode(b *testing.B) {
	for _, sick := range []struct {
		name string
		make func(*redistest.Server, *redistest.Proxy)
	}{
		{"none", func(*redistest.Server, *redistest.Proxy) {}},
		{"hung", func(s *redistest.Server, _ *redistest.Proxy) { s.Pause() }},
		{"slow", func(_ *redistest.Server, p *redistest.Proxy) { p.Delay(50*time.Millisecond, 50*time.Millisecond) }},
		{"silent", func(_ *redistest.Server, p *redistest.Proxy) { p.BlackHole(true) }},
		{"refusing", func(_ *redistest.Server, p *redistest.Proxy) { p.Refuse(true); p.Cut() }},
		{"away", func(s *redistest.Server, _ *redistest.Proxy) { s.Kill() }},
	} {
		b.Run("sick="+sick.name, func(b *testing.B) {
			servers := redistest.StartN(b, 5)
			proxy := redistest.NewProxy(b, servers[0].Addr()) // in every case, for the sake of comparison
			locker, err := redlock.Open(b.Context(), append([]string{proxy.URL()}, redistest.URLs(servers[1:])...))
			require.NoError(b, err)
			defer locker.Close()
			sick.make(servers[0], proxy)
			keys := benchKeys(0)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				lock, err := locker.TryAcquire(b.Context(), keys[i%len(keys)], benchTTL)
				took = append(took, time.Since(start))
				if err == nil {
					err = lock.Release(b.Context())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(took)
			for _, percent := range []int{50, 99} {
				b.ReportMetric(float64(took[len(took)*percent/100]), fmt.Sprintf("p%d-ns", percent))
			}
		})
	}
}

// benchBoth runs both implementations of an operation. Their ctx is that of
// the nodes: a benchmark's own ends between two of its runs, and would cut off
// what the quorum did not wait for.
func benchBoth(b *testing.B, run func(*testing.B, benchOp), redlock, floor benchOp) {
	b.Run("impl=redlock", func(b *testing.B) { run(b, redlock) })
	b.Run("impl=floor", func(b *testing.B) { run(b, floor) })
}

func benchSerial(b *testing.B, op benchOp) {
	ctx := b.Context()
	b.ReportAllocs()
	keys := benchKeys(0)
	for i := 0; b.Loop(); i++ {
		if err := op(ctx, keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchParallel(b *testing.B, op benchOp) {
	ctx := b.Context()
	b.ReportAllocs()
	perCPU := max(1, benchCallers/runtime.GOMAXPROCS(0))
	b.SetParallelism(perCPU)
	callers := make(chan []string, perCPU*runtime.GOMAXPROCS(0))
	for i := range cap(callers) {
		callers <- benchKeys(i)
	}
	var failed atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		keys := <-callers
		for i := 0; pb.Next(); i++ {
			// Where servers wait for a CPU, so many nodes may fall behind the
			// others, and be sent nothing more, that now and then no quorum is left.
			if err := op(ctx, keys[i%len(keys)]); err != nil && failed.Add(1) > int64(b.N/100) {
				b.Error(err)
				return
			}
		}
	})
	if failed.Load() > 0 {
		b.Logf("%d of %d failed", failed.Load(), b.N)
	}
}

// benchKeys are one caller's own keys, to be used in turn. With a single key a
// caller would contend with itself: its last release may still be on its way
// to the nodes that the quorum did not wait for.
func benchKeys(caller int) []string {
	keys := make([]string, 256)
	for i := range keys {
		keys[i] = fmt.Sprintf("caller:%d:%d", caller, i)
	}
	return keys
}

// benchNodes starts n servers, with one tuned client for each, which goes through a proxy
// for each of behind. The Locker and the floor share the clients.
func benchNodes(b *testing.B, n int, behind ...func(*redistest.Proxy)) (*redlock.Locker, benchFloor) {
	var clients []rueidis.Client
	for _, server := range redistest.StartN(b, n) {
		addr := server.Addr()
		for _, set := range behind {
			proxy := redistest.NewProxy(b, addr)
			set(proxy)
			addr = proxy.Addr()
		}
		client, err := rueidis.NewClient(redlock.Tune(rueidis.ClientOption{
			InitAddress:       []string{addr},
			ForceSingleClient: true,
		}))
		require.NoError(b, err)
		b.Cleanup(client.Close)
		clients = append(clients, client)
	}
	locker, err := redlock.New(clients)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, locker.Close()) })
	return locker, clients
}

// benchFloor runs the commands of a lock, without any of its promises.
type benchFloor []rueidis.Client

// cycle has one goroutine per node for both commands, so that no release
// overtakes its own SET, which would leave the key behind for its ttl.
func (f benchFloor) cycle(ctx context.Context, key string) error {
	token := rand.Text()
	if len(f) == 1 {
		return errors.Join(floorSet(ctx, f[0], key, token), floorRun(ctx, f[0], floorRelease, key, token))
	}
	set, released := make(chan error, len(f)), make(chan error, len(f)) // room for the late ones
	release := make(chan struct{})
	for _, c := range f {
		go func() {
			set <- floorSet(ctx, c, key, token)
			<-release
			released <- floorRun(ctx, c, floorRelease, key, token)
		}()
	}
	err := f.quorum(set)
	close(release)
	if err != nil {
		return err
	}
	return f.quorum(released)
}

func (f benchFloor) extend(ctx context.Context, key, token, ttl string) error {
	extended := make(chan error, len(f))
	for _, c := range f {
		go func() { extended <- floorRun(ctx, c, floorExtend, key, token, ttl) }()
	}
	return f.quorum(extended)
}

// quorum goes on as soon as more than half of the nodes have granted.
func (f benchFloor) quorum(answers <-chan error) (err error) {
	granted := 0
	for range f {
		if e := <-answers; e != nil {
			err = e
		} else if granted++; granted > len(f)/2 {
			return nil
		}
	}
	return err
}

func floorSet(ctx context.Context, c rueidis.Client, key, token string) error {
	return c.Do(ctx, c.B().Set().Key(key).Value(token).Nx().PxMilliseconds(benchTTL.Milliseconds()).Build()).Error()
}

func floorRun(ctx context.Context, c rueidis.Client, script *rueidis.Lua, key string, args ...string) error {
	answer, err := script.Exec(ctx, c, []string{key}, args).AsInt64()
	if err == nil && answer != 1 {
		err = errors.New("the key is not ours")
	}
	return err
}

var (
	//go:embed internal/redisnode/extend.lua
	extendLua string
	//go:embed internal/redisnode/release.lua
	releaseLua string

	floorExtend, floorRelease = rueidis.NewLuaScript(extendLua), rueidis.NewLuaScript(releaseLua)
)
