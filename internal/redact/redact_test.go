package redact_test

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redact"
)

func TestTokensAreCutOutWhereverTheyStand(t *testing.T) {
	one, other := rand.Text(), rand.Text()
	for text, want := range map[string]string{
		one:                                    "[token]",
		"SET 'k' '" + one + "' NX":             "SET 'k' '[token]' NX",
		"owner_" + one + ", not " + other:      "owner_[token], not [token]",
		"line\n" + one + "\n":                  "line\n[token]\n",
		"\xff" + one + "\xff":                  "\xff[token]\xff",
		one + other:                            "[token]",
		"":                                     "",
		"NOPERM User default has no EVALSHA":   "NOPERM User default has no EVALSHA",
		"the key " + one[:25] + " is no token": "the key " + one[:25] + " is no token",
	} {
		require.Equal(t, want, redact.Tokens(text), "%q", text)
	}
}
