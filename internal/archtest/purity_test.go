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

// ioFolders are the packages of the coordinator that do input and output. Every other folder
// below internal/coordinator holds state or a controller and must be pure.
func ioFolders() []string {
	return []string{
		"internal/coordinator",
		"internal/coordinator/raftnode/...",
		"internal/coordinator/metrics/...",
		"internal/coordinator/rpc/...",
		"internal/coordinator/fleet/...",
		"internal/coordinator/webhook/...",
		"internal/coordinator/fixture/...", // builders for tests
		"internal/coordinator/store/...",   // hands the newest state to other goroutines
		"internal/coordinator/gitops/...",  // reads a Git repository
	}
}

// pure says whether a folder's code may only compute: same input, same output, on every member.
func pure(folder string) bool {
	is := func(pattern string) bool { return matches(pattern, folder) }
	if is("internal/coordinator/...") {
		return !slices.ContainsFunc(ioFolders(), is)
	}
	return slices.ContainsFunc([]string{"internal/model/...", "internal/placement/...", "internal/runbook/..."}, is)
}

// applied says whether a folder's code runs in apply, where rule R1 also forbids floats.
func applied(folder string) bool { return matches("internal/coordinator/state/...", folder) }

// pureFiles are the product's files in pure packages.
func (t *tree) pureFiles() []*file {
	return slices.DeleteFunc(t.productFiles(), func(f *file) bool { return !pure(f.dir()) })
}

// impureImports are packages, with those below them, that no pure package may import.
func impureImports() []string {
	return []string{
		"os", "net", "syscall", "log", "math/rand", "crypto/rand", "runtime", "database/sql", "testing",
		"google.golang.org/grpc", "github.com/hashicorp/raft", "go.etcd.io/bbolt", "github.com/google/uuid",
	}
}

// pureBelow are exceptions below impureImports: they only parse and format.
func pureBelow() []string { return []string{"net/netip", "net/url"} }

// clockNames are what package time offers that reads or waits for a clock.
func clockNames() []string {
	return []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker", "Local"}
}

func purityRules() []rule {
	pureSample := sources{
		"internal/placement/a.go": "package placement\n\nimport (\n\t\"net/netip\"\n\t\"time\"\n)\n\n" +
			"func end(start time.Time, _ netip.Addr) time.Time { return start.Add(time.Hour) }\n",
		"internal/placement/a_test.go":      "package placement\n\nimport \"os\"\n\nvar _ = os.Args\n",
		"internal/coordinator/rpc/a.go":     "package rpc\n\nimport (\n\t\"os\"\n\t\"sync\"\n\t\"time\"\n)\n\nvar _ sync.Mutex\n\nfunc f() { go f(); _, _ = os.Args, time.Now() }\n",
		"internal/coordinator/state/a.go":   "package state\n\nimport \"sync\"\n\ntype store struct{ mu sync.RWMutex }\n",
		"internal/coordinator/witness/a.go": "package witness\n\nfunc ratio(a float64) float64 { return a / 2.0 }\n",
	}
	return []rule{
		{
			name: "pure-imports",
			why:  "pure packages do no input or output, draw no random numbers and do not log (R1, R2)",
			check: func(_ *testing.T, t *tree) []finding {
				return t.eachImport(func(f *file, target string) string {
					// Readers of the state hold its lock; nothing else in pure code runs side by side.
					if matchesImport(target, impureImports()) && !slices.Contains(pureBelow(), target) ||
						matchesImport(target, []string{"sync"}) && !applied(f.dir()) {
						return "a pure package imports " + target
					}
					return ""
				})
			},
			wrong: []sources{
				{"internal/model/a.go": "package model\n\nimport _ \"os/exec\"\n"},
				{"internal/coordinator/state/a.go": "package state\n\nimport _ \"log/slog\"\n"},
				{"internal/coordinator/leases/a.go": "package leases\n\nimport _ \"sync\"\n"},
				{"internal/runbook/a.go": "package runbook\n\nimport _ \"math/rand/v2\"\n"},
			},
			right: pureSample,
		},
		{
			name:  "pure-clock",
			why:   "time comes in as a value, so that the same input gives the same output (R1, R2)",
			check: checkClock,
			wrong: []sources{
				{"internal/placement/a.go": "package placement\n\nimport \"time\"\n\nfunc f() time.Time { return time.Now() }\n"},
				{"internal/coordinator/leases/a.go": "package leases\n\nimport clock \"time\"\n\nvar now = clock.Now\n"},
			},
			right: pureSample,
		},
		{
			name:  "pure-goroutine",
			why:   "pure packages compute in the caller's goroutine (R1)",
			check: checkGo,
			wrong: []sources{{"internal/coordinator/state/a.go": "package state\n\nfunc f() { go f() }\n"}},
			right: pureSample,
		},
		{
			name:  "apply-float",
			why:   "floats may round differently on another member's machine (R1)",
			check: checkFloat,
			wrong: []sources{
				{"internal/coordinator/state/a.go": "package state\n\nfunc f(a float64) {}\n"},
				{"internal/coordinator/state/a.go": "package state\n\nfunc f(a int) bool { return a > 1.0 }\n"},
			},
			right: pureSample,
		},
		mapOrderRule(),
	}
}

// matchesImport says whether target is one of the packages, or below one.
func matchesImport(target string, packages []string) bool {
	return slices.ContainsFunc(packages, func(p string) bool {
		return target == p || strings.HasPrefix(target, p+"/")
	})
}

// eachImport asks about every import of the pure packages and makes findings of the answers.
func (t *tree) eachImport(ask func(f *file, target string) string) []finding {
	var out []finding
	for _, f := range t.pureFiles() {
		for _, spec := range f.syntax.Imports {
			target := strings.Trim(spec.Path.Value, "`\"")
			if text := ask(f, target); text != "" {
				out = append(out, finding{key: f.dir() + " " + target, at: t.at(spec), text: text})
			}
		}
	}
	return out
}

// eachNode asks about every node of the files and makes findings of the answers that are not
// empty. Exceptions name the file and the answer.
func (t *tree) eachNode(files []*file, ask func(f *file, n ast.Node) string) []finding {
	var out []finding
	for _, f := range files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if n == nil {
				return true
			}
			if text := ask(f, n); text != "" {
				out = append(out, finding{key: f.path + " " + text, at: t.at(n), text: text})
			}
			return true
		})
	}
	return out
}

func checkClock(_ *testing.T, t *tree) []finding {
	return t.eachNode(t.pureFiles(), func(f *file, n ast.Node) string {
		if pkg, name := selected(f.imports(), n); pkg == "time" && slices.Contains(clockNames(), name) {
			return "uses time." + name
		}
		return ""
	})
}

func checkGo(_ *testing.T, t *tree) []finding {
	return t.eachNode(t.pureFiles(), func(_ *file, n ast.Node) string {
		if _, ok := n.(*ast.GoStmt); ok {
			return "starts a goroutine"
		}
		return ""
	})
}

func checkFloat(_ *testing.T, t *tree) []finding {
	files := slices.DeleteFunc(t.pureFiles(), func(f *file) bool { return !applied(f.dir()) })
	return t.eachNode(files, func(_ *file, n ast.Node) string {
		switch n := n.(type) {
		case *ast.Ident:
			if n.Name == "float64" || n.Name == "float32" {
				return "uses " + n.Name
			}
		case *ast.BasicLit:
			if n.Kind == token.FLOAT {
				return fmt.Sprintf("uses the float %s", n.Value)
			}
		}
		return ""
	})
}

// packageName is the import path of a folder.
func packageName(folder string) string { return path.Join(module, folder) }
