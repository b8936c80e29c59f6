package archtest

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// The budgets. Lines are lines of code: neither blank nor only a comment. Above the first number
// an exception with a reason is needed, above the second none helps.
const (
	fileLines, fileLinesHard         = 500, 800
	testFileLines, testFileLinesHard = 1000, 1500
	functionLines, functionLinesHard = 70, 100
	packageLines                     = 2000
	driverMethods                    = 8 // type Driver of a seam
	interfaceMethods                 = 4 // any other interface
)

func budgetRules() []rule {
	return []rule{
		{
			name:  "file-size",
			why:   fmt.Sprintf("a file is read in one sitting: %d lines of code, %d in tests", fileLines, testFileLines),
			check: checkFiles,
			wrong: []sources{
				{"internal/x/a.go": "package x\n\nvar _ = []int{\n" + strings.Repeat("\t1,\n", fileLines) + "}\n"},
				{"internal/x/a_test.go": "package x\n\nvar _ = `" + strings.Repeat("\n", testFileLines) + "`\n"},
			},
			right: sources{"internal/x/a.go": "package x\n\nvar _ = []int{\n" + strings.Repeat("\t1,\n\n\t// why\n", fileLines-3) + "}\n"},
		},
		{
			name:  "function-size",
			why:   fmt.Sprintf("a function fits on a screen: %d lines of code", functionLines),
			check: checkFunctions,
			wrong: []sources{{"internal/x/a.go": "package x\n\nfunc f() {\n" + strings.Repeat("\tf()\n", functionLines-1) + "}\n"}},
			right: sources{"internal/x/a.go": "package x\n\nfunc f() {\n" + strings.Repeat("\tf() // why\n\n", functionLines-2) + "}\n"},
		},
		{
			name:  "package-size",
			why:   fmt.Sprintf("a package over %d lines of code is split by noun", packageLines),
			check: checkPackageSize,
			wrong: []sources{{
				"internal/x/a.go": "package x\n\nvar _ = `" + strings.Repeat("\n", packageLines/2) + "`\n",
				"internal/x/b.go": "package x\n\nvar _ = `" + strings.Repeat("\n", packageLines/2) + "`\n",
			}},
			right: sources{
				"internal/x/a.go":      "package x\n",
				"internal/x/a_test.go": "package x\n\nvar _ = `" + strings.Repeat("\n", packageLines) + "`\n",
			},
		},
		{
			name:  "interface-size",
			why:   fmt.Sprintf("narrow interfaces: %d methods for a driver, %d elsewhere", driverMethods, interfaceMethods),
			check: checkInterfaces,
			wrong: []sources{
				{"internal/x/a.go": "package x\n\ntype Driver interface{ A(); B(); C(); D(); E() }\n"},
				{"internal/storage/a.go": "package storage\n\ntype Driver interface{ A(); B(); C(); D(); E(); F(); G(); H(); I() }\n"},
				{"internal/x/a.go": "package x\n\ntype Half interface{ A(); B(); C() }\n\ntype Whole interface { Half; D(); E() }\n"},
			},
			right: sources{
				"internal/storage/a.go": "package storage\n\ntype Driver interface{ A(); B(); C(); D(); E(); F(); G(); H() }\n",
				"internal/x/a.go":       "package x\n\ntype Half interface{ A(); B() }\n\ntype Whole interface { Half; C(); D() }\n\ntype Number interface{ ~int | ~int64 }\n",
			},
		},
		{
			name:  "package-comment",
			why:   "a package says what it decides or does, what it must never do, who calls it",
			check: checkPackageComments,
			wrong: []sources{
				{"internal/x/a.go": "package x\n"},
				{"internal/x/a.go": "// Words about something else.\npackage x\n"},
				{"e2e/a_test.go": "package e2e\n"},
			},
			right: sources{
				"internal/x/a.go":      "package x\n",
				"internal/x/doc.go":    "// Package x does this.\npackage x\n",
				"internal/x/a_test.go": "package x_test\n",
				"cmd/agent/main.go":    "// Command hotspare-agent manages a host.\npackage main\n",
			},
		},
	}
}

// over makes a finding when a size is above its budget.
func over(key, at, what string, size, soft, hard int) []finding {
	if size <= soft {
		return nil
	}
	return []finding{{key: key, at: at, hard: size > hard, text: fmt.Sprintf("%s has %d lines of code, more than %d (never more than %d)", what, size, soft, hard)}}
}

// codeOf counts a file's lines of code.
func codeOf(f *file) int {
	n := 0
	for _, code := range f.codeLines {
		if code {
			n++
		}
	}
	return n
}

func checkFiles(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, f := range t.goFiles() {
		soft, hard := fileLines, fileLinesHard
		if f.isTest() {
			soft, hard = testFileLines, testFileLinesHard
		}
		out = append(out, over(f.path, f.path, "the file", codeOf(f), soft, hard)...)
	}
	return out
}

func checkFunctions(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, f := range t.productFiles() {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				out = append(out, over(f.path+" "+fn.Name.Name, t.at(fn), fn.Name.Name,
					f.code(t.fset, fn.Type.Pos(), fn.End()), functionLines, functionLinesHard)...)
			}
		}
	}
	return out
}

func checkPackageSize(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, files := range folders(t.productFiles()) {
		size := 0
		for _, f := range files {
			size += codeOf(f)
		}
		if dir := files[0].dir(); size > packageLines {
			out = append(out, found(dir, "the package has %d lines of code, more than %d", size, packageLines))
		}
	}
	return out
}

func checkInterfaces(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, files := range folders(t.productFiles()) {
		declared := make(map[string]*ast.InterfaceType)
		for _, f := range files {
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok {
					if iface, ok := spec.Type.(*ast.InterfaceType); ok {
						declared[spec.Name.Name] = iface
					}
				}
				return true
			})
		}
		dir := files[0].dir()
		for name, iface := range declared {
			limit := interfaceMethods
			if name == "Driver" && slices.Contains(seams(), dir) {
				limit = driverMethods
			}
			if n := methods(iface, declared); n > limit {
				out = append(out, finding{
					key: dir + "." + name, at: t.at(iface),
					text: fmt.Sprintf("interface %s has %d methods, more than %d", name, n, limit),
				})
			}
		}
	}
	return out
}

// methods counts the methods of an interface with those of embedded ones of the same package; an
// interface of another package counts as one.
func methods(iface *ast.InterfaceType, declared map[string]*ast.InterfaceType) int {
	n := 0
	for _, field := range iface.Methods.List {
		switch embedded := field.Type.(type) {
		case *ast.FuncType:
			n += len(field.Names)
		case *ast.Ident:
			if inner, ok := declared[embedded.Name]; ok {
				n += methods(inner, declared)
			}
		case *ast.SelectorExpr:
			n++
		}
	}
	return n
}

func checkPackageComments(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, files := range folders(t.goFiles()) {
		commented := slices.ContainsFunc(files, func(f *file) bool {
			if f.syntax.Doc == nil {
				return false
			}
			text := f.syntax.Doc.Text()
			return strings.HasPrefix(text, "Package "+f.syntax.Name.Name+" ") || f.isMain()
		})
		if !commented {
			out = append(out, found(files[0].dir(), "no file has a comment that begins with %q",
				"Package "+files[0].syntax.Name.Name))
		}
	}
	return out
}
