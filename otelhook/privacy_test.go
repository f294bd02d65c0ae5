package otelhook_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// texts returns everything that the hook has exported, as text.
func (b *bench) texts() []string {
	var all []string
	add := func(kvs []attribute.KeyValue) {
		for _, kv := range kvs {
			all = append(all, string(kv.Key), kv.Value.String())
			all = append(all, kv.Value.AsStringSlice()...)
		}
	}
	for _, s := range b.spans.Started() {
		all = append(all, s.Name(), s.Status().Description)
		add(s.Attributes())
		for _, e := range s.Events() {
			all = append(all, e.Name)
			add(e.Attributes)
		}
	}
	for name := range b.collect() {
		for set := range b.points(name) {
			all = append(all, set)
		}
	}
	return all
}

// A server that does not know a command answers with its arguments, which the
// library cuts; an application's own error may still repeat a token.
func TestNoTokenGetsOut(t *testing.T) {
	b := start(t, 0)
	b.servers = redistest.StartN(t, 1, "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
	l := b.open()
	_, err := l.TryAcquire(t.Context(), "k", time.Minute)
	require.ErrorContains(t, err, "unknown command")
	_, err = l.TryAcquireAll(t.Context(), []string{"a", "b"}, time.Minute)
	require.ErrorContains(t, err, "unknown command")
	b.servers = redistest.StartN(t, 1)
	l = b.open()
	// Long enough for a loaded machine to try an extension before the loss.
	err = redlock.Do(t.Context(), l, "k2", 2*time.Second, func(ctx context.Context) error {
		b.do(b.servers[0], "ACL", "SETUSER", "default", "-evalsha", "-eval") // it cannot be extended
		<-ctx.Done()
		held, _ := redlock.FromContext(ctx)
		return fmt.Errorf("lost while writing with %s", held.Token())
	}, persist())
	require.ErrorIs(t, err, redlock.ErrLost)
	require.Regexp(t, token, err, "or the test shows nothing")
	eventually.True(t, "counted", func() bool { return len(b.points("redlock.lost")) > 0 })

	texts := b.texts()
	all := strings.Join(texts, "\n")
	require.Regexp(t, "unknown command ['`]EVALSHA['`]", all)
	require.Contains(t, all, "lost while writing with [token]", "the rest of the text stays")
	for _, text := range texts {
		require.NotRegexp(t, token, text)
	}
}

// token is a token as rand.Text makes it.
var token = regexp.MustCompile(`[A-Z2-7]{26}`)

// Exporters drop a whole batch for a text that is not UTF-8.
func TestAllTextIsUTF8(t *testing.T) {
	b := start(t, 1)
	l := b.open()
	err := redlock.Do(t.Context(), l, "k\xff", time.Minute, func(context.Context) error { return &notUTF8{} })
	require.Error(t, err)
	require.Equal(t, []string{"k\uFFFD"}, b.view(b.only("redlock.acquire")).Attributes["redlock.keys"])
	for _, text := range b.texts() {
		require.True(t, utf8.ValidString(text), "%q", text)
	}
}

type notUTF8 struct{}

func (*notUTF8) Error() string { return "\xff" }
