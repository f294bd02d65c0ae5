package otelhook

import (
	"errors"
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

// An attempt that ended before it was decided depended on who was silent.
func TestSilenceCountsOnlyWhereItDecided(t *testing.T) {
	refusal, silence, failure := errors.New("held by another owner"), errors.New("not waited for"), errors.New("EOF")
	for _, c := range []struct {
		votes []error
		want  bool
	}{
		{[]error{nil, nil, silence}, false},
		{[]error{refusal, refusal, silence}, false},
		{[]error{failure, failure, silence}, false},
		{[]error{nil, silence, silence}, true},
		{[]error{nil, failure, silence}, true},
		{[]error{silence, silence, silence}, true},
		{[]error{nil, nil, silence, silence}, true}, // two of four are no quorum
		{[]error{nil, refusal, failure, silence}, false},
		{[]error{nil, nil, nil}, false},
		{[]error{refusal}, false},
	} {
		var try redlock.Try
		for _, err := range c.votes {
			try.Votes = append(try.Votes, redlock.NodeError{Node: "r:1", Err: err})
		}
		require.Equal(t, c.want, awaited(try), "%v", c.votes)
	}
}
