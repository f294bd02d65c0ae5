package node_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

func TestATokenGivesItsMetadataBack(t *testing.T) {
	for _, metadata := range []string{"", "host=web-1 pid=4711", "a.b-1_c", "ünïcödé 日本", strings.Repeat("x", 256)} {
		for _, secret := range []string{rand.Text(), rand.Text() + "-1700000000000"} {
			token := node.Tag(secret, metadata)
			require.NoError(t, node.CheckMetadata(metadata))
			require.Equal(t, metadata, node.Metadata(token))
			require.True(t, strings.HasPrefix(token, secret))
			require.NotContains(t, token, " ", "queue.lua separates by these")
		}
	}
}

func TestAValueThatNoLockHasGivenAKeyHasNoMetadata(t *testing.T) {
	for _, value := range []string{
		"", ".", "hello", "v1.5", "secret.", "a.b.c", "secret.not base64", "secret." + strings.Repeat("eHh4", 100),
		node.Tag("secret", "line\nbreak"), node.Tag("secret", "\x1b[31mred"), node.Tag("secret", "\xff"), node.Tag("secret", "\u202e"),
	} {
		require.Empty(t, node.Metadata(value), "%q", value)
	}
}
