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

// documented is the package in a directory, without its tests.
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

// symbols are the exported names, methods and fields as Type.Name.
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

// uncommented are the symbols without a doc comment. A group of constants or
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

// comments are the texts of all doc comments, those inside of declarations
// included.
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
