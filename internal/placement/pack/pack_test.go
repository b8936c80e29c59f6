package pack_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

func TestSolve(t *testing.T) {
	one := []pack.BinClass{{Capacity: []int64{10, 10}, Count: 2}}
	for _, tc := range []struct {
		name     string
		problem  pack.Problem
		minimise bool
		bins     int
		unplaced int
	}{
		{name: "nothing"},
		{name: "no items", problem: pack.Problem{Bins: one}},
		{name: "no bins", problem: pack.Problem{Items: []pack.ItemClass{{Demand: []int64{1}, Count: 3}}}, unplaced: 3},
		{name: "exactly full", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Demand: []int64{5, 5}, Count: 4}}}, bins: 2},
		{name: "one too many", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Demand: []int64{5, 5}, Count: 5}}}, bins: 2, unplaced: 1},
		{name: "larger than a bin", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Demand: []int64{11}, Count: 1}}}, unplaced: 1},
		{name: "a dimension that no bin has", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Demand: []int64{1, 1, 1}, Count: 1}}}, unplaced: 1},
		{name: "negative demand", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Demand: []int64{-1}, Count: 1}}}, unplaced: 1},
		{name: "no demand", problem: pack.Problem{Bins: one, Items: []pack.ItemClass{{Count: 100}}}, bins: 1},
		{name: "values near the limit", problem: pack.Problem{
			Bins:  []pack.BinClass{{Capacity: []int64{1<<63 - 1, 1}, Count: 3}},
			Items: []pack.ItemClass{{Demand: []int64{1 << 62}, Count: 3}},
		}, bins: 3},
		{name: "complementary", problem: pack.Problem{
			Bins:  []pack.BinClass{{Capacity: []int64{10, 10}, Count: -1}},
			Items: []pack.ItemClass{{Demand: []int64{9, 1}, Count: 50}, {Demand: []int64{1, 9}, Count: 50}},
		}, minimise: true, bins: 50},
		{name: "not allowed", problem: pack.Problem{
			Bins:  slices.Concat(one, one),
			Items: []pack.ItemClass{{Demand: []int64{10}, Count: 3, Allowed: []bool{false, true}}},
		}, bins: 2, unplaced: 1},
		{name: "the special bins are for those that need them", problem: pack.Problem{
			Bins: []pack.BinClass{{Capacity: []int64{4, 1}, Count: 2}, {Capacity: []int64{4, 0}, Count: 2}},
			Items: []pack.ItemClass{
				{Demand: []int64{4, 0}, Count: 2},
				{Demand: []int64{2, 1}, Count: 2},
				{Demand: []int64{2, 0}, Count: 2},
			},
		}, bins: 4},
		{name: "apart by bin", problem: pack.Problem{
			Bins: one, Items: []pack.ItemClass{{Demand: []int64{1}, Count: 3, Group: 7, Spread: pack.SpreadBin}},
		}, bins: 2, unplaced: 1},
		{name: "apart by domain", problem: pack.Problem{
			Bins:  []pack.BinClass{{Capacity: []int64{10}, Count: 5, Domain: 1}, {Capacity: []int64{10}, Count: 5, Domain: 2}},
			Items: []pack.ItemClass{{Demand: []int64{1}, Count: 3, Group: 7, Spread: pack.SpreadDomain}},
		}, bins: 2, unplaced: 1},
		{name: "domain 0 is no domain", problem: pack.Problem{
			Bins: one, Items: []pack.ItemClass{{Demand: []int64{1}, Count: 3, Group: 7, Spread: pack.SpreadDomain}},
		}, bins: 2, unplaced: 1},
		{name: "the strictest of a group counts", problem: pack.Problem{
			Bins: one, Items: []pack.ItemClass{
				{Demand: []int64{1}, Count: 1, Group: 7, Spread: pack.SpreadBin},
				{Demand: []int64{2}, Count: 2, Group: 7},
			},
		}, bins: 2, unplaced: 1},
		{name: "the largest group first", problem: pack.Problem{
			Bins: []pack.BinClass{{Capacity: []int64{2}, Count: 3}},
			Items: []pack.ItemClass{
				{Demand: []int64{1}, Count: 3, Group: 1, Spread: pack.SpreadBin},
				{Demand: []int64{1}, Count: 2, Group: 2, Spread: pack.SpreadBin},
				{Demand: []int64{1}, Count: 1, Group: 3, Spread: pack.SpreadBin},
			},
		}, bins: 3},
		{name: "what waits for the next bin gets it", problem: pack.Problem{
			Bins: []pack.BinClass{{Capacity: []int64{10}, Count: 3}},
			Items: []pack.ItemClass{
				{Demand: []int64{3}, Count: 1, Group: 1, Spread: pack.SpreadBin},
				{Demand: []int64{2}, Count: 2, Group: 1, Spread: pack.SpreadBin},
			},
		}, bins: 3},
		{name: "a group without spread", problem: pack.Problem{
			Bins: one, Items: []pack.ItemClass{{Demand: []int64{1}, Count: 3, Group: 7}},
		}, bins: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := solve(t, tc.problem, pack.Options{Minimise: tc.minimise})
			if len(s.Bins) != tc.bins || unplaced(s) != tc.unplaced {
				t.Errorf("%d bins and %d unplaced, want %d and %d: %v", len(s.Bins), unplaced(s), tc.bins, tc.unplaced, s)
			}
		})
	}
}

