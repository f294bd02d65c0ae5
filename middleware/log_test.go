package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/middleware"
)

// recorder is a slog.Handler that keeps what it is given.
type recorder struct {
	mu      sync.Mutex
	records []record
}

type record struct {
	level   slog.Level
	message string
	attrs   map[string]slog.Value
	ctx     context.Context
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { panic("not used") }
func (r *recorder) WithGroup(string) slog.Handler            { panic("not used") }

func (r *recorder) Handle(ctx context.Context, rec slog.Record) error {
	attrs := make(map[string]slog.Value)
	rec.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value; return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record{rec.Level, rec.Message, attrs, ctx})
	return nil
}

func (r *recorder) log(opts ...middleware.LogOption) redlock.Option {
	return redlock.WithMiddleware(middleware.Log(slog.New(r), opts...))
}

// all are the records with this message.
func (r *recorder) all(message string) []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.records), func(rec record) bool { return rec.message != message })
}

// one is the only record with this message.
func (r *recorder) one(t *testing.T, message string) record {
	t.Helper()
	found := r.all(message)
	require.Len(t, found, 1, "%q in:\n%s", message, r)
	return found[0]
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, rec := range r.records {
		fmt.Fprintln(&b, rec.level, rec.message, rec.attrs)
	}
	return b.String()
}

func (r record) is(t *testing.T, level slog.Level, names ...string) {
	t.Helper()
	require.Equal(t, level, r.level, "%v", r)
	var have []string
	for name := range r.attrs {
		have = append(have, name)
	}
	slices.Sort(have)
	slices.Sort(names)
	require.Equal(t, names, have, "%v", r)
}

func (r record) err(t *testing.T) error {
	t.Helper()
	err, ok := r.attrs["error"].Any().(error)
	require.True(t, ok, "%v", r.attrs["error"])
	return err
}

func TestLogOfAHold(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log())
	type ctxKey struct{}
	ctx := context.WithValue(t.Context(), ctxKey{}, "the caller's")
	mine := errors.New("mine")
	var token string
	var until time.Time
	err := redlock.Do(ctx, l, "k", 30*time.Second, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		token, until = lock.Token(), lock.Until()
		require.NoError(t, lock.Extend(ctx, time.Minute))
		return mine
	})
	require.Equal(t, mine, err)

	rec := r.one(t, "lock acquired")
	rec.is(t, slog.LevelDebug, "key", "ttl", "duration", "attempts", "waited", "until", "token")
	require.Equal(t, "k", rec.attrs["key"].String())
	require.Equal(t, 30*time.Second, rec.attrs["ttl"].Duration())
	require.Positive(t, rec.attrs["duration"].Duration())
	require.Equal(t, int64(1), rec.attrs["attempts"].Int64())
	require.Zero(t, rec.attrs["waited"].Duration())
	require.WithinDuration(t, until, rec.attrs["until"].Time(), 0)
	require.Equal(t, token, rec.attrs["token"].String())
	require.Equal(t, "the caller's", rec.ctx.Value(ctxKey{}), "a handler that adds a trace's id finds it in the ctx")

	rec = r.one(t, "lock extended")
	rec.is(t, slog.LevelDebug, "key", "ttl", "duration", "until", "token")
	require.Equal(t, time.Minute, rec.attrs["ttl"].Duration())
	require.True(t, rec.attrs["until"].Time().After(until))

	rec = r.one(t, "work under lock ended")
	rec.is(t, slog.LevelDebug, "key", "ttl", "duration", "until", "token", "error")
	require.Equal(t, mine, rec.err(t))

	r.one(t, "lock released").is(t, slog.LevelDebug, "key", "ttl", "duration", "token")
	require.Len(t, r.records, 4, "and nothing else:\n%s", &r)
}

