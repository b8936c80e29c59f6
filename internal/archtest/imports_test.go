package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// seams are the folders with a driver interface; each driver is a folder below.
func seams() []string {
	return []string{"internal/hypervisor", "internal/storage", "internal/sdn", "internal/fence", "internal/hook"}
}

// importRow says what the packages of one folder may import besides the standard library.
type importRow struct {
	folder  string   // "x" is that package, "x/..." also those below
	own     int      // packages that share this many leading path elements may import each other
	may     []string // folders of this module, in the same notation
	outside []string // prefixes of other modules' packages; "" is all of them
}

// importTable has a row for every package; the first that matches counts. It is the paragraph
// "Imports" of the design. Who may import gen may import the protobuf runtime that gen needs.
func importTable() []importRow {
	protobuf := []string{"google.golang.org/protobuf/"}
	anything := []string{""}
	radix := "github.com/hashicorp/go-immutable-radix/v2" // persistent maps: pure, no I/O
	core := []string{"internal/runbook/...", "internal/placement/...", "internal/model/...", "gen/..."}
	process := append([]string{"internal/trust/...", "internal/config/...", "internal/manifest/..."}, core...)
	var below []string
	for _, seam := range seams() {
		below = append(below, seam+"/...")
	}
	table := []importRow{
		{"internal/model/...", 2, []string{"gen/..."}, protobuf},
		{"internal/placement/...", 2, []string{"internal/model/...", "gen/..."}, protobuf},
		{"internal/runbook/...", 2, []string{"internal/model/...", "gen/..."}, protobuf},
		{"internal/coordinator/state/...", 3, append([]string{"internal/trust/evidence"}, core...), append([]string{radix}, protobuf...)},
		{"internal/coordinator/...", 2, process, anything},
		// The agent calls drivers through their interfaces; cmd chooses the drivers.
		{"internal/agent/...", 2, slices.Concat(process, seams()), anything},
		{"internal/strictyaml", 0, []string{"internal/model/..."}, anything},
		{"internal/manifest/...", 2, []string{"internal/strictyaml", "internal/model/...", "gen/..."}, anything},
		// The CLI uses only the public API; the rules of the domain and the manifests are shared with the server.
		{"internal/cli/...", 2, []string{"gen/...", "internal/model/...", "internal/manifest/...", "internal/strictyaml", "internal/trust/evidence"}, anything},
		{"internal/daemon", 0, []string{"internal/config/..."}, anything},
		{"internal/trust/...", 2, []string{"internal/model/...", "gen/..."}, anything},
		{"internal/config/...", 2, []string{"internal/strictyaml", "internal/model/...", "gen/..."}, anything},
		{"cmd/...", 2, slices.Concat(process, below, []string{
			"internal/coordinator/...", "internal/agent/...", "internal/cli/...", "internal/manifest/...", "internal/daemon",
		}), anything},
		// Nothing of the product may import what drives it in tests: no other row names these.
		{"internal/simulation/...", 0, []string{"..."}, anything},
		{"internal/clustertest/...", 0, []string{"..."}, anything},
		{"internal/archtest/...", 0, nil, nil},
		{"internal/fault", 0, nil, nil},
		{"deploy/...", 0, nil, nil},
		{"e2e/...", 0, []string{"..."}, anything},
		{"bench/...", 0, []string{"..."}, anything},
	}
	for _, seam := range seams() {
		interfaces := []string{"internal/model/...", "gen/..."}
		table = append(table,
			importRow{seam, 3, interfaces, protobuf},
			// The simulated twins misbehave on command, all in the same way.
			importRow{seam + "/sim", 3, append([]string{seam, "internal/fault"}, interfaces...), anything},
			importRow{seam + "/...", 3, append([]string{seam}, interfaces...), anything})
	}
	return table
}

func matches(pattern, folder string) bool {
	if pattern == "..." {
		return true
	}
	base, deep := strings.CutSuffix(pattern, "/...")
	return folder == base || deep && strings.HasPrefix(folder, base+"/")
}

