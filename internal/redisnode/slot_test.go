package redisnode

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
)

// As CLUSTER KEYSLOT answers.
func TestSlot(t *testing.T) {
	for key, want := range map[string]uint16{
		"123456789": 12739, // the check value of CRC16/XMODEM
		"foo":       12182,
		"bar":       5061,
		"{foo}bar":  12182,
		"":          0,
	} {
		require.Equal(t, want, slot(key), "%q", key)
	}
}

func TestKeysOfSeveralSlotsAreRefusedOnACluster(t *testing.T) {
	cluster, single := &Redis{topology: newTopology()}, &Redis{}
	for _, c := range []struct {
		keys []string
		same bool
	}{
		{[]string{"a"}, true},
		{[]string{"a", "b"}, false},
		{[]string{"{x}a", "{x}b", "x"}, true},
		{[]string{"{x}a", "{y}a"}, false},
		{[]string{"{}a", "{}b"}, false},         // an empty tag is no tag
		{[]string{"a{x}{y}", "b{x}{z}"}, true},  // the first counts
		{[]string{"{{x}}", "{x"}, true},         // "{x" is the first one's tag
		{[]string{"foo{bar", "foo{baz"}, false}, // not closed
	} {
		require.NoError(t, single.Check(c.keys))
		err := cluster.Check(c.keys)
		if c.same {
			require.NoError(t, err, "%q", c.keys)
		} else {
			require.ErrorContains(t, err, "are in different slots of a Cluster: give them a common hash tag", "%q", c.keys)
		}
	}
}

// A companion is in the slot of its key, but for keys that have a closing brace and no hash tag.
func FuzzCompanionsAreInTheSlotOfTheirKey(f *testing.F) {
	for _, key := range []string{"k", "{k}", "a{b}c", "a{b", "a}b", "{}x", "{{x}}", "a{}b{c}", "}{", "}{a}", "{a}{b}", "", "{", "}", "über"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		_, tagged := node.HashTag(key)
		for _, name := range []string{node.Queue, node.Waiters, node.Fence} {
			companion := node.Companion(key, name)
			if tagged || !strings.Contains(key, "}") && key != "" {
				require.Equal(t, slot(key), slot(companion), "%q", key)
			}
			cluster := &Redis{topology: newTopology()}
			require.Equal(t, slot(key) == slot(companion), cluster.Check([]string{key, companion}) == nil)
		}
	})
}

func TestTheCounterOfAKeyHasItsSlot(t *testing.T) {
	for _, key := range []string{"k", "a{b}c", "{b}", "a{b", "{{x}}", "über"} {
		require.Equal(t, slot(key), slot(node.Companion(key, node.Fence)), key)
	}
	require.NotEqual(t, slot("{}x"), slot(node.Companion("{}x", node.Fence)), "there is none that could")
}

// Not every server says that a subscription has ended when its slot has moved.
func TestASubscriptionEndsWhenItsSlotIsAnotherServers(t *testing.T) {
	topology := newTopology()
	here, there := &member{addr: "a:1"}, &member{addr: "b:1"}
	known := new(slots)
	known[slot("moved")], known[slot("stays")] = there, here
	c := &shard{addr: here.addr, channels: make(map[string]*subscription)}
	ended := make(map[string]error)
	for _, channel := range []string{"moved", "stays", "unknown"} {
		c.channels[channel] = &subscription{channel: channel, end: func(err error) { ended[channel] = err }}
	}
	topology.shards.open[here.addr] = c
	topology.slots.Store(known)
	topology.shards.follow()
	require.Len(t, ended, 1)
	require.ErrorIs(t, ended["moved"], node.ErrMoved)
}
