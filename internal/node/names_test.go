package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

var names = []string{Queue, Waiters, Fence, "ANONCEOFALOCKER"}

func TestEveryNameThatTheLibraryUsesIsReserved(t *testing.T) {
	for _, key := range []string{"k", "{tag}k", "a}b", "{}x", "a{b", "", "k:fence", "{k}:fence"} {
		for _, name := range names {
			require.ErrorIs(t, Reserved(Companion(key, name)), ErrReserved, key)
			require.ErrorIs(t, Reserved("prefix:"+Companion(key, name)+":more"), ErrReserved, key)
		}
	}
	for _, key := range []string{
		"k", "waiters", "fence", "k:waiters", "k:waiting", "k:fence", "{k}:fence", "redlock:guard:1", "redlock:", "redlock.", ":redlock", "k:redlock",
		"redlock:k", "K:REDLOCK:QUEUE", ":redlocK:", "redlock",
	} {
		require.NoError(t, Reserved(key), key)
	}
}

// Keys that differ have names that differ, and no companion is a legal key.
func FuzzNoTwoKeysShareACompanion(f *testing.F) {
	for _, pair := range [][2]string{
		{"k", "{k}"}, {"{k}", "{{k}}"}, {"a", "a}"}, {"{a", "a"}, {"a}b", "{a}b"}, {"{}", "{{}}"}, {"", "{}"}, {":redlock", "redlock:"}, {"{k}:redlock", "k"},
		{"{k}", "{k}.redlock"}, {"a{b}", "{a{b}}"}, {"k:", "{k}:"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if Reserved(a) != nil || Reserved(b) != nil {
			return
		}
		seen := make(map[string]string)
		for _, key := range []string{a, b} {
			for _, name := range names {
				companion := Companion(key, name)
				require.Error(t, Reserved(companion))
				of, known := seen[companion]
				require.True(t, !known || a == b && of == key+" "+name, "%q is a companion of %q and of %q", companion, a, b)
				seen[companion] = key + " " + name
			}
		}
	})
}
