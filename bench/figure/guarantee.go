package figure

import (
	"fmt"
	"slices"
	"strings"
)

// The conditions of the guarantee's figures.
const (
	synthetic = "10,000 hosts in 20 classes, 100,000 workloads, 4 dimensions, groups apart, 1 host lost"
	withLent  = synthetic + ", 80,000 lent"
)

// guaranteeRows is the table of numbers of the guarantee, as far as benchmarks measure them.
func guaranteeRows() []row {
	const times, ms, us = 1e-6, "ms", 1e-3
	out := []row{
		{what: "full proof, audit included", measured: series{"Prove", "ns/op"}, goal: 1000, scale: times, shown: ms, under: synthetic},
		{
			what: "  against reading the site's data once", measured: series{"Prove", "ns/op"}, limit: series{"Scan", "ns/op"},
			scale: times, shown: ms, under: "the same site; the least that a proof from scratch reads",
		},
		{what: "audit of the whole certificate", measured: series{"Audit", "ns/op"}, scale: times, shown: ms, under: synthetic},
		{what: "admission, median", measured: series{"Admit", "p50-ns"}, scale: us, shown: "us", under: withLent + "; choice among all hosts"},
		{what: "admission, 99th percentile", measured: series{"Admit", "p99-ns"}, goal: 50, scale: us, shown: "us", under: "the same"},
		{what: "admission, worst", measured: series{"Admit", "max-ns"}, scale: us, shown: "us", under: "the same; collections of garbage included"},
		{what: "places and victims, everything fails over", measured: series{"Victims", "ns/op"}, goal: 500, scale: times, shown: ms, under: withLent},
		{what: "cost of the victims / exact optimum, mean", measured: series{"AgainstExact", "cost-ratio"}, goal: 1.05, scale: 1, shown: "x", under: "random, to 10 leases on 4 hosts"},
		{what: "cost of the victims / exact optimum, worst", measured: series{"AgainstExact", "worst-ratio"}, scale: 1, shown: "x", under: "the same"},
		{what: "local search for leases, one round", measured: series{"Spare/lent=40000", "ns/op"}, scale: times, shown: ms, under: synthetic + ", 40,000 lent at random; off the critical path"},
		{what: "  expected cost of victims saved by it", measured: series{"Spare/lent=40000", "saved-in-the-end-percent"}, scale: 1, shown: "%", under: "the same, to its end"},
		{what: "  victims' cost saved, one plan fails over", measured: series{"Spare/lent=40000", "plan-saved-percent"}, scale: 1, shown: "%", under: "the same; 20 plans, one by one"},
		{what: "coordinator: a lease decided", measured: series{"Large/lease", "ns/op"}, scale: times, shown: ms, under: "as above in the replicated state, one lease more each time"},
		{what: "coordinator: a plan's failover decided", measured: series{"Large/declare", "ns/op"}, scale: times, shown: ms, under: "the same"},
		{what: "coordinator: 1,000 leases in line, none fits", measured: series{"Large/dequeue", "ns/op"}, scale: times, shown: ms, under: "the same; once a second while leases wait"},
		{what: "coordinator: a repaired proof applied", measured: series{"Large/record", "ns/op"}, scale: times, shown: ms, under: "the same; audit of the whole certificate included"},
		{what: "  its entry in the log", measured: series{"Large/record", "entry-bytes"}, limit: series{"Large/record", "whole-bytes"}, scale: 1, shown: "B", under: "against the whole certificate"},
		{what: "memory of the placement state", measured: series{"Memory", "MB"}, goal: 300, scale: 1, shown: "MB", under: "10,000 hosts, 180,000 VMs; site, certificate, lender"},
	}
	for _, x := range []string{"x1", "x4", "x8"} {
		name, under := "Openb/"+x, "openb "+x+", its own pods with GPUs, 1 host lost"
		out = append(out,
			row{what: "openb " + x + ": demand proven, vcpus", measured: series{name, "proven-percent"}, scale: 1, shown: "%", under: under},
			row{what: "openb " + x + ": asked capacity that is lent, vcpus", measured: series{name, "lent-percent"}, scale: 1, shown: "%", under: "its best-effort pods, under that proof"},
			row{what: "openb " + x + ": full proof", measured: series{name, "ns/op"}, scale: times, shown: ms, under: under},
			row{what: "openb " + x + ": admission, median", measured: series{name, "p50-ns"}, scale: us, shown: "us", under: "one after the other"},
			row{what: "openb " + x + ": admission, 99th percentile", measured: series{name, "p99-ns"}, goal: 50, scale: us, shown: "us", under: "the same"},
			row{what: "openb " + x + ": admission, worst", measured: series{name, "max-ns"}, scale: us, shown: "us", under: "the same"},
			row{what: "openb " + x + ": everything fails over", measured: series{name, "failover-ms"}, goal: 500, scale: 1, shown: ms, under: "places and victims"},
			row{what: "openb " + x + ": cost of the victims / exact optimum", measured: series{name, "victim-cost-ratio"}, goal: 1.05, scale: 1, shown: "x", under: "the same; every set of leases of each host tried"},
		)
	}
	return out
}

