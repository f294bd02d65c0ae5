package redlock_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	gotoken "go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every exported symbol of the public packages has a doc comment, and every link
// in a doc comment leads somewhere.
func TestDocCommentsAreCompleteAndTheirLinksResolve(t *testing.T) {
	linked := make(map[string][]string) // symbols of other packages, by import path
	for _, dir := range []string{".", "middleware", "otelhook", "redlocktest", "adapters/gocronlock", "adapters/certmagiclock"} {
		p := documented(t, dir)
		foreign := strings.HasPrefix(dir, "adapters/") // a module of its own, which may need a later Go
		for _, symbol := range uncommented(p) {
			t.Errorf("%s: %s has no doc comment", p.ImportPath, symbol)
		}
		for _, text := range comments(p) {
			forEachText(p.Parser().Parse(text), func(link *comment.DocLink, plain string) {
				// What the parser cannot resolve within the package stays plain text.
				for _, dead := range deadLink.FindAllString(plain, -1) {
					t.Errorf("%s: %s leads nowhere, in: %s", p.ImportPath, dead, plain)
				}
				if link != nil && link.ImportPath != "" && link.Name != "" && !foreign {
					name := link.Name
					if link.Recv != "" {
						name = link.Recv + "." + name
					}
					linked[link.ImportPath] = append(linked[link.ImportPath], name)
				}
			})
		}
	}
	require.NotEmpty(t, linked)
	for path, dir := range directories(t, linked) {
		known := symbols(documented(t, dir))
		for _, name := range linked[path] {
			if !slices.Contains(known, name) {
				t.Errorf("a link leads to %s.%s, which does not exist", path, name)
			}
		}
	}
}

var deadLink = regexp.MustCompile(`\[\*?[A-Za-z][\w./]*\]`)

// documented returns the package in a directory, without its tests.
func documented(t *testing.T, dir string) *doc.Package {
	t.Helper()
	files := gotoken.NewFileSet()
	var syntax []*ast.File
	sources, err := build.ImportDir(dir, 0)
	require.NoError(t, err)
	for _, name := range sources.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(dir, name), nil, parser.ParseComments)
		require.NoError(t, err)
		syntax = append(syntax, file)
	}
	p, err := doc.NewFromFiles(files, syntax, sources.Name)
	require.NoError(t, err)
	return p
}

// directories finds the packages that links lead to.
func directories(t *testing.T, linked map[string][]string) map[string]string {
	t.Helper()
	args := []string{"list", "-json=ImportPath,Dir"}
	for path := range linked {
		args = append(args, path)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	require.NoError(t, err)
	found := make(map[string]string)
	for list := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ ImportPath, Dir string }
		err := list.Decode(&p)
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		found[p.ImportPath] = p.Dir
	}
}

// symbols returns the exported names, with methods and fields as Type.Name.
func symbols(p *doc.Package) (names []string) {
	values := func(all []*doc.Value) {
		for _, v := range all {
			names = append(names, v.Names...)
		}
	}
	functions := func(prefix string, all []*doc.Func) {
		for _, f := range all {
			names = append(names, prefix+f.Name)
		}
	}
	values(p.Consts)
	values(p.Vars)
	functions("", p.Funcs)
	for _, typ := range p.Types {
		names = append(names, typ.Name)
		values(typ.Consts)
		values(typ.Vars)
		functions("", typ.Funcs)
		functions(typ.Name+".", typ.Methods)
		for _, spec := range typ.Decl.Specs {
			switch s := spec.(*ast.TypeSpec).Type.(type) {
			case *ast.StructType:
				names = append(names, fields(typ.Name, s.Fields)...)
			case *ast.InterfaceType:
				names = append(names, fields(typ.Name, s.Methods)...)
			}
		}
	}
	return names
}

func fields(typ string, list *ast.FieldList) (names []string) {
	for _, f := range list.List {
		for _, n := range f.Names {
			names = append(names, typ+"."+n.Name)
		}
	}
	return names
}

// uncommented returns the symbols without a doc comment. A group of constants or
// variables may have one for all.
func uncommented(p *doc.Package) (names []string) {
	missing := func(name, text string) {
		if text == "" {
			names = append(names, name)
		}
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			for _, spec := range v.Decl.Specs {
				s := spec.(*ast.ValueSpec)
				for _, n := range s.Names {
					if n.IsExported() {
						missing(n.Name, v.Doc+s.Doc.Text()+s.Comment.Text())
					}
				}
			}
		}
	}
	functions := func(prefix string, all []*doc.Func) {
		for _, f := range all {
			missing(prefix+f.Name, f.Doc)
		}
	}
	missing("the package", p.Doc)
	values(p.Consts)
	values(p.Vars)
	functions("", p.Funcs)
	for _, typ := range p.Types {
		missing(typ.Name, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		functions("", typ.Funcs)
		functions(typ.Name+".", typ.Methods)
	}
	return names
}

// comments returns the texts of all doc comments, including those inside declarations.
func comments(p *doc.Package) (texts []string) {
	add := func(node ast.Node, text string) {
		texts = append(texts, text)
		if node == nil {
			return
		}
		ast.Inspect(node, func(n ast.Node) bool {
			if group, ok := n.(*ast.CommentGroup); ok {
				texts = append(texts, group.Text())
			}
			return true
		})
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			add(v.Decl, v.Doc)
		}
	}
	functions := func(all []*doc.Func) {
		for _, f := range all {
			add(nil, f.Doc)
		}
	}
	add(nil, p.Doc)
	values(p.Consts)
	values(p.Vars)
	functions(p.Funcs)
	for _, typ := range p.Types {
		add(typ.Decl, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		functions(typ.Funcs)
		functions(typ.Methods)
	}
	return slices.DeleteFunc(texts, func(text string) bool { return text == "" })
}

// forEachText calls f for each link and each plain text outside of code.
func forEachText(d *comment.Doc, f func(link *comment.DocLink, plain string)) {
	var blocks func([]comment.Block)
	texts := func(all []comment.Text) {
		for _, text := range all {
			switch x := text.(type) {
			case comment.Plain:
				f(nil, string(x))
			case *comment.DocLink:
				f(x, "")
			}
		}
	}
	blocks = func(all []comment.Block) {
		for _, block := range all {
			switch b := block.(type) {
			case *comment.Paragraph:
				texts(b.Text)
			case *comment.Heading:
				texts(b.Text)
			case *comment.List:
				for _, item := range b.Items {
					blocks(item.Content)
				}
			}
		}
	}
	blocks(d.Content)
}

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// Every Go snippet of the documents occurs, apart from indentation, in a compiled file.
// Snippets with other libraries are in the module benchmarks.
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

// anchors returns the headings of a document as GitHub makes anchors of them.
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

// A program that uses the library is built from the modules that the library imports, and
// not from those that the tool or the tests need.
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
