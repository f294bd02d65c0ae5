package mutation

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attempts bounds the runs of the test that must catch a mistake. Some mistakes show only by
// chance: in one order of goroutines, or at one moment of a fault. A mistake counts as caught once
// one run fails for it: it shows that the suite can catch the mistake.
const attempts = 3

// stopped is part of arm, with a pause that stops its goroutine once between reading the clock
// and setting the timer.
const stopped = `		if !stopped {
			stopped = true
			time.Sleep(50 * time.Millisecond)
		}
		h.timer.Reset(clock.Instant(deadline).Sub(before))
`

// The reverse: arm survives this pause, but would not if it did not read the clock again.
func TestATimerThatIsSetByAStaleReadingIsSetAgain(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	source, err := os.ReadFile(filepath.Join(root, hold))
	require.NoError(t, err)
	const reset, again = "		h.timer.Reset(clock.Instant(deadline).Sub(before))\n", "h.keeper.clock.Now().Sub(before) < rearmAfter"
	require.Equal(t, 1, strings.Count(string(source), reset), "the code has changed: correct this entry")
	require.Equal(t, 1, strings.Count(string(source), again), "the code has changed: correct this entry")
	text := strings.Replace(string(source), reset, stopped, 1) + "\nvar stopped bool\n"
	run := test("./internal/keeper", "TestContextEndsExactlyWithValidity")
	out, err := goTest(t, root, run, hold, text)
	require.NoError(t, err, out)
	out, err = goTest(t, root, run, hold, strings.Replace(text, again, "true", 1))
	require.Error(t, err)
	require.Contains(t, out, "--- FAIL: TestContextEndsExactlyWithValidity")
}

func TestEachPlantedMistakeIsCaught(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel() // many of the tests wait most of the time
			source, err := os.ReadFile(filepath.Join(root, m.file))
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(source), m.old), "the code has changed: correct this entry")
			text := strings.Replace(string(source), m.old, m.new, 1)
			catch(t, root, m.run, m.file, text, m.caught)
			if caught, ok := replayed[m.name]; ok {
				catch(t, root, replay(), m.file, text, caught)
			}
		})
	}
}

// catch requires that a go test with one file replaced fails, with caught in its output.
func catch(t *testing.T, root string, run command, file, text, caught string) {
	t.Helper()
	out, err := goTest(t, root, run, file, text)
	for i := 1; i < attempts && err == nil; i++ {
		out, err = goTest(t, root, run, file, text)
	}
	command := "go test " + strings.Join(run.args, " ")
	require.Error(t, err, "not caught by %s", command)
	require.Contains(t, out, "--- FAIL", "it must fail for the mistake, not because it does not compile")
	require.Contains(t, out, caught)
	t.Logf("caught by %s:\n%s", command, firstFailure(out))
}

// goTest runs a go test with one file replaced. Without vet and symbols the many builds take a
// fraction of the time.
func goTest(t *testing.T, root string, test command, file, text string) (string, error) {
	dir := t.TempDir()
	planted := filepath.Join(dir, filepath.Base(file))
	require.NoError(t, os.WriteFile(planted, []byte(text), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, file): planted}})
	require.NoError(t, err)
	list := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(list, overlay, 0o600))
	run := exec.CommandContext(t.Context(), "go", append([]string{"test", "-count=1", "-timeout=2m", "-vet=off", "-ldflags=-s -w", "-overlay", list}, test.args...)...)
	run.Dir = filepath.Join(root, test.module)
	out, err := run.CombinedOutput()
	return string(out), err
}

func firstFailure(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, ": P") || strings.Contains(line, "--- FAIL") {
			return line
		}
	}
	return ""
}
