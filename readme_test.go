package redlock_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// Every Go snippet of the README stands, indentation aside, in a file that the
// compiler has seen.
func TestTheSnippetsOfTheReadmeCompile(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var compiled string
	for _, name := range []string{"example_test.go", "example_middleware_test.go"} {
		examples, err := os.ReadFile(name)
		require.NoError(t, err)
		compiled += flatten(string(examples)) + "\n"
	}
	blocks := goBlock.FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		require.Contains(t, compiled, flatten(block[1]))
	}
}

func flatten(code string) string {
	var lines []string
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
