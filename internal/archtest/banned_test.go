package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

func bannedRules() []rule {
	return []rule{
		{
			name:  "init",
			why:   "work at import time has no error, no order and no test; registries are built in main",
			check: checkInit,
			wrong: []sources{{"internal/x/a.go": "package x\n\nfunc init() {}\n"}},
			right: sources{"internal/x/a.go": "package x\n\ntype t struct{}\n\nfunc (t) init() {}\n"},
		},
		{
			name:  "exit",
			why:   "only main exits: elsewhere deferred clean-up would be skipped",
			check: checkExit,
			wrong: []sources{
				{"internal/x/a.go": "package x\n\nimport \"os\"\n\nfunc f() { os.Exit(1) }\n"},
				{"internal/x/a.go": "package x\n\nimport \"log\"\n\nfunc f() { log.Fatalln() }\n"},
			},
			right: sources{
				"cmd/agent/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Exit(1) }\n",
				"internal/x/a.go":   "package x\n\nfunc f() { panic(\"invariant single run\") }\n",
			},
		},
		{
			name:  "sleep",
			why:   "a test waits for a condition with a deadline, or runs in a synctest bubble",
			check: checkSleep,
			wrong: []sources{
				{"internal/x/a_test.go": "package x\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"},
				{"internal/clustertest/a_test.go": "package clustertest\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"},
				{"internal/x/a_test.go": "package x\n\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc f() { synctest.Test(nil, nil); time.Sleep(1) }\n"},
			},
			right: sources{
				"internal/x/a_test.go":           "package x\n\nimport (\n\t\"testing\"\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc f(t *testing.T) {\n\tsynctest.Test(t, func(t *testing.T) { time.Sleep(1) })\n}\n",
				"internal/clustertest/a_test.go": "package clustertest\n\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc f() { synctest.Wait(); time.Sleep(1) }\n",
			},
		},
		{
			name:  "global",
			why:   "no mutable package variables: state belongs to a value that somebody owns",
			check: checkGlobals,
			wrong: []sources{
				{"internal/x/a.go": "package x\n\nvar count int\n"},
				{"internal/x/a.go": "package x\n\nvar Table = []int{1}\n"},
				{"internal/x/a.go": "package x\n\nvar table = map[int]int{}\n\nfunc f() { table[1] = 2 }\n"},
				{"internal/x/a.go": "package x\n\nvar table = map[int]int{}\n\nfunc f() { delete(table, 1) }\n"},
				{"internal/x/a.go": "package x\n\nvar table = []int{1}\n\nfunc f() []int { return table }\n"},
				{"internal/x/a.go": "package x\n\nvar table = []int{1}\n", "internal/x/b.go": "package x\n\nfunc f() { table[0]++ }\n"},
				{"internal/x/a.go": "package x\n\nvar table = [1]int{1}\n\nfunc f() *[1]int { return &table }\n"},
			},
			right: sources{
				"internal/x/a.go": "package x\n\nimport (\n\t\"errors\"\n\t\"regexp\"\n)\n\nvar _ error = (*fault)(nil)\n\n" +
					"// ErrStale says so.\nvar ErrStale = errors.New(\"stale\")\n\nvar (\n\tnames = []string{\"a\"}\n\tword = regexp.MustCompile(`a`)\n)\n\n" +
					"func f() { names := []string{}; _ = names }\n\nfunc g() int { return len(names) }\n",
				"internal/x/a_test.go": "package x\n\nvar seed = 1\n",
				"cmd/agent/main.go":    "package main\n\nvar version = \"unknown\"\n",
				"internal/y/a.go":      "package y\n\nimport \"embed\"\n\n//go:embed a\nvar page embed.FS\n",
			},
		},
		{
			name:  "package-name",
			why:   "a package is named after what it provides",
			check: checkPackageNames,
			wrong: []sources{{"internal/util/a.go": "package util\n"}, {"internal/x/a.go": "package helpers\n"}},
			right: sources{"internal/x/a.go": "package x\n"},
		},
	}
}

func checkInit(_ *testing.T, t *tree) []finding {
	return t.eachNode(t.goFiles(), func(_ *file, n ast.Node) string {
		if d, ok := n.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
			return "declares init"
		}
		return ""
	})
}

func checkExit(_ *testing.T, t *tree) []finding {
	return t.eachNode(t.productFiles(), func(f *file, n ast.Node) string {
		pkg, name := selected(f.imports(), n)
		if !f.isMain() && (pkg == "os" && name == "Exit" || pkg == "log" && strings.HasPrefix(name, "Fatal")) {
			return "uses " + pkg + "." + name
		}
		return ""
	})
}

func checkSleep(_ *testing.T, t *tree) []finding {
	tests := slices.DeleteFunc(t.goFiles(), func(f *file) bool { return !f.isTest() })
	bubbled := make(map[ast.Node]bool) // sleeps inside a function that is given to synctest.Test
	return t.eachNode(tests, func(f *file, n ast.Node) string {
		imports := f.imports()
		if imports["synctest"] == "testing/synctest" && matches("internal/clustertest/...", f.dir()) {
			return ""
		}
		if call, ok := n.(*ast.CallExpr); ok {
			if pkg, name := selected(imports, call.Fun); pkg == "testing/synctest" && name == "Test" {
				ast.Inspect(call, func(inner ast.Node) bool { bubbled[inner] = true; return true })
			}
		}
		if pkg, name := selected(imports, n); pkg == "time" && name == "Sleep" && !bubbled[n] {
			return "sleeps"
		}
		return ""
	})
}

