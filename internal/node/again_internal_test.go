package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReleasesUnderWayAreFoundByEachOfTheirKeys(t *testing.T) {
	var claims []*Claim
	for i, keys := range [][]string{{"a"}, {"a", "b"}, {"b"}, {"a", "c"}, {"a"}} {
		claims = append(claims, NewClaim(keys, fmt.Sprint(i), 1))
	}
	found := func(r ownReleases, keys ...string) (found []*Claim) {
		r.of(keys).has(func(c *Claim) bool { found = append(found, c); return false })
		return found
	}
	for first := range claims { // in every order of a rotation
		r := make(ownReleases)
		for _, c := range claims {
			r.add(c)
		}
		require.ElementsMatch(t, []*Claim{claims[0], claims[1], claims[3], claims[4]}, found(r, "a"))
		require.ElementsMatch(t, []*Claim{claims[1], claims[2], claims[3]}, found(r, "b", "c"))
		require.Empty(t, found(r, "d"))
		left := slices.Clone(claims)
		for i := range claims {
			c := claims[(first+i)%len(claims)]
			r.remove(c)
			r.remove(c)
			require.NotContains(t, found(r, "a", "b", "c"), c)
			left = slices.DeleteFunc(left, func(other *Claim) bool { return other == c })
			for _, other := range left {
				require.Contains(t, found(r, other.Keys...), other)
			}
		}
		require.Empty(t, r)
	}
}
