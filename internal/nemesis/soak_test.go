package nemesis

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/history"
)

var (
	soakFor   = flag.Duration("soak.duration", 5*time.Second, "for how long everything happens at once")
	soakSeed  = flag.Uint64("soak.seed", 20, "seed of what happens")
	soakEpoch = flag.Duration("soak.epoch", 20*time.Second, "for how long a history goes on before it is checked and the next begins")
	soakOut   = flag.String("soak.out", "", "folder for the histories and the report; none by default")
)

// Row 20: every fault, mixed by a seed, for as long as asked. The history is
// checked and begun anew after each epoch, with the invariants on what is left
// behind; the servers live on.
func TestSoak(t *testing.T) {
	a := NewArena(t, 5, ttl, "--enable-debug-command", "yes")
	began := time.Now()
	var total history.Summary
	faults := make(map[string]int)
	epochs := 0
	for seed := *soakSeed; time.Since(began) < *soakFor && !t.Failed(); seed++ {
		random := rand.New(rand.NewPCG(seed, 0))
		keys := []string{"a", "b", "c"}[:1+random.IntN(3)]
		left := max(*soakFor-time.Since(began), time.Second)
		b := battle{
			arena: a, faults: Faults, duration: min(*soakEpoch, left),
			processes: 2 + random.IntN(4), perProcess: 1 + random.IntN(4), keys: keys, seed: seed,
		}
		h := b.run(t)
		epochs++
		s := h.Summary()
		total.Operations += s.Operations
		total.Holds += s.Holds
		total.Lost += s.Lost
		total.Faults += s.Faults
		total.Lateness = max(total.Lateness, s.Lateness)
		total.Unexplained = max(total.Unexplained, s.Unexplained)
		total.Stall = max(total.Stall, s.Stall)
		total.LongestWait = max(total.LongestWait, s.LongestWait)
		if s.Expired > 0 && (total.Expired == 0 || s.Slack < total.Slack) {
			total.Slack = s.Slack
		}
		total.Expired += s.Expired
		for _, f := range h.Faults {
			faults[f.Name]++
		}
		keep(t, fmt.Sprintf("history-%d.json", seed), h)
	}
	t.Logf("soak: %v from seed %d in %d epochs: %d acquisitions, %d holds, %d of them lost, %d faults; longest wait %v; a ctx was seen ended at most %v after validity, %v without the time that this process was stalled, with at least %v left of its keys; stalled for at most %v; violations: none",
		time.Since(began).Round(time.Second), *soakSeed, epochs, total.Operations, total.Holds, total.Lost, total.Faults, total.LongestWait, total.Lateness, total.Unexplained, total.Slack, total.Stall)
	names := make([]string, 0, len(faults))
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Logf("%6d × %s", faults[name], name)
	}
}

// keep writes a history to the folder, if one was asked for.
func keep(t *testing.T, name string, h *history.History) {
	if *soakOut == "" {
		return
	}
	text, err := json.Marshal(h)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(*soakOut, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(*soakOut, name), text, 0o644))
}