func checkPackageNames(_ *testing.T, t *tree) []finding {
	banned := []string{"util", "utils", "common", "helper", "helpers", "types", "base", "misc", "shared"}
	var out []finding
	for _, f := range t.goFiles() {
		for _, name := range []string{f.syntax.Name.Name, path.Base(f.dir())} {
			if slices.Contains(banned, name) {
				out = append(out, found(f.path, "a package is called %s", name))
			}
		}
	}
	return out
}

// checkGlobals allows, besides error values and embedded files, unexported tables that nothing in
// their package changes or gives away.
func checkGlobals(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, files := range folders(t.productFiles()) {
		tables := make(map[string]bool)
		for _, f := range files {
			for _, d := range f.syntax.Decls {
				if vars, ok := d.(*ast.GenDecl); ok && vars.Tok == token.VAR {
					out = append(out, t.globals(f, vars, tables)...)
				}
			}
		}
		for _, f := range files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					out = append(out, t.tableChanges(f, fn, tables)...)
				}
			}
		}
	}
	return out
}

// globals judges one var declaration and adds the names of its tables to tables.
func (t *tree) globals(f *file, vars *ast.GenDecl, tables map[string]bool) []finding {
	var out []finding
	for _, s := range vars.Specs {
		spec, _ := s.(*ast.ValueSpec)
		if embedded(vars.Doc) || embedded(spec.Doc) {
			continue
		}
		for i, name := range spec.Names {
			var value ast.Expr
			if i < len(spec.Values) {
				value = spec.Values[i]
			}
			switch {
			case name.Name == "_", isErrorValue(f, name.Name, value), f.isMain() && name.Name == "version":
			case !name.IsExported() && isTable(f, value):
				tables[name.Name] = true
			default:
				out = append(out, finding{
					key: f.dir() + "." + name.Name, at: t.at(name),
					text: fmt.Sprintf("package variable %s is neither an error value nor an unexported table", name.Name),
				})
			}
		}
	}
	return out
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

func isErrorValue(f *file, name string, value ast.Expr) bool {
	call, ok := value.(*ast.CallExpr)
	if !ok || !strings.HasPrefix(strings.ToLower(name), "err") {
		return false
	}
	pkg, fn := selected(f.imports(), call.Fun)
	return pkg == "errors" && fn == "New" || pkg == "fmt" && fn == "Errorf"
}

// isTable says whether the value is a literal, or made once from a literal and safe to share.
func isTable(f *file, value ast.Expr) bool {
	if call, ok := value.(*ast.CallExpr); ok {
		pkg, fn := selected(f.imports(), call.Fun)
		return slices.Contains([]string{"regexp.MustCompile", "strings.NewReplacer", "template.Must", "netip.MustParsePrefix", "crc32.MakeTable"},
			path.Base(pkg)+"."+fn)
	}
	_, ok := value.(*ast.CompositeLit)
	return ok
}

// tableChanges finds where a function changes a table of its package, takes its address or
// returns it. A local variable of the same name hides the table.
func (t *tree) tableChanges(f *file, fn *ast.FuncDecl, tables map[string]bool) []finding {
	var out []finding
	local := localNames(fn)
	report := func(x ast.Expr, what string) {
		if name := rootName(x); tables[name] && !local[name] {
			out = append(out, finding{
				key: f.dir() + "." + name, at: t.at(x),
				text: fmt.Sprintf("%s %s the table %s", fn.Name.Name, what, name),
			})
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		what, targets := change(n)
		for _, x := range targets {
			report(x, what)
		}
		return true
	})
	return out
}

// change says what a statement or expression does to which variables.
func change(n ast.Node) (what string, targets []ast.Expr) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		return "changes", n.Lhs
	case *ast.IncDecStmt:
		return "changes", []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return "takes the address of", []ast.Expr{n.X}
		}
	case *ast.ReturnStmt:
		return "gives away", slices.DeleteFunc(slices.Clone(n.Results), func(x ast.Expr) bool {
			_, bare := x.(*ast.Ident)
			return !bare
		})
	case *ast.CallExpr:
		if name := rootName(n.Fun); slices.Contains([]string{"delete", "clear", "copy"}, name) && len(n.Args) > 0 {
			return "changes", n.Args[:1]
		}
	}
	return "", nil
}

// localNames are the names that a function declares: parameters and variables.
func localNames(fn *ast.FuncDecl) map[string]bool {
	names := make(map[string]bool)
	add := func(x ast.Expr) {
		if id, ok := x.(*ast.Ident); ok {
			names[id.Name] = true
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, x := range n.Lhs {
					add(x)
				}
			}
		case *ast.RangeStmt:
			add(n.Key)
			add(n.Value)
		case *ast.Field:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		}
		return true
	})
	return names
}

// rootName is the variable that an expression like a.b[c].d starts from.
func rootName(x ast.Expr) string {
	for {
		switch e := x.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.SliceExpr:
			x = e.X
		case *ast.ParenExpr:
			x = e.X
		case *ast.StarExpr:
			x = e.X
		default:
			return ""
		}
	}
}
