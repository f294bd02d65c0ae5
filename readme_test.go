package redlock_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// Every Go snippet of the documents stands, indentation aside, in a file that
// the compiler has seen. Those with other libraries are in the module benchmarks.
func TestTheSnippetsOfTheDocumentsCompile(t *testing.T) {
	var compiled strings.Builder
	for _, name := range append(glob(t, "example*_test.go"), "security_test.go", "redlocktest/example_test.go", "benchmarks/example_migration_test.go") {
		compiled.WriteString(flatten(read(t, name)) + "\n")
	}
	require.NotEmpty(t, goBlock.FindString(read(t, "README.md")))
	for _, name := range append(glob(t, "*.md"), append(glob(t, "docs/*.md"), append(glob(t, "examples/*/*.md"), glob(t, "proof/*.md")...)...)...) {
		for _, block := range goBlock.FindAllStringSubmatch(read(t, name), -1) {
			if !strings.Contains(compiled.String(), flatten(block[1])) {
				t.Errorf("%s: in no example:\n%s", name, block[1])
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Every relative link of the documents leads to a file, and, if it names one, to a
// heading in it.
func TestTheLinksOfTheDocumentsResolve(t *testing.T) {
	for _, name := range append(append(glob(t, "*.md"), glob(t, "docs/*.md")...), glob(t, "proof/*.md")...) {
		for _, match := range link.FindAllStringSubmatch(read(t, name), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			path, heading, _ := strings.Cut(match[1], "#")
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if heading != "" && !strings.Contains(anchors(read(t, target)), "#"+heading+"\n") {
				t.Errorf("%s: %s has no heading %s", name, target, heading)
			}
		}
	}
}

// anchors are the headings of a document as GitHub makes links of them.
func anchors(document string) string {
	var b strings.Builder
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "#") {
			text := strings.ToLower(strings.Trim(line, "# \n"))
			text = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(text, "")
			b.WriteString("#" + strings.ReplaceAll(text, " ", "-") + "\n")
		}
	}
	return b.String()
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(content)
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