func TestLogOfSeveralKeysAndOfASlowAcquisition(t *testing.T) {
	servers := redistest.StartN(t, 1)
	var r recorder
	l := open(t, servers, r.log(middleware.WithSlow(1)))
	lock, err := l.TryAcquireAll(t.Context(), []string{"b", "a"}, time.Minute)
	require.NoError(t, err)
	rec := r.one(t, "lock acquired")
	rec.is(t, slog.LevelInfo, "keys", "ttl", "duration", "attempts", "waited", "until")
	require.Equal(t, []string{"a", "b"}, rec.attrs["keys"].Any())
	require.NoError(t, lock.Release(t.Context()))
	r.one(t, "lock released").is(t, slog.LevelDebug, "keys", "ttl", "duration", "token")
}

func TestLogOfContention(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l, other := open(t, servers, r.log(middleware.WithSlow(time.Hour)), redlock.WithoutWaitQueue()), open(t, servers)
	lock, err := other.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)

	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)
	rec := r.one(t, "lock not acquired")
	rec.is(t, slog.LevelInfo, "key", "ttl", "duration", "attempts", "waited", "error")
	require.Equal(t, err, rec.err(t), "as it was returned")

	policy, waiting := waitPolicy()
	go func() {
		<-waiting
		assert.NoError(t, lock.Release(t.Context()))
	}()
	_, err = l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(policy))
	require.NoError(t, err)
	rec = r.one(t, "lock acquired")
	rec.is(t, slog.LevelInfo, "key", "ttl", "duration", "attempts", "waited", "wait", "until")
	require.Equal(t, "polled", rec.attrs["wait"].String())
	require.Greater(t, rec.attrs["attempts"].Int64(), int64(1))
	require.GreaterOrEqual(t, rec.attrs["waited"].Duration(), 5*ms)
	require.Empty(t, r.all("node failing"), "to be held by another is no failure of the node")
}

func TestLogTellsHowAWaitEnded(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l, other := open(t, servers, r.log(middleware.WithSlow(time.Hour))), open(t, servers)
	lock, err := other.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	time.AfterFunc(50*ms, func() { assert.NoError(t, lock.Release(t.Context())) })
	lock, err = l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
	require.NoError(t, err)
	rec := r.one(t, "lock acquired")
	require.Equal(t, slog.LevelInfo, rec.level)
	require.Equal(t, "granted", rec.attrs["wait"].String())

	time.AfterFunc(50*ms, func() { assert.NoError(t, lock.Release(t.Context())) })
	lock, err = l.Acquire(t.Context(), "k", time.Minute, redlock.WithRetry(redlock.FixedRetry(time.Hour, 0, -1)))
	require.NoError(t, err)
	all := r.all("lock acquired")
	require.Equal(t, "handed over", all[1].attrs["wait"].String())
	require.NoError(t, lock.Release(t.Context()))
}

func TestLogTellsTheFence(t *testing.T) {
	var r recorder
	l := open(t, redistest.StartN(t, 3), r.log(middleware.WithSlow(time.Hour)))
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute, redlock.WithFence())
	require.NoError(t, err)
	require.Equal(t, lock.Fence(), r.one(t, "lock acquired").attrs["fence"].Int64())
	require.NoError(t, lock.Release(t.Context()))
	lock, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NotContains(t, r.all("lock acquired")[1].attrs, "fence")
	require.NoError(t, lock.Release(t.Context()))
}

func TestLogWarnsOnceThatNodesKeepNoQueue(t *testing.T) {
	server := redistest.Start(t)
	var r recorder
	l := open(t, []*redistest.Server{server}, r.log())
	for _, key := range []string{"a", "b"} {
		for _, k := range []string{key, "{" + key + "}:redlock:queue"} {
			_, err := server.Do("SET", k, "foreign")
			require.NoError(t, err)
		}
		_, err := l.Acquire(t.Context(), key, time.Minute, redlock.WithRetry(redlock.FixedRetry(50*ms, 0, 3)))
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
	}
	rec := r.one(t, "wait queues unavailable: polling")
	require.Equal(t, slog.LevelWarn, rec.level)
}

