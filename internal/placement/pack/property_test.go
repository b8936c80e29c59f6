package pack_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// small draws a problem with every kind of constraint that the oracle can still decide.
func small(r *rand.Rand) pack.Problem {
	var p pack.Problem
	dims := 1 + r.IntN(3)
	vector := func(low, high int) []int64 {
		v := make([]int64, dims)
		for d := range v {
			v[d] = int64(low + r.IntN(high-low+1))
		}
		return v
	}
	for range 1 + r.IntN(3) {
		p.Bins = append(p.Bins, pack.BinClass{Capacity: vector(5, 12), Count: 1 + r.IntN(2), Domain: r.IntN(3)})
	}
	for left := 2 + r.IntN(7); left > 0; {
		it := pack.ItemClass{Demand: vector(0, 6), Count: 1 + r.IntN(min(left, 3))}
		left -= it.Count
		if r.IntN(4) == 0 {
			for range p.Bins {
				it.Allowed = append(it.Allowed, r.IntN(3) > 0)
			}
		}
		if r.IntN(3) == 0 {
			it.Group, it.Spread = 1+r.IntN(2), pack.Spread(r.IntN(3))
		}
		p.Items = append(p.Items, it)
	}
	return p
}

// Small problems against an oracle that tries everything. The search may miss a solution, and misses
// fewer with more steps.
func TestSmallProblems(t *testing.T) {
	const cases = 5000
	budgets := [...]int{0, 1000, 100_000}
	r := rand.New(rand.NewPCG(3, 1))
	fits, missed := 0, [len(budgets)]int{}
	for range cases {
		p := small(r)
		fit := feasible(p)
		if fit {
			fits++
		}
		for i, steps := range budgets {
			switch s := solve(t, p, pack.Options{Steps: steps}); {
			case unplaced(s) == 0 && !fit:
				t.Fatalf("solver and oracle disagree on %+v: %+v", p, s)
			case unplaced(s) > 0 && fit:
				missed[i]++
			}
		}
	}
	t.Logf("of %d problems %d fit; with %v steps the search missed %v of them", cases, fits, budgets, missed)
	if missed[0] > fits/50 || missed[1] > missed[0] || missed[2] > 0 {
		t.Errorf("of %d problems that fit the search missed %v with %v steps", fits, missed, budgets)
	}
}

// medium draws a problem that is too large for the oracle, tight and with every kind of constraint.
func medium(r *rand.Rand) pack.Problem {
	var p pack.Problem
	dims := 1 + r.IntN(4)
	vector := func(low, high int64) []int64 {
		v := make([]int64, dims)
		for d := range v {
			v[d] = low + r.Int64N(high-low+1)
		}
		return v
	}
	for range 1 + r.IntN(6) {
		p.Bins = append(p.Bins, pack.BinClass{Capacity: vector(60, 100), Count: r.IntN(6) - 1, Domain: r.IntN(4)})
	}
	for left := 10 + r.IntN(60); left > 0; {
		it := pack.ItemClass{Demand: vector(0, 50), Count: 1 + r.IntN(min(left, 8))}
		left -= it.Count
		if r.IntN(4) == 0 {
			for range p.Bins {
				it.Allowed = append(it.Allowed, r.IntN(3) > 0)
			}
		}
		if r.IntN(3) == 0 {
			it.Group, it.Spread = 1+r.IntN(5), pack.Spread(r.IntN(3))
		}
		p.Items = append(p.Items, it)
	}
	return p
}

// More steps never make a solution worse, and the same input gives the same output.
func TestMediumProblems(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	better := 0
	for range 300 {
		p := medium(r)
		for _, minimise := range []bool{false, true} {
			before := solve(t, p, pack.Options{Minimise: minimise})
			o := pack.Options{Minimise: minimise, Steps: 200_000}
			after := solve(t, p, o)
			if diff := cmp.Diff(after, pack.Solve(p, o)); diff != "" {
				t.Fatalf("the same problem was solved differently: %s\n%+v", diff, p)
			}
			worse := cmpSolutions(after, before, minimise)
			if worse > 0 {
				t.Fatalf("worse with more steps: %d bins and %d unplaced, before %d and %d\n%+v",
					len(after.Bins), unplaced(after), len(before.Bins), unplaced(before), p)
			}
			if worse < 0 {
				better++
			}
			if bound := pack.NewSearch(p, o).Bound(); unplaced(after) == 0 && len(after.Bins) < bound {
				t.Fatalf("%d bins, fewer than the bound %d\n%+v", len(after.Bins), bound, p)
			}
		}
	}
	if better < 30 {
		t.Errorf("the search improved only %d of 600 solutions", better)
	}
}

// cmpSolutions is negative if a is better than b.
func cmpSolutions(a, b pack.Solution, minimise bool) int {
	if d := unplaced(a) - unplaced(b); d != 0 || !minimise {
		return d
	}
	return len(a.Bins) - len(b.Bins)
}

// feasible tries everything: can all items be placed?
func feasible(p pack.Problem) bool {
	o := oracle{p: p, strictest: make(map[int]pack.Spread)}
	for class, b := range p.Bins {
		for range b.Count {
			o.bins = append(o.bins, oracleBin{class: class, free: slices.Clone(b.Capacity)})
		}
	}
	for i, it := range p.Items {
		for range it.Count {
			o.items = append(o.items, i)
		}
		o.strictest[it.Group] = max(o.strictest[it.Group], it.Spread)
	}
	return o.place(0)
}

type oracle struct {
	p         pack.Problem
	bins      []oracleBin
	items     []int // item classes
	strictest map[int]pack.Spread
}

type oracleBin struct {
	class int
	free  []int64
	items []int
}

// place tries every bin for item i and the ones after it.
func (o *oracle) place(i int) bool {
	if i == len(o.items) {
		return true
	}
	for b := range o.bins {
		bin := &o.bins[b]
		if !o.may(o.items[i], b) {
			continue
		}
		demand := o.p.Items[o.items[i]].Demand
		for d, n := range demand {
			bin.free[d] -= n
		}
		bin.items = append(bin.items, o.items[i])
		done := o.place(i + 1)
		bin.items = bin.items[:len(bin.items)-1]
		for d, n := range demand {
			bin.free[d] += n
		}
		if done {
			return true
		}
	}
	return false
}

func (o *oracle) may(item, b int) bool {
	it, bin := o.p.Items[item], o.bins[b]
	if it.Allowed != nil && !it.Allowed[bin.class] {
		return false
	}
	for d, n := range it.Demand {
		if n > bin.free[d] {
			return false
		}
	}
	if it.Group == 0 || o.strictest[it.Group] == pack.SpreadNone {
		return true
	}
	domain := o.p.Bins[bin.class].Domain
	for other, x := range o.bins {
		near := other == b || o.strictest[it.Group] == pack.SpreadDomain && domain != 0 && o.p.Bins[x.class].Domain == domain
		if near && slices.ContainsFunc(x.items, func(i int) bool { return o.p.Items[i].Group == it.Group }) {
			return false
		}
	}
	return true
}

// Sites of about a dozen bins that are cut into pieces, with a tenth of each bin free.
func TestPlantedSites(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	for range 60 {
		p := plantedSite(10, r)
		if s := solve(t, p, pack.Options{Steps: 500_000}); unplaced(s) > 0 {
			t.Errorf("%d of %d items unplaced: %+v", unplaced(s), len(p.Items), p)
		}
	}
}
