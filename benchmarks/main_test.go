package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(inChild) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m,
		// rueidis closes the connections to servers that a Cluster no longer
		// has 5 s late, whether or not the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
	)
}

func TestEveryScenarioReportsEveryPeer(t *testing.T) {
	s := settings{
		progress:     t.Output(),
		rounds:       2,
		sample:       2 * time.Millisecond,
		rtts:         []time.Duration{0, time.Millisecond},
		locks:        300,
		ttl:          time.Second,
		ttls:         2,
		hungCallers:  []int{1, 4},
		hungSample:   30 * time.Millisecond,
		hungPatience: 100 * time.Millisecond,
		recovery:     20 * time.Millisecond,

		processes:      []int{2, 3},
		handoverWarm:   50 * time.Millisecond,
		handoverSample: 100 * time.Millisecond,
		hotSample:      20 * time.Millisecond,
	}
	dir := filepath.Join(t.TempDir(), "new")
	var printed bytes.Buffer
	require.NoError(t, run(t.Context(), s, scenarios, &printed, dir))

	written, err := os.ReadFile(filepath.Join(dir, "results.txt"))
	require.NoError(t, err)
	text := printed.String()
	assert.Equal(t, text, string(written))
	assert.Regexp(t, `on the same machine: (Redis|Valkey) \d`, text)
	for _, p := range peers {
		assert.Regexp(t, `\n`+regexp.QuoteMeta(p.name)+`[ ,]`, text)
	}
	assert.Regexp(t, `\nlocks +300\n`, text)
	assert.NotContains(t, text, "NaN")

	charts := regexp.MustCompile(`Chart: (\S+)`).FindAllStringSubmatch(text, -1)
	assert.Len(t, charts, 6)
	for _, chart := range charts {
		svg, err := os.ReadFile(filepath.Join(dir, chart[1]))
		require.NoError(t, err)
		requireXML(t, svg)
		assert.Contains(t, string(svg), ours)
	}
}

func requireXML(t *testing.T, data []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(data))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

// The implementations are comparable: each has a quorum of keys with the same ttl while a
// lock is held, excludes other owners, and leaves nothing behind.
func TestEveryPeerLocks(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		require.NoError(t, withHost(func(h *host) error {
			s := startWithCluster(h, n, 0)
			for _, p := range peers {
				if !p.fits(n) {
					continue
				}
				t.Run(p.name+" on "+strconv.Itoa(n), func(t *testing.T) { requireLocks(t, p, s) })
			}
			return nil
		}))
	}
}