func TestLogOfALoss(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log())
	err := redlock.Do(t.Context(), l, "k", short, func(ctx context.Context) error {
		pause(servers)
		<-ctx.Done()
		return nil
	})
	resume(servers)
	require.ErrorIs(t, err, redlock.ErrLost)
	eventually.True(t, "told", func() bool { return len(r.all("lock lost")) > 0 })
	rec := r.one(t, "lock lost")
	rec.is(t, slog.LevelWarn, "key", "ttl", "until", "error")
	require.ErrorIs(t, rec.err(t), redlock.ErrLost)
	for _, rec := range r.all("lock not extended") {
		rec.is(t, slog.LevelWarn, "key", "ttl", "duration", "until", "error")
	}
	rec = r.one(t, "work under lock ended")
	require.Equal(t, slog.LevelDebug, rec.level, "the loss is told once")
	require.ErrorIs(t, rec.err(t), redlock.ErrLost)
	rec = r.one(t, "lock not released")
	require.Equal(t, slog.LevelDebug, rec.level, "the loss is told once")
	require.ErrorIs(t, rec.err(t), redlock.ErrNotHeld)
}

func TestLogOfALossThatTheReleaseFinds(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log())
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool {
		return !slices.ContainsFunc(servers, func(s *redistest.Server) bool { _, ok := s.Get(t, "k"); return !ok })
	})
	for _, s := range servers {
		_, err := s.Do("DEL", "k")
		require.NoError(t, err)
	}
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)
	r.one(t, "lock not released").is(t, slog.LevelWarn, "key", "ttl", "duration", "error")
	require.Empty(t, r.all("node failing"), "not to hold a key is no failure of the node")
}

func TestLogOfACloseUnderAHold(t *testing.T) {
	servers := redistest.StartN(t, 1)
	var r recorder
	l := open(t, servers, r.log())
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	rec := r.one(t, "lock lost")
	rec.is(t, slog.LevelWarn, "key", "ttl", "until", "error")
	require.Equal(t, redlock.ErrClosed, rec.err(t))

	_, err = l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorIs(t, err, redlock.ErrClosed)
	r.one(t, "lock not acquired").is(t, slog.LevelInfo, "key", "ttl", "duration", "attempts", "waited", "error")
}

func TestLogOfNodesThatFail(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log())
	use := func() error {
		return redlock.Do(t.Context(), l, "k", time.Minute, func(context.Context) error { return nil },
			redlock.WithRetry(redlock.NoRetry()))
	}
	dead := servers[2]
	dead.Kill()
	eventually.True(t, "noticed", func() bool {
		require.NoError(t, use(), "two of three are enough")
		return len(r.all("node failing")) > 0
	})
	rec := r.one(t, "node failing")
	rec.is(t, slog.LevelWarn, "node", "operation", "error")
	require.Equal(t, dead.Addr(), rec.attrs["node"].String())
	require.Contains(t, []string{"acquire", "release"}, rec.attrs["operation"].String())
	for range 20 {
		require.NoError(t, use())
	}
	r.one(t, "node failing") // once is enough
	require.Empty(t, r.all("node answers again"))

	dead.Restart()
	eventually.True(t, "noticed", func() bool {
		require.NoError(t, use())
		return len(r.all("node answers again")) > 0
	})
	rec = r.one(t, "node answers again")
	rec.is(t, slog.LevelInfo, "node", "operation")
	require.Equal(t, dead.Addr(), rec.attrs["node"].String())

	kill(servers[1:])
	eventually.True(t, "no quorum", func() bool { return errors.Is(use(), redlock.ErrNoQuorum) })
	rec = r.one(t, "lock not acquired")
	rec.is(t, slog.LevelWarn, "key", "ttl", "duration", "attempts", "waited", "error")
	require.ErrorIs(t, rec.err(t), redlock.ErrNoQuorum)
	require.ErrorContains(t, rec.err(t), servers[1].Addr(), "which node")
}

