package redisnode_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// The nodes in memory and a real server must answer alike.
func TestARefusedAcquisitionIsToldTheOwner(t *testing.T) {
	for name, s := range map[string]node.Backend{"real": connect(t, redistest.Start(t)), "in memory": &memnode.Backend{}} {
		t.Run(name, func(t *testing.T) {
			claim := func(secret string, options node.ClaimOptions, keys ...string) *node.Claim {
				c := node.NewClaim(keys, node.Tag(secret, options.Metadata), 1)
				c.Ask(options)
				return c
			}
			holder := claim("holder", node.ClaimOptions{Metadata: "host=a"}, "a", "b")
			require.Equal(t, node.Done, do(t, s, node.Acquire, time.Minute, holder)[0].Outcome)
			for what, rival := range map[string]*node.Claim{
				"with metadata": claim("rival", node.ClaimOptions{Metadata: "host=b"}, "a"),
				"several keys":  claim("rival", node.ClaimOptions{}, "b", "c"),
				"fenced":        claim("rival", node.ClaimOptions{Floor: 1, Retention: time.Hour}, "a"),
				"guarded":       claim("rival", node.ClaimOptions{Quarantine: time.Minute}, "a"),
			} {
				c := do(t, s, node.Acquire, time.Minute, rival)[0]
				require.Equal(t, node.Refused, c.Outcome, what)
				require.Equal(t, holder.Token, c.Owner, what)
			}
			for what, rival := range map[string]node.Command{
				"by a script": {Claim: node.NewClaim([]string{"a"}, "rival", 1), Script: true},
				"plainly":     {Claim: node.NewClaim([]string{"a"}, "rival", 1)},
			} {
				batch := []node.Command{rival}
				batch[0].TTL = time.Minute
				require.NoError(t, s.Do(t.Context(), batch))
				require.Equal(t, node.Refused, batch[0].Outcome, what)
				if name == "in memory" || rival.Script { // the Backend does not see the connections of a caller's client
					require.Equal(t, holder.Token, batch[0].Owner, what)
				} else {
					require.Empty(t, batch[0].Owner, what)
				}
			}

			// Only the metadata is in the error, not the token.
			readable := claim("", node.ClaimOptions{Metadata: "host=a"}, "a", "b")
			require.Equal(t, node.Refused, do(t, s, node.Release, 0, readable)[0].Outcome)
			require.Equal(t, node.Refused, do(t, s, node.Extend, time.Hour, readable)[0].Outcome)
			require.Equal(t, node.Done, do(t, s, node.Release, 0, holder)[0].Outcome)
		})
	}
}

func TestAKeyOfAForeignTypeHasNoOwnerToTell(t *testing.T) {
	server := redistest.Start(t)
	_, err := server.Do("RPUSH", "k", "x")
	require.NoError(t, err)
	c := node.NewClaim([]string{"k"}, "token", 1)
	c.Ask(node.ClaimOptions{Metadata: "host=a"})
	refused := do(t, connect(t, server), node.Acquire, time.Minute, c)[0]
	require.Equal(t, node.Refused, refused.Outcome)
	require.Equal(t, node.Foreign, refused.Owner)
}