// allows says whether a package in folder may import target.
func (r importRow) allows(folder, target string) bool {
	inside, ours := strings.CutPrefix(target, module+"/")
	if !ours {
		first, _, _ := strings.Cut(target, "/")
		return !strings.Contains(first, ".") || // standard library
			slices.ContainsFunc(r.outside, func(prefix string) bool { return strings.HasPrefix(target, prefix) })
	}
	from, to := strings.Split(folder, "/"), strings.Split(inside, "/")
	if n := r.own; n > 0 && len(from) >= n && len(to) >= n && slices.Equal(from[:n], to[:n]) {
		return true
	}
	return slices.ContainsFunc(r.may, func(pattern string) bool { return matches(pattern, inside) })
}

func importRules() []rule {
	return []rule{{
		name:  "imports",
		why:   "the design's paragraph on imports keeps decisions apart from actions; the table is importTable",
		check: checkImports,
		wrong: []sources{
			importing("internal/coordinator/rpc", "internal/agent/session"),
			importing("internal/agent/session", "internal/coordinator"),
			importing("internal/agent/reconcile", "internal/hypervisor/libvirt"),
			importing("internal/hypervisor/libvirt", "internal/storage"),
			importing("internal/hypervisor/libvirt", "internal/hypervisor/sim"),
			importing("internal/hypervisor/libvirt", "internal/fault"),
			importing("internal/hypervisor", "internal/hypervisor/sim"),
			importing("internal/placement", "internal/runbook"),
			importing("internal/runbook", "internal/placement"),
			importing("internal/model", "internal/placement"),
			importing("internal/coordinator/state", "internal/coordinator/fleet"),
			importing("internal/cli", "internal/coordinator/state"),
			importing("cmd/agent", "internal/simulation"),
			importing("internal/novelty", "gen/hotspare/v1"),
			{"internal/model/a.go": "package model\n\nimport _ \"example.test/x\"\n"},
			{"internal/model/a.go": "package model\n\nimport . \"sort\"\n"},
		},
		right: sources{
			"cmd/agent/a.go":                    "package main\n\nimport _ \"" + module + "/internal/hypervisor/libvirt\"\n",
			"internal/agent/a.go":               "package agent\n\nimport _ \"" + module + "/internal/hypervisor\"\n",
			"internal/hypervisor/libvirt/a.go":  "package libvirt\n\nimport _ \"" + module + "/internal/hypervisor\"\nimport _ \"example.test/x\"\n",
			"internal/model/a.go":               "package model\n\nimport _ \"time\"\nimport _ \"google.golang.org/protobuf/proto\"\n",
			"internal/coordinator/leases/a.go":  "package leases\n\nimport _ \"" + module + "/internal/coordinator/state\"\n",
			"internal/hypervisor/sim/a_test.go": "package sim\n\nimport _ \"" + module + "/internal/storage\"\n",
		},
	}}
}

// importing is a sample: a package of one folder that imports another folder.
func importing(from, to string) sources {
	return sources{from + "/a.go": fmt.Sprintf("package %s\n\nimport _ %q\n", path.Base(from), module+"/"+to)}
}

func checkImports(_ *testing.T, t *tree) []finding {
	var out []finding
	for _, f := range t.productFiles() {
		i := slices.IndexFunc(importTable(), func(r importRow) bool { return matches(r.folder, f.dir()) })
		if i < 0 {
			out = append(out, found(f.path, "no row of importTable covers the folder %s: add one", f.dir()))
			continue
		}
		for _, spec := range f.syntax.Imports {
			target := strings.Trim(spec.Path.Value, "`\"")
			text := ""
			switch {
			case spec.Name != nil && spec.Name.Name == ".":
				text = "imports all names of " + target
			case !importTable()[i].allows(f.dir(), target):
				text = fmt.Sprintf("%s may not import %s", f.dir(), target)
			default:
				continue
			}
			out = append(out, finding{key: f.dir() + " " + target, at: t.at(spec), text: text})
		}
	}
	return out
}
