package redisnode

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A script has its keys from KEYS, and only the library knows how they are called.
func TestNoScriptKnowsTheNameOfAKey(t *testing.T) {
	for _, script := range append(scripts[:], ping6) {
		require.NotContains(t, script.text, "redlock")
	}
}