func TestBound(t *testing.T) {
	bins := []pack.BinClass{{Capacity: []int64{5, 9}, Count: 3}, {Capacity: []int64{10, 9}, Count: 2}}
	huge := []pack.BinClass{{Capacity: []int64{1 << 62}, Count: -1}}
	for _, tc := range []struct {
		name  string
		bins  []pack.BinClass
		item  pack.ItemClass
		bound int
	}{
		{"nothing", bins, pack.ItemClass{Demand: []int64{1}}, 0},
		{"no demand", bins, pack.ItemClass{Count: 3}, 1},
		{"the largest bins first", bins, pack.ItemClass{Demand: []int64{5}, Count: 4}, 2},
		{"then the others", bins, pack.ItemClass{Demand: []int64{5}, Count: 5}, 3},
		{"a part of a bin is a bin", bins, pack.ItemClass{Demand: []int64{3}, Count: 9}, 4},
		{"the scarcest dimension", bins, pack.ItemClass{Demand: []int64{1, 3}, Count: 10}, 4},
		{"sums above 64 bits", huge, pack.ItemClass{Demand: []int64{1 << 62}, Count: 100}, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := pack.NewSearch(pack.Problem{Bins: tc.bins, Items: []pack.ItemClass{tc.item}}, pack.Options{Minimise: true})
			if got := s.Bound(); got != tc.bound {
				t.Errorf("bound %d, want %d", got, tc.bound)
			}
		})
	}
}

// solve solves, checks the solution, and that the input is as it was.
func solve(t testing.TB, p pack.Problem, o pack.Options) pack.Solution {
	t.Helper()
	before := clone(p)
	s := pack.Solve(p, o)
	if err := check(p, s); err != nil {
		t.Fatalf("%v\n%+v\n%+v", err, p, s)
	}
	if diff := cmp.Diff(before, p); diff != "" {
		t.Fatalf("the input was changed: %s", diff)
	}
	return s
}

func clone(p pack.Problem) pack.Problem {
	p.Bins, p.Items = slices.Clone(p.Bins), slices.Clone(p.Items)
	for i := range p.Bins {
		p.Bins[i].Capacity = slices.Clone(p.Bins[i].Capacity)
	}
	for i := range p.Items {
		p.Items[i].Demand, p.Items[i].Allowed = slices.Clone(p.Items[i].Demand), slices.Clone(p.Items[i].Allowed)
	}
	return p
}

func unplaced(s pack.Solution) (n int) {
	for _, c := range s.Unplaced {
		n += c.Count
	}
	return n
}

// site is a problem of the size that the guarantee names: 10,000 hosts in 20 classes, 100,000
// workloads in some hundred flavours, a part of them replicas that keep apart.
func site(seed uint64, hosts, workloads int) pack.Problem {
	r := rand.New(rand.NewPCG(seed, 1))
	var p pack.Problem
	for c := range 20 {
		shape := c % 5
		p.Bins = append(p.Bins, pack.BinClass{
			Capacity: []int64{int64(64 << (shape % 3)), int64(256+128*shape) << 30, int64(2+shape) << 40, int64(shape / 4 * 4)},
			Count:    hosts / 20, Domain: 1 + c/5,
		})
	}
	for f, left := 0, workloads; left > 0; f++ {
		demand := []int64{1 << r.IntN(5), int64(1+r.IntN(64)) << 29, int64(1+r.IntN(50)) << 32, 0}
		if f%40 == 0 {
			demand[3] = 1
		}
		n := min(left, max(1, workloads/300))
		left -= n
		it := pack.ItemClass{Demand: demand, Count: n}
		if f%4 != 0 {
			p.Items = append(p.Items, it)
			continue
		}
		for ; n > 0; n -= 3 { // replicas
			it.Count, it.Group, it.Spread = min(n, 3), len(p.Items)+1, pack.Spread(1+f/4%2)
			p.Items = append(p.Items, it)
		}
	}
	return p
}

func TestSolveASite(t *testing.T) {
	p := site(1, 1000, 10_000)
	began := time.Now()
	s := solve(t, p, pack.Options{})
	t.Logf("%d item classes, %v, %d unplaced", len(p.Items), time.Since(began), unplaced(s))
	if unplaced(s) > 0 {
		t.Errorf("%d unplaced", unplaced(s))
	}
}

func BenchmarkSite(b *testing.B) {
	p := site(1, 10_000, 100_000)
	for b.Loop() {
		s := pack.Solve(p, pack.Options{})
		b.ReportMetric(float64(unplaced(s)), "unplaced")
		b.ReportMetric(float64(len(s.Bins)), "bins")
	}
}