func TestLogOfAnExtensionWithoutQuorum(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log(), redlock.WithNodeTimeout(500*ms))
	lock, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.NoError(t, err)
	pause(servers[1:])
	defer resume(servers)
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNoQuorum)
	r.one(t, "lock not extended").is(t, slog.LevelWarn, "key", "ttl", "duration", "until", "error")
	require.Len(t, r.all("node failing"), 2, "those that did not answer in time")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNoQuorum)
	r.one(t, "lock not released").is(t, slog.LevelWarn, "key", "ttl", "duration", "error")
}

func TestLogKnowsARefusalFromAFailure(t *testing.T) {
	servers := redistest.StartN(t, 3)
	var r recorder
	l := open(t, servers, r.log())
	set := func(servers []*redistest.Server, key string) {
		for _, s := range servers {
			_, err := s.Do("SET", key, "another")
			require.NoError(t, err)
		}
	}

	set(servers, "owned")
	_, err := l.TryAcquire(t.Context(), "owned", time.Minute)
	require.ErrorIs(t, err, redlock.ErrNotAcquired)

	lock, err := l.TryAcquire(t.Context(), "gone", time.Minute)
	require.NoError(t, err)
	eventually.True(t, "all nodes hold it", func() bool {
		return !slices.ContainsFunc(servers, func(s *redistest.Server) bool { _, ok := s.Get(t, "gone"); return !ok })
	})
	for _, s := range servers {
		_, err := s.Do("DEL", "gone")
		require.NoError(t, err)
	}
	require.ErrorIs(t, lock.Extend(t.Context(), 0), redlock.ErrNotHeld)
	eventually.True(t, "told", func() bool { return len(r.all("lock lost")) > 0 })

	lock, err = l.TryAcquire(t.Context(), "taken", time.Minute)
	require.NoError(t, err)
	set(servers, "taken")
	require.ErrorIs(t, lock.Release(t.Context()), redlock.ErrNotHeld)

	require.Empty(t, r.all("node failing"), "%s", &r)
}

func TestNoTokenAtInfoOrAbove(t *testing.T) {
	// As what stands before a server may say.
	said := errors.New("unknown command 'SET', with args beginning with: 'k' 'CGYZDLLHMT4SAU6MSFRLCYXNJC' 'NX' for owner_CGYZDLLHMT4SAU6MSFRLCYXNJC, not CGYZDLLHMT4SAU6MSFRLCYXNJC.aG9zdD1h")
	var r recorder
	handler := middleware.Log(slog.New(&r))(func(_ context.Context, op *redlock.Op) error {
		op.Tries = []redlock.Try{{Votes: []redlock.Vote{{Node: "r1:6379", Kind: redlock.VoteFailed, Err: said}}}}
		return fmt.Errorf("%w: r1:6379: %w", redlock.ErrNoQuorum, said)
	})
	require.ErrorIs(t, handler(t.Context(), &redlock.Op{Kind: redlock.OpAcquire, Keys: []string{"k"}}), said)
	for _, message := range []string{"lock not acquired", "node failing"} {
		rec := r.one(t, message)
		require.Equal(t, slog.LevelWarn, rec.level)
		require.Contains(t, rec.attrs["error"].String(), "'k' '[token]' 'NX' for owner_[token], not [token].aG9zdD1h", "of a lock with metadata too")
	}

	// And in a whole life, at a level that shows all but DEBUG.
	servers := redistest.StartN(t, 3)
	var out bytes.Buffer
	l := open(t, servers, redlock.WithMiddleware(middleware.Log(slog.New(slog.NewTextHandler(&out, nil)), middleware.WithSlow(1))))
	var tokens []string
	err := redlock.Do(t.Context(), l, "k", short, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		tokens = append(tokens, lock.Token())
		pause(servers)
		<-ctx.Done()
		return ctx.Err()
	})
	resume(servers)
	require.ErrorIs(t, err, redlock.ErrLost)
	require.NoError(t, l.Close())
	require.Contains(t, out.String(), "lock acquired")
	require.Contains(t, out.String(), "lock lost")
	require.NotContains(t, out.String(), tokens[0])
}

