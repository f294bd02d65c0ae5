package redlock_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that uses the library is built from the modules that the library names, and
// not from what the tool or the tests need.
func TestTheLibraryIsBuiltFromFewModules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	require.NoError(t, err)
	modules := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			modules[line] = true
		}
	}
	require.Equal(t, map[string]bool{
		"github.com/redis-kit/redlock":   true,
		"github.com/cenkalti/backoff/v4": true,
		"github.com/redis/rueidis":       true,
		"golang.org/x/sys":               true, // of rueidis
	}, modules)
}
