package archtest

import (
	"fmt"
	"slices"
	"testing"
)

// rule is one thing that must hold for the whole tree.
type rule struct {
	name  string
	why   string
	check func(*testing.T, *tree) []finding
	wrong []sources // each must give a finding
	right sources   // must give none
}

// finding is one place where a rule does not hold.
type finding struct {
	key  string // what an exception names: a path, or a path and a name
	at   string // path:line
	text string
	hard bool // no exception helps
}

// exception allows one finding key of one rule, for a reason.
type exception struct {
	rule, key, why string
}

// rules are all of them.
func rules() []rule {
	return slices.Concat(importRules(), purityRules(), bannedRules(), budgetRules(), textRules())
}

func TestRepositoryKeepsTheRules(t *testing.T) {
	tree := repository(t)
	if len(tree.goFiles()) == 0 {
		t.Fatal("no Go files found")
	}
	known := make(map[string]bool)
	for _, r := range rules() {
		known[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			used := make(map[string]bool)
			for _, f := range r.check(t, tree) {
				excepted := slices.ContainsFunc(exceptions(), func(e exception) bool {
					return e.rule == r.name && e.key == f.key
				})
				used[f.key] = true
				if !excepted || f.hard {
					t.Errorf("%s: %s\n\twhy: %s\n\tkey for an exception: %q", f.at, f.text, r.why, f.key)
				}
			}
			for _, e := range exceptions() {
				if e.rule == r.name && !used[e.key] {
					t.Errorf("the exception for %q is not needed any more: remove it", e.key)
				}
			}
		})
	}
	for _, e := range exceptions() {
		if !known[e.rule] || e.why == "" {
			t.Errorf("exception %+v: no such rule, or no reason", e)
		}
	}
}

func TestEveryRuleCanFail(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if r.why == "" || len(r.wrong) == 0 || len(r.right) == 0 {
				t.Fatal("a rule needs a reason, a sample that breaks it and one that keeps it")
			}
			for i, sample := range r.wrong {
				if len(r.check(t, sample.tree(t))) == 0 {
					t.Errorf("wrong sample %d passes: %s", i, sample)
				}
			}
			for _, f := range r.check(t, r.right.tree(t)) {
				t.Errorf("right sample: %s: %s", f.at, f.text)
			}
		})
	}
}

// found makes a finding about a whole file or folder.
func found(key, format string, args ...any) finding {
	return finding{key: key, at: key, text: fmt.Sprintf(format, args...)}
}