// The judgement of each kind of operation, without servers.
func TestLogLevels(t *testing.T) {
	failing := redlock.Try{Votes: []redlock.Vote{{Node: "r1:6379", Kind: redlock.VoteFailed, Err: errors.New("EOF")}}}
	silent := redlock.Try{Votes: []redlock.Vote{{Node: "r1:6379", Kind: redlock.VoteSilent, Err: errors.New("not waited for")}}}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	lost, lose := context.WithCancelCause(t.Context())
	lose(redlock.ErrLost)
	both := func(errs ...error) error { return errors.Join(errs...) }
	refused := errors.New("refused by a middleware")
	for _, c := range []struct {
		name  string
		kind  redlock.Kind
		ctx   context.Context
		tries []redlock.Try
		err   error
		level slog.Level
		says  string
	}{
		{name: "acquired", kind: redlock.OpAcquire, level: slog.LevelDebug, says: "lock acquired"},
		{name: "at the second attempt", kind: redlock.OpAcquire, tries: []redlock.Try{silent, silent}, level: slog.LevelInfo, says: "lock acquired"},
		{name: "held by others", kind: redlock.OpAcquire, err: redlock.ErrNotAcquired, level: slog.LevelInfo, says: "lock not acquired"},
		{name: "held, and ctx ended", kind: redlock.OpAcquire, ctx: late, err: both(redlock.ErrNotAcquired, context.DeadlineExceeded), level: slog.LevelInfo, says: "lock not acquired"},
		{name: "no quorum", kind: redlock.OpAcquire, tries: []redlock.Try{failing}, err: redlock.ErrNoQuorum, level: slog.LevelWarn, says: "lock not acquired"},
		{name: "no quorum, cancelled", kind: redlock.OpAcquire, ctx: cancelled, tries: []redlock.Try{silent}, err: both(redlock.ErrNoQuorum, context.Canceled), level: slog.LevelInfo, says: "lock not acquired"},
		{name: "no quorum, cancelled after nodes failed", kind: redlock.OpAcquire, ctx: cancelled, tries: []redlock.Try{failing}, err: both(redlock.ErrNoQuorum, context.Canceled), level: slog.LevelWarn, says: "lock not acquired"},
		{name: "no quorum by the deadline", kind: redlock.OpAcquire, ctx: late, tries: []redlock.Try{silent}, err: both(redlock.ErrNoQuorum, context.DeadlineExceeded), level: slog.LevelWarn, says: "lock not acquired"},
		{name: "closed", kind: redlock.OpAcquire, tries: []redlock.Try{silent}, err: both(redlock.ErrNoQuorum, redlock.ErrClosed), level: slog.LevelInfo, says: "lock not acquired"},
		{name: "refused", kind: redlock.OpAcquire, err: refused, level: slog.LevelInfo, says: "lock not acquired"},
		{name: "hold", kind: redlock.OpHold, level: slog.LevelDebug, says: "work under lock ended"},
		{name: "hold failed", kind: redlock.OpHold, err: refused, level: slog.LevelDebug, says: "work under lock ended"},
		{name: "extended", kind: redlock.OpExtend, level: slog.LevelDebug, says: "lock extended"},
		{name: "extend: no quorum", kind: redlock.OpExtend, tries: []redlock.Try{failing}, err: redlock.ErrNoQuorum, level: slog.LevelWarn, says: "lock not extended"},
		{name: "extend: found lost", kind: redlock.OpExtend, tries: []redlock.Try{silent}, err: both(redlock.ErrNotHeld, redlock.ErrLost), level: slog.LevelWarn, says: "lock not extended"},
		{name: "extend: lost during it", kind: redlock.OpExtend, ctx: lost, tries: []redlock.Try{silent}, err: both(redlock.ErrNotHeld, redlock.ErrLost), level: slog.LevelWarn, says: "lock not extended"},
		{name: "extend: was lost", kind: redlock.OpExtend, err: both(redlock.ErrNotHeld, redlock.ErrLost), level: slog.LevelDebug, says: "lock not extended"},
		{name: "extend: released during it", kind: redlock.OpExtend, tries: []redlock.Try{silent}, err: both(redlock.ErrNotHeld, redlock.ErrReleased), level: slog.LevelDebug, says: "lock not extended"},
		{name: "extend: closed during it", kind: redlock.OpExtend, tries: []redlock.Try{silent}, err: both(redlock.ErrNotHeld, redlock.ErrClosed), level: slog.LevelDebug, says: "lock not extended"},
		{name: "extend: cancelled", kind: redlock.OpExtend, ctx: cancelled, tries: []redlock.Try{silent}, err: both(redlock.ErrNoQuorum, context.Canceled), level: slog.LevelInfo, says: "lock not extended"},
		{name: "extend: refused", kind: redlock.OpExtend, err: refused, level: slog.LevelInfo, says: "lock not extended"},
		{name: "extend: panicked", kind: redlock.OpExtend, err: &redlock.PanicError{Value: "boom"}, level: slog.LevelWarn, says: "lock not extended"},
		{name: "released", kind: redlock.OpRelease, level: slog.LevelDebug, says: "lock released"},
		{name: "release: was lost", kind: redlock.OpRelease, err: both(redlock.ErrNotHeld, redlock.ErrLost), level: slog.LevelDebug, says: "lock not released"},
		{name: "release: found lost", kind: redlock.OpRelease, tries: []redlock.Try{silent}, err: redlock.ErrNotHeld, level: slog.LevelWarn, says: "lock not released"},
		{name: "release: no quorum", kind: redlock.OpRelease, tries: []redlock.Try{failing}, err: redlock.ErrNoQuorum, level: slog.LevelWarn, says: "lock not released"},
		{name: "lost", kind: redlock.OpLost, err: redlock.ErrLost, level: slog.LevelWarn, says: "lock lost"},
		{name: "lost by closing", kind: redlock.OpLost, err: redlock.ErrClosed, level: slog.LevelWarn, says: "lock lost"},
		{name: "lost, kept back by a middleware", kind: redlock.OpLost, level: slog.LevelWarn, says: "lock lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r recorder
			handler := middleware.Log(slog.New(&r))(func(_ context.Context, op *redlock.Op) error {
				op.Tries, op.Attempts = c.tries, len(c.tries)
				return c.err
			})
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			require.Equal(t, c.err, handler(ctx, &redlock.Op{Kind: c.kind, Keys: []string{"k"}, TTL: time.Minute}), "the error passes unchanged")
			require.Equal(t, c.level, r.one(t, c.says).level)
		})
	}
}

func TestLogOfAPanicIsThePanics(t *testing.T) {
	handler := middleware.Log(slog.New(&recorder{}))(func(context.Context, *redlock.Op) error { panic("mine") })
	require.PanicsWithValue(t, "mine", func() { _ = handler(t.Context(), &redlock.Op{Kind: redlock.OpHold, Keys: []string{"k"}}) })
}

func TestLogRefusesBadInput(t *testing.T) {
	logger := slog.New(&recorder{})
	for says, bad := range map[string]func(){
		"redlock: middleware.Log: logger is nil: must be a *slog.Logger": func() { middleware.Log(nil) },
		"redlock: middleware.Log: option 1 is nil":                       func() { middleware.Log(logger, middleware.WithSlow(1), nil) },
		"redlock: middleware.WithSlow(0s): must be above 0":              func() { middleware.WithSlow(0) },
		"redlock: middleware.WithSlow(-1s): must be above 0":             func() { middleware.WithSlow(-time.Second) },
	} {
		require.PanicsWithValue(t, says, bad)
	}
}
