package node

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryNameThatTheLibraryUsesIsReserved(t *testing.T) {
	for _, key := range []string{"k", "{tag}k", "a}b", "", "k:fence", "{k}:fence"} {
		require.ErrorIs(t, Reserved(Counter(key)), ErrReserved, key)
		require.ErrorIs(t, Reserved(key+queueSuffix), ErrReserved, key)
	}
	// The scripts write names as 'redlock:guard', or as ':waiters' behind a key.
	names := 0
	for _, script := range scripts {
		for _, name := range regexp.MustCompile(`'(?:redlock)?:[a-z:]+'`).FindAllString(script.text, -1) {
			names++
			key := strings.Trim(name, "'")
			if strings.HasPrefix(key, ":") {
				key = "k" + key
			}
			require.ErrorIs(t, Reserved(key), ErrReserved, name)
		}
	}
	require.Positive(t, names)
	for _, key := range []string{"k", "waiters", "fence", "k:fences", "k:waiters:1", "{k:fence}", "redlock:guard:1", "redlock:", "K:WAITERS"} {
		require.NoError(t, Reserved(key))
	}
}
