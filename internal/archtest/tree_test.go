package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of this repository.
const module = "github.com/hotspare/hotspare"

// tree is the source that the rules look at: the repository, or a sample of a few files.
type tree struct {
	fset  *token.FileSet
	files []*file // by path
}

// file is one text file. Only Go files have syntax and codeLines.
type file struct {
	path      string // from the root of the repository, with slashes
	text      []byte
	syntax    *ast.File
	codeLines []bool // by line number: does it hold more than a comment or nothing?
}

func (f *file) dir() string  { return path.Dir(f.path) }
func (f *file) isGo() bool   { return f.syntax != nil }
func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }
func (f *file) isMain() bool { return f.syntax.Name.Name == "main" }

// code counts the lines of code between two positions, both included.
func (f *file) code(fset *token.FileSet, from, to token.Pos) int {
	n := 0
	for line := fset.Position(from).Line; line <= fset.Position(to).Line; line++ {
		if f.codeLines[line] {
			n++
		}
	}
	return n
}

// imports maps the name under which a file knows a package to the package's path. The names of
// packages whose last element is a major version come from the element before.
func (f *file) imports() map[string]string {
	names := make(map[string]string)
	for _, spec := range f.syntax.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // does not compile, which is not ours to say
		}
		name := path.Base(target)
		if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(target))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = target
	}
	return names
}

// selected returns the package path and the name that a selector like time.Now refers to; the
// path is empty when it is not a package's.
func selected(imports map[string]string, n ast.Node) (pkg, name string) {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return imports[x.Name], sel.Sel.Name
}

// goFiles are the hand-written Go files.
func (t *tree) goFiles() []*file {
	return slices.DeleteFunc(slices.Clone(t.files), func(f *file) bool { return !f.isGo() })
}

// productFiles are the Go files that are not tests.
func (t *tree) productFiles() []*file {
	return slices.DeleteFunc(t.goFiles(), (*file).isTest)
}

// folders groups files by folder, in the order of their paths.
func folders(files []*file) [][]*file {
	byDir := make(map[string][]*file)
	for _, f := range files {
		byDir[f.dir()] = append(byDir[f.dir()], f)
	}
	var out [][]*file
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		out = append(out, byDir[dir])
	}
	return out
}

// at is the place of a node, as path:line.
func (t *tree) at(n ast.Node) string {
	p := t.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// add parses one file into the tree.
func (t *tree) add(name string, text []byte) error {
	f := &file{path: name, text: text}
	t.files = append(t.files, f)
	if !strings.HasSuffix(name, ".go") || strings.Contains(name, "testdata/") {
		return nil
	}
	syntax, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
	}
	f.syntax = syntax
	f.codeLines = codeLines(text)
	return nil
}

// codeLines says of each line, counted from one, whether it holds code.
func codeLines(text []byte) []bool {
	lines := make([]bool, bytes.Count(text, []byte("\n"))+2)
	fset := token.NewFileSet()
	whole := fset.AddFile("", fset.Base(), len(text))
	var s scanner.Scanner
	s.Init(whole, text, nil, 0)
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return lines
		}
		if tok == token.SEMICOLON && literal == "\n" {
			continue // put in by the scanner
		}
		first := whole.Line(pos)
		for line := first; line <= first+strings.Count(literal, "\n"); line++ {
			lines[line] = true
		}
	}
}

// sources is a small tree for samples: path to text.
type sources map[string]string

func (s sources) tree(t *testing.T) *tree {
	t.Helper()
	out := &tree{fset: token.NewFileSet()}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if err := out.add(name, []byte(s[name])); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// repository reads the working tree.
func repository(t *testing.T) *tree {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("find the root of the repository: %v", err)
	}
	out := &tree{fset: token.NewFileSet()}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "build", "dist", "gen"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || name == ".git" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			return err // a file with NUL bytes is not text
		}
		return out.add(name, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