func requireLocks(t *testing.T, p peer, s *servers) {
	one, another := openPeer(t, p, s.deployment), openPeer(t, p, s.deployment)
	require.NoError(t, one.Cycle(t.Context(), p.name+":1"))
	requireKeys(t, p, s, ":1", 0)
	holder, ok := one.(acquirer)
	if !ok {
		return
	}
	key := p.name + ":2"
	lock, err := holder.Acquire(t.Context(), key)
	require.NoError(t, err)
	quorum := len(s.nodes)/2 + 1
	if p.name == onCluster {
		quorum = 1
	}
	requireKeys(t, p, s, ":2", quorum)
	require.Error(t, another.Cycle(t.Context(), key), "it is held")
	waited := make(chan error, 1)
	if waits(p) {
		go func() {
			lock, err := another.(waiter).Wait(t.Context(), key)
			if err == nil {
				err = lock.Release(t.Context())
			}
			waited <- err
		}()
		select {
		case err := <-waited:
			t.Errorf("%s did not wait: %v", p.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.NoError(t, lock.Release(t.Context()))
	if waits(p) {
		require.NoError(t, <-waited)
	}
	requireKeys(t, p, s, ":2", 0)
	require.NoError(t, another.Cycle(t.Context(), key))
}

func openPeer(t *testing.T, p peer, d deployment) locker {
	l, err := p.open(t.Context(), d)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// requireKeys waits until the servers have the peer's key at least so many
// times, with about the ttl to live, and not at all for 0.
func requireKeys(t *testing.T, p peer, s *servers, suffix string, quorum int) {
	t.Helper()
	if quorum == 0 && strings.HasPrefix(p.name, "redsync") && len(s.nodes) > 1 {
		return // with FailFast a release may overtake its own SET
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		found := 0
		for _, server := range slices.Concat(s.nodes, s.masters) {
			for _, key := range server.Keys(t) {
				if !strings.HasSuffix(key, p.name+suffix) {
					continue
				}
				found++
				if left, err := server.Do("PTTL", key); assert.NoError(c, err) {
					assert.InDelta(c, ttl.Milliseconds(), left, 15_000)
				}
			}
		}
		if quorum == 0 {
			assert.Zero(c, found)
		}
		assert.GreaterOrEqual(c, found, quorum)
	}, 10*time.Second, 5*time.Millisecond)
}

func TestHostReportsTheErrorsOfRedistest(t *testing.T) {
	var order []string
	err := withHost(func(h *host) error {
		h.Cleanup(func() { order = append(order, "first") })
		h.Cleanup(func() { order = append(order, "last") })
		h.Errorf("one: %w", context.Canceled)
		h.Fatalf("two")
		return nil
	})
	require.EqualError(t, err, "one: context canceled\ntwo")
	require.Equal(t, []string{"last", "first"}, order)
}

// Monitors count commands that clients send, and not those that scripts call.
func TestMonitorsCountWhatClientsSend(t *testing.T) {
	require.NoError(t, withHost(func(h *host) error {
		servers := start(h, 2, 0)
		m, err := monitor(servers.Nodes)
		require.NoError(t, err)
		for _, server := range servers.nodes {
			for _, command := range [][]string{
				{"SET", "a", "1"},
				{"GET", "a"},
				{"EVAL", "redis.call('SET', 'a', 2) return redis.call('GET', 'a')", "0"},
			} {
				_, err := server.Do(command...)
				require.NoError(t, err)
			}
		}
		commands, from, to := m.stop()
		delete(commands, "hello") // of the clients
		delete(commands, "client")
		assert.Equal(t, map[string]int{"set": 2, "get": 2, "eval": 2}, commands)
		assert.Less(t, from, to)
		return nil
	}))
	name, at := clientCommand(`+1700000000.500000 [0 [::1]:50000] "EVALSHA" "2f6e1cd0" "1" "key] "`)
	assert.Equal(t, "evalsha 2f6e", name)
	assert.Equal(t, 1700000000.5, at)
}

func TestHandoverCountsGapsWaitsAndShares(t *testing.T) {
	r := &handoverResult{}
	r.add([][]turn{
		{{Asked: 0, Inside: 100, Leaving: 110}, {Asked: 115, Inside: 140, Leaving: 150}, {Asked: 155, Inside: 190, Leaving: 199, Failure: "oh"}},
		{{Asked: 1, Inside: 130, Leaving: 135}, {Asked: 136}},
		{{Asked: 90, Inside: 148, Leaving: 160}},
	}, 100, 200)
	assert.Equal(t, 4, r.gaps)
	assert.Equal(t, 4, r.passed)
	assert.Equal(t, 1, r.failed)
	assert.Equal(t, "oh", r.failure)
	assert.Equal(t, 1, r.overlaps, "148 is before 150")
	assert.Equal(t, []float64{12.5}, r.p50, "of -2, 5, 20, 30")
	assert.Equal(t, []float64{3}, r.share)
	assert.Equal(t, 129*time.Nanosecond, r.longest)
	assert.Equal(t, "3.00", shares(r.share))
	assert.Equal(t, "∞", shares([]float64{shareOf([]int{3, 0})}))
}

func TestCrewReportsWhatItsProcessesSay(t *testing.T) {
	require.ErrorContains(t, withHost(func(h *host) error {
		_, err := startCrew(t.Context(), h, 2, job{Peer: "unknown"})
		return err
	}), `no such peer: "unknown"`)
}

func TestSpread(t *testing.T) {
	assert.Equal(t, spread{2, 3, 4}, spreadOf([]float64{5, 1, 4, 2, 3}))
	assert.Equal(t, spread{1.25, 1.5, 1.75}, spreadOf([]float64{2, 1}))
	assert.Equal(t, spread{7, 7, 7}, spreadOf([]float64{7}))
	assert.Equal(t, "1.50 (1.25–12.3)", spread{1.25, 1.5, 12.34}.String())
	assert.Equal(t, "– (–––)", spreadOf(nil).String())
}

func TestDuration(t *testing.T) {
	assert.Equal(t, "12.3 µs", duration(12_345))
	assert.Equal(t, "1.23 ms", duration(1_234_567))
	assert.Equal(t, "123 s", duration(123_456_789_000))
}

func TestOnlyNamesScenarios(t *testing.T) {
	chosen, err := choose("hung,cycle")
	require.NoError(t, err)
	require.Len(t, chosen, 2)
	require.Equal(t, "hung", chosen[0].name)
	_, err = choose("hunk")
	require.EqualError(t, err, "-only hunk: no such scenario, there are cycle, held, hung, handover, hotkey")
}
