package nemesis

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/proof/history"
)

var (
	soakFor   = flag.Duration("soak.duration", 5*time.Second, "length of the soak")
	soakSeed  = flag.Uint64("soak.seed", 20, "seed of what happens")
	soakEpoch = flag.Duration("soak.epoch", 20*time.Second, "length of a history, after which it is checked and the next begins")
	soakOut   = flag.String("soak.out", "", "folder for the histories and the report; none by default")
)

// Row 20: every fault of Faults, two at a time, mixed by a seed. After each epoch the history and
// what is left behind are checked, and a new history begins on the same servers. The first
// violation ends the soak.
func TestSoak(t *testing.T) {
	bed := NewTestbed(t, 5, ttl, debuggable(t)...)
	began := time.Now()
	var r report
	defer func() { r.print(t, time.Since(began)) }()
	for seed := *soakSeed; time.Since(began) < *soakFor && !t.Failed(); seed++ {
		random := rand.New(rand.NewPCG(seed, 0))
		keys := []string{"a", "b", "c"}[:1+random.IntN(3)]
		left := max(*soakFor-time.Since(began), time.Second)
		battle{
			testbed: bed, faults: Faults, at: 2, duration: min(*soakEpoch, left),
			processes: 2 + random.IntN(4), perProcess: 1 + random.IntN(4), keys: keys, seed: seed,
			keep: func(h *history.History) {
				write(t, fmt.Sprintf("history-%d.json", seed), h)
				r.add(h)
			},
		}.run(t)
	}
}

// report adds up the epochs of a soak.
type report struct {
	epochs int
	total  history.Summary
	faults map[string]int
}

func (r *report) add(h *history.History) {
	r.epochs++
	s, total := h.Summary(), &r.total
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
	if r.faults == nil {
		r.faults = make(map[string]int)
	}
	for _, f := range h.Faults {
		r.faults[f.Name]++
	}
}

func (r *report) print(t *testing.T, took time.Duration) {
	violations := "none"
	if t.Failed() {
		violations = "in the last epoch, see above"
	}
	s := r.total
	t.Logf("soak: %v from seed %d in %d epochs: %d acquisitions, %d holds, %d of them lost, %d faults; longest wait %v; a ctx was seen ended at most %v after validity, %v without the time that this process was stalled, with at least %v left of its keys; stalled for at most %v; violations: %s",
		took.Round(time.Second), *soakSeed, r.epochs, s.Operations, s.Holds, s.Lost, s.Faults, s.LongestWait, s.Lateness, s.Unexplained, s.Slack, s.Stall, violations)
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		t.Logf("%6d × %s", r.faults[name], name)
	}
}

// write writes a history to the folder of -soak.out, if there is one.
func write(t *testing.T, name string, h *history.History) {
	if *soakOut == "" {
		return
	}
	text, err := json.Marshal(h)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(*soakOut, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(*soakOut, name), text, 0o644))
}
