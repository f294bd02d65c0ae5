package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryNameThatTheLibraryUsesIsReserved(t *testing.T) {
	for _, key := range []string{"k", "{tag}k", "a}b", "", "k:fence", "{k}:fence"} {
		require.ErrorIs(t, Reserved(Counter(key)), ErrReserved, key)
		require.ErrorIs(t, Reserved(WaitersKey(key)), ErrReserved, key)
	}
	for _, key := range []string{"k", "waiters", "fence", "k:fences", "k:waiters:1", "{k:fence}", "redlock:guard:1", "redlock:", "K:WAITERS"} {
		require.NoError(t, Reserved(key))
	}
}