// Guarantee is the table of the guarantee's figures and the one of the packings; what was not measured
// is left out. Without a figure it is empty.
func Guarantee(lines []Line) string {
	var b strings.Builder
	for _, r := range guaranteeRows() {
		measured, limit := Values(lines, r.measured.name, r.measured.unit), Values(lines, r.limit.name, r.limit.unit)
		if len(measured) == 0 || r.limit.name != "" && len(limit) == 0 {
			continue
		}
		if b.Len() == 0 {
			fmt.Fprintf(&b, "%-46s %3s %10s %10s %9s  %-38s %s\n", "the guarantee", "n", "median", "limit", "figure", "goal", "conditions")
		}
		head, goal := r.text(measured, limit), ""
		if at := strings.LastIndex(head, "  "); at > 0 {
			head, goal = head[:at], head[at+2:]
		}
		fmt.Fprintf(&b, "%s  %-38s %s\n", head, goal, r.under)
	}
	b.WriteString(packings(lines))
	return b.String()
}

// heuristics are the published ones, as the benchmark names their bins.
func heuristics() []string {
	return []string{"first-fit-decreasing-by-sum", "first-fit-decreasing-by-maximum", "best-fit-dot-product", "norm-greedy"}
}

// packings is the table of bins on the classes of instances.
func packings(lines []Line) string {
	var b strings.Builder
	seen := map[string]bool{}
	above, best, n := 0.0, 0.0, 0
	for _, l := range lines {
		name, found := strings.CutPrefix(l.Name, "Classes/")
		if !found || seen[name] || l.Values["bound"] == 0 {
			continue
		}
		seen[name] = true
		if n++; n == 1 {
			fmt.Fprintf(&b, "\n%-20s %5s %5s %8s %8s %8s %8s\n", "bins, 200 items", "ours", "bound", "ffd sum", "ffd max", "dot", "norm")
		}
		ours := median(Values(lines, l.Name, "bins"))
		fmt.Fprintf(&b, "%-20s %5.4g %5.4g", name, ours, l.Values["bound"])
		var others []float64
		for _, h := range heuristics() {
			others = append(others, l.Values[h+"-bins"])
			fmt.Fprintf(&b, " %8.4g", l.Values[h+"-bins"])
		}
		above, best = above+ours/l.Values["bound"]-1, best+slices.Min(others)/l.Values["bound"]-1
		b.WriteByte('\n')
	}
	if n > 0 {
		fmt.Fprintf(&b, "mean above the bound: ours %.2f %%, the best heuristic of each %.2f %%; the bound is below the optimum\n", 100*above/float64(n), 100*best/float64(n))
	}
	return b.String()
}
