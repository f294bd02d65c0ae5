package redisnode

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// The scripts write names as 'redlock:guard', or as ':waiters' behind a key.
func TestEveryNameInTheScriptsIsReserved(t *testing.T) {
	names := 0
	for _, script := range scripts {
		for _, name := range regexp.MustCompile(`'(?:redlock)?:[a-z:]+'`).FindAllString(script.text, -1) {
			names++
			key := strings.Trim(name, "'")
			if strings.HasPrefix(key, ":") {
				key = "k" + key
			}
			require.ErrorIs(t, node.Reserved(key), node.ErrReserved, name)
		}
	}
	require.Positive(t, names)
}
