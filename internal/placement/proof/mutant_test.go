package proof_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants asks for the broken sources to be built and tested, which takes minutes: `make soak` does.
var mutants = flag.Bool("mutants", false, "test the tests: each mutant must be caught")

// mutant is one fault in the source of the search, the audit or the choice of victims.
type mutant struct{ file, from, to string }

// sources are broken one at a time. Each must be caught by the tests of this folder or its own.
func sources() []mutant {
	return []mutant{
		{"board.go", "return b.hasRoom(b.ix.flavours[b.ix.items[it].flavour].demand, h) && b.clash(it, h) < 0", "return b.hasRoom(b.ix.flavours[b.ix.items[it].flavour].demand, h)"},
		{"board.go", "if demand[c] > 0 && demand[c] > room[c%b.ix.dims]-load[c] {", "if demand[c] > 0 && demand[c]-1 > room[c%b.ix.dims]-load[c] {"},
		{"board.go", "return b.ix.usable[h] && b.ix.reaches(it, h)", "return b.ix.reaches(it, h)"},
		{"board.go", "gr.domain && at >= 0 && b.ix.domain[at] == b.ix.domain[h]", "false"},
		{"board.go", "near && b.runs(m) && (", "near && ("},
		{"board.go", "(joins || b.ix.items[m].isNew(g, at))", "joins"},
		{"pattern.go", "want > 0 && want > n {", "want > n {"},
		{"renew.go", "if to, moves := block[h]; moves {", "if to, moves := block[h]; moves && to < 0 {"},
		{"renew.go", "if e.steps > e.limit {", "if false {"},
		{"assign.go", "if asked[d] <= 0 {", "if false {"},
		{"renew.go", "if s < 0 || !l.dominates(", "if s < 0 || l.dominates("},
		{"renew.go", "d.Worse(e.Decision) && e", "d.Lost() && e"},
		{"index.go", "ix.room[i*ix.dims+d] = h.Capacity.At(d) - h.Lending.At(d)", "ix.room[i*ix.dims+d] = h.Capacity.At(d)"},
		{"index.go", "return within(n.labels, o.labels) && within(n.networks, o.networks) && within(n.pools, o.pools)", "return within(n.labels, o.labels) && within(n.networks, o.networks)"},
		{"pattern.go", "if l.spread[h] && l.ix.domain[t] != l.ix.domain[h] {", "if false {"},
		{"pattern.go", "if !top.spare || !low.clean {", "if !top.spare {"},
		{"pattern.go", "if !top.spare || !low.clean {", "if !low.clean {"},
		{"pattern.go", "len(l.class[o].units) >= losses && l.dominates(o, c)", "l.dominates(o, c)"},
		{"pattern.go", "return l.ix.offer[t] == l.ix.offer[h] || l.ix.offers[l.ix.offer[h]].within(l.ix.offers[l.ix.offer[t]])", "return true"},
		{"pattern.go", "if want[d] > room[d] {", "if want[d] > room[d]+1 {"},
		{"pattern.go", "return multiset(top.shapes, low.shapes)", "return true"},
		{"index.go", "return within(n.labels, o.labels) && within(n.networks, o.networks) && within(n.pools, o.pools)", "return within(n.networks, o.networks) && within(n.pools, o.pools)"},
		{"index.go", "return within(n.labels, o.labels) && within(n.networks, o.networks) && within(n.pools, o.pools)", "return within(n.labels, o.labels) && within(n.pools, o.pools)"},
		{"bound.go", "n > places {", "n >= places {"},
		{"bound.go", "; members > free {", "; members >= free {"},
		{"exact.go", "slices.Equal(x.ix.roomOf(o), x.ix.roomOf(h)) && (", "("},
		{"certificate.go", "o.carry(a, h, q.scenarios)", "o.carry(h, h, q.scenarios)"},
		{"assign.go", "cost(quiet) < cost(strict) && !Prove(a.after(quiet)).Worse(Prove(a.after(strict)))", "cost(quiet) < cost(strict)"},
		{"../victim/victim.go", "if c.set(l, false); c.needed(l) {", "if c.set(l, false); true {"},
		{"../victim/victim.go", "if c.set(l, false); c.needed(l) {", "if c.set(l, false); false {"},
		{"../admission/index.go", "best.quiet = best.quiet && want <= most[dims+d]", "best.quiet = best.quiet && want <= most[d]-most[d]/2"},
		{"../admission/index.go", "x.offers[p] = x.offers[2*p] | x.offers[2*p+1]", "x.offers[p] = x.offers[2*p]"},
		{"../admission/index.go", "if _, still := s.promise(second); still {", "if s.best < 0 {"},
		{"../victim/victim.go", "l.Parts = parts", "parts = nil"},
		{"../admission/admission.go", "want > 0 && want > l.free(h, d) {\n\t\t\treturn false", "want > 0 && want > l.free(h, d) {\n\t\t\treturn true"},
		{"../admission/admission.go", "next.Answer == guarantee.Fits", "!next.Lost()"},
		{"../repair/repair.go", "if s != h && w.standsIn(s, h) && !yield(s) {", "if s != h && len(p.spares) > 9 && !yield(s) {"},
		{"../repair/repair.go", "is = is && b.room[d] <= a.room[d]", "is = is && b.room[d] < a.room[d]"},
		{"../repair/repair.go", "len(o.moves) == 0 && o.runs", "o.runs"},
		{"../repair/repair.go", "if o.Host != \"\" || o.Together", "if o.Together"},
		{"../repair/repair.go", "|| !w.may(v, h) || w.clash(id, i) {", "|| !w.may(v, h) {"},
		{"../repair/repair.go", "slices.ContainsFunc(o.moves, func(mv move) bool { return near(mv.host) })", "false"},
		{"../repair/repair.go", "p == nil && h.spares > 0 ||", ""},
		{"../repair/change.go", "v.Host != \"\" || v.Together != \"\" || spreads(v) {", "v.Host != \"\" || v.Together != \"\" {"},
		{"../repair/change.go", "return w.evacuate(n, next)", "return true"},
		{"../repair/change.go", "if !w.redirect(id) {", "if false {"},
		{"../repair/spare.go", "!w.may(v, h) || w.clash(id, i) || s", "!w.may(v, h) || s"},
		{"../repair/spare.go", "h.spares > 0 || s.hastens(i, v.Budget) ||", "s.hastens(i, v.Budget) ||"},
		{"../repair/spare.go", "h.spares > 0 || s.hastens(i, v.Budget) ||", "h.spares > 0 ||"},
		{"../repair/spare.go", "|| !w.sole(v) {", "{"},
		{"../repair/spare.go", "|| s.raises(i, v) {", "{"},
		{"../repair/spare.go", "|| !fits(v.Demand, calm) ||", "||"},
		{"../repair/spare.go", "|| s.hastens(o, budget) {", "{"},
		{"../audit/audit.go", "case home >= 0 && !lost[home]:", "case false:"},
		{"../audit/audit.go", "case host.State != guarantee.Usable:", "case false:"},
		{"../audit/audit.go", "if amount > a.c.Obligations[h].At(d) {", "if amount > a.c.Obligations[h].At(d)+1 {"},
		{"../audit/audit.go", "if amount > 0 && amount > a.room[h][d] {", "if false {"},
		{"../audit/audit.go", "if h >= 0 && at >= 0 && h != at {", "if h >= 0 && at >= 0 && h != at && name == \"\" {"},
		{"../audit/pattern.go", "if l.in[w]&l.scenarios != 0 && l.lost[l.at(w)] {", "if false {"},
		{"../audit/pattern.go", "if l.lost[o.hosts[0]] || !l.dominates(u, o) {", "if true || !l.dominates(u, o) {"},
		{"../audit/pattern.go", "l.place(g, l.at(o)) == l.place(g, m.Host) && (", "false && ("},
		{"../audit/cover.go", "if whole[u] ||", "if true || whole[u] ||"},
		{"../audit/cover.go", "if !top.spare || !b.clean {", "if !b.clean {"},
		{"../audit/cover.go", "if !top.spare || !b.clean {", "if !top.spare {"},
		{"../audit/cover.go", "return includes(top.shapes, b.shapes)", "return true"},
		{"../audit/cover.go", "if a.kinds[low].spread {", "if false {"},
		{"../audit/cover.go", "if n > 0 && n > room.At(d) {", "if n > room.At(d) {"},
		{"../audit/cover.go", "small.room.Fits(large.room) && subset(small.offers[0], large.offers[0])", "subset(small.offers[0], large.offers[0])"},
		{"../audit/cover.go", "small.room.Fits(large.room) && subset(small.offers[0], large.offers[0])", "small.room.Fits(large.room)"},
		{"../audit/cover.go", "subset(small.offers[1], large.offers[1]) && subset(small.offers[2], large.offers[2])", "subset(small.offers[2], large.offers[2])"},
		{"../audit/cover.go", "subset(small.offers[1], large.offers[1]) && subset(small.offers[2], large.offers[2])", "subset(small.offers[1], large.offers[1])"},
		{"../audit/cover.go", "equals[k] >= c.losses", "true"},
	}
}

// The tests notice each mutant. Without -mutants it is only checked that each can still be made.
func TestMutants(t *testing.T) {
	for _, m := range sources() {
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.from); n != 1 {
			t.Errorf("%s has %d times: %s", m.file, n, m.from)
			continue
		}
		if !*mutants {
			continue
		}
		t.Run(filepath.Base(m.file)+" "+m.to, func(t *testing.T) {
			dir := t.TempDir()
			broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(broken, []byte(strings.Replace(string(text), m.from, m.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			list, _ := json.Marshal(map[string]map[string]string{"Replace": {file: broken}})
			if err := os.WriteFile(overlay, list, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay="+overlay, ".", "-cases=20000").CombinedOutput()
			if dir := filepath.Dir(m.file); err == nil && dir != "." { // Or by the tests of its own folder.
				out, err = exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay="+overlay, "./"+dir).CombinedOutput()
			}
			if err == nil {
				t.Errorf("not caught: %s: %q becomes %q", m.file, m.from, m.to)
			} else if !strings.Contains(string(out), "--- FAIL") {
				t.Errorf("%s does not build: %s", m.file, out)
			}
		})
	}
}
