package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// anyOrder begins the comment that says why the order of a loop over a map cannot be seen. It
// stands on the line of the loop or on the line above.
const anyOrder = "Any order:"

func mapOrderRule() rule {
	const head = "package state\n\nimport (\n\t\"maps\"\n\t\"slices\"\n)\n\nvar _, _ = maps.Keys[map[int]int], slices.Sorted[int]\n\n"
	in := func(body string) sources { return sources{"internal/coordinator/state/a.go": head + body} }
	return rule{
		name: "map-order",
		why: "Go shuffles maps, members would differ: loop over slices.Sorted(maps.Keys(m)), or say in a comment \"" +
			anyOrder + " …\" on that line or above why it cannot matter (R1)",
		check: checkMapOrder,
		wrong: []sources{
			in("func f(m map[string]int) (out []string) {\n\tfor k := range m {\n\t\tout = append(out, k)\n\t}\n\treturn out\n}\n"),
			in("type t struct{ m map[string]int }\n\nfunc f(x []t) {\n\tfor range x[0].m {\n\t}\n}\n"),
			in("func f(m map[string]int) []string { return slices.Collect(maps.Keys(m)) }\n"),
			in("func f(m map[string]int) {\n\tfor range maps.All(m) {\n\t}\n}\n"),
		},
		right: in("func f(m map[string]int) (n int) {\n\t// Any order: sums commute.\n\tfor _, v := range m {\n\t\tn += v\n\t}\n" +
			"\tfor range slices.Sorted(maps.Keys(m)) {\n\t}\n\tfor range []int{1} {\n\t}\n\treturn n\n}\n"),
	}
}

func checkMapOrder(t *testing.T, tr *tree) []finding {
	packages := folders(tr.pureFiles())
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
	exports := exportData(t, packages)
	config := types.Config{Importer: importer.ForCompiler(tr.fset, "gc", func(pkg string) (io.ReadCloser, error) {
		return os.Open(exports[pkg])
	})}
	var out []finding
	for _, files := range packages {
		var syntax []*ast.File
		for _, f := range files {
			syntax = append(syntax, f.syntax)
		}
		if _, err := config.Check(packageName(files[0].dir()), tr.fset, syntax, info); err != nil {
			t.Fatalf("check the types of %s: %v", files[0].dir(), err)
		}
		for _, f := range files {
			out = append(out, mapLoops(tr, f, info)...)
		}
	}
	return out
}

// mapLoops finds the loops over maps, and the iterators over maps that nothing sorts.
func mapLoops(tr *tree, f *file, info *types.Info) []finding {
	allowed := make(map[int]bool)
	for _, group := range f.syntax.Comments {
		if strings.Contains(group.Text(), anyOrder) {
			end := tr.fset.Position(group.End()).Line
			allowed[end], allowed[end+1] = true, true
		}
	}
	sorted := make(map[ast.Node]bool)
	return tr.eachNode([]*file{f}, func(f *file, n ast.Node) string {
		if allowed[tr.fset.Position(n.Pos()).Line] {
			return ""
		}
		switch n := n.(type) {
		case *ast.RangeStmt:
			if _, ok := info.TypeOf(n.X).Underlying().(*types.Map); ok {
				return "loops over a map"
			}
		case *ast.CallExpr:
			pkg, name := selected(f.imports(), n.Fun)
			// These take an iterator over a map and do not show its order.
			if pkg == "slices" && strings.HasPrefix(name, "Sorted") || pkg == "maps" {
				for _, argument := range n.Args {
					sorted[argument] = true
				}
			}
			if pkg == "maps" && slices.Contains([]string{"Keys", "Values", "All"}, name) && !sorted[n] {
				return "iterates over a map with maps." + name
			}
		}
		return ""
	})
}

// exportData asks the go command for the compiled form of what the packages import.
func exportData(t *testing.T, packages [][]*file) map[string]string {
	t.Helper()
	var targets []string
	for _, files := range packages {
		for _, f := range files {
			for _, spec := range f.syntax.Imports {
				targets = append(targets, strings.Trim(spec.Path.Value, "`\""))
			}
		}
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	exports := make(map[string]string)
	if len(targets) == 0 {
		return exports
	}
	list := exec.Command("go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, targets...)...)
	list.Dir = filepath.Join("..", "..")
	var errors bytes.Buffer
	list.Stderr = &errors
	text, err := list.Output()
	if err != nil {
		t.Fatalf("go list -export: %v\n%s", err, errors.String())
	}
	for line := range strings.Lines(string(text)) {
		var pkg, file string
		if n, _ := fmt.Sscan(line, &pkg, &file); n == 2 {
			exports[pkg] = file
		}
	}
	return exports
}
