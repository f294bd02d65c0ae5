package redlock_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/eventually"
	"github.com/redis-kit/redlock/internal/lockertest"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redistest"
)

// Any strings are keys, but the empty one and the library's own names: they stand on the server as they
// are, and the lock has them sorted and once each.
func FuzzKeys(f *testing.F) {
	for _, keys := range [][3]string{
		{"a", "b", "c"}, {"c", "b", "a"}, {"a", "a", "a"}, {"a", "b", "a"}, {"", "a", "b"}, {"a", "", ""}, {"", "", ""},
		{"{a}1", "{a}2", "{b}"}, {"\x00", "\xff", "\xff\xfe"}, {"*3\r\n$3\r\nSET\r\n", "\r\n", "$-1\r\n"}, {" ", "  ", "\t"},
		{"ключ", "キー", "🔑"}, {"%s", "%!d", `"`}, {"*", "?", "[a]"}, {"a", "a:waiters", "b"}, {"redlock:guard", "a", "b"}, {strings.Repeat("k", 5000), "k", "K"},
	} {
		f.Add(keys[0], keys[1], keys[2])
	}
	server := redistest.Start(f)
	l := lockertest.Open(f, []string{server.URL()}, redlock.WithNodeTimeout(eventually.Soon))
	f.Fuzz(func(t *testing.T, a, b, c string) {
		keys := []string{a, b, c, a}
		lock, err := l.TryAcquireAll(t.Context(), keys, time.Minute)
		require.Equal(t, []string{a, b, c, a}, keys, "the caller's slice is his")
		if slices.Contains(keys, "") {
			require.ErrorContains(t, err, "is empty: any other string is accepted")
			require.Empty(t, server.Keys(t))
			return
		}
		if slices.ContainsFunc(keys, func(key string) bool { return node.Reserved(key) != nil }) {
			require.ErrorContains(t, err, "the library uses this name")
			require.Empty(t, server.Keys(t))
			return
		}
		require.NoError(t, err)
		want := slices.Compact(slices.Sorted(slices.Values(keys)))
		require.Equal(t, want, lock.Keys())
		require.Equal(t, want, server.Keys(t))
		for _, key := range want {
			value, _ := server.Get(t, key)
			require.Equal(t, lock.Token(), value)
		}
		_, err = l.TryAcquire(t.Context(), c, time.Minute)
		require.ErrorIs(t, err, redlock.ErrNotAcquired)
		require.NoError(t, lock.Extend(t.Context(), 0))
		require.NoError(t, lock.Release(t.Context()))
		require.Empty(t, server.Keys(t))
	})
}
