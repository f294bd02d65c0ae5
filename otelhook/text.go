package otelhook

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/redact"
)

// printable returns text without tokens, which an error of fn or of a proxy may repeat, and
// with invalid UTF-8 replaced: exporters drop whole batches for it, and a key may be any
// bytes.
func printable(text string) string {
	return redact.Tokens(strings.ToValidUTF8(text, "\uFFFD"))
}

func keysOf(op *redlock.Op) attribute.KeyValue {
	keys := make([]string, len(op.Keys))
	for i, key := range op.Keys {
		keys[i] = strings.ToValidUTF8(key, "\uFFFD")
	}
	return attribute.StringSlice("redlock.keys", keys)
}
