package otelhook

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"github.com/redis-kit/redlock"
)

func TestANodeIsAnAddressAndAPortIfItHasOne(t *testing.T) {
	address := func(a string) attribute.KeyValue { return attribute.String("server.address", a) }
	port := func(p int) attribute.KeyValue { return attribute.Int("server.port", p) }
	for node, want := range map[string][]attribute.KeyValue{
		"r1:6379":                   {address("r1"), port(6379)},
		"127.0.0.1:6379":            {address("127.0.0.1"), port(6379)},
		"[::1]:6379":                {address("::1"), port(6379)},
		"/var/run/redis.sock":       {address("/var/run/redis.sock")},
		"r1:6379 and 2 more":        {address("r1:6379 and 2 more")},
		"unknown address":           {address("unknown address")},
		"[fe80::1]:6379 and 1 more": {address("[fe80::1]:6379 and 1 more")},
	} {
		require.Equal(t, want, server(node), node)
	}
}

// An attempt that ended before it was decided depended on the silent nodes.
func TestSilenceCountsOnlyWhereItDecided(t *testing.T) {
	const grant, refusal, silence, failure = redlock.VoteGranted, redlock.VoteRefused, redlock.VoteSilent, redlock.VoteFailed
	for _, c := range []struct {
		votes []redlock.VoteKind
		want  bool
	}{
		{[]redlock.VoteKind{grant, grant, silence}, false},
		{[]redlock.VoteKind{refusal, refusal, silence}, false},
		{[]redlock.VoteKind{failure, failure, silence}, false},
		{[]redlock.VoteKind{grant, silence, silence}, true},
		{[]redlock.VoteKind{grant, failure, silence}, true},
		{[]redlock.VoteKind{silence, silence, silence}, true},
		{[]redlock.VoteKind{grant, grant, silence, silence}, true}, // two of four are no quorum
		{[]redlock.VoteKind{grant, refusal, failure, silence}, false},
		{[]redlock.VoteKind{grant, grant, grant}, false},
		{[]redlock.VoteKind{refusal}, false},
	} {
		var try redlock.Try
		for _, kind := range c.votes {
			try.Votes = append(try.Votes, redlock.Vote{Node: "r:1", Kind: kind})
		}
		require.Equal(t, c.want, awaited(try), "%v", c.votes)
	}
}
