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

func TestSmallProblems(t *testing.T) {
	const cases = 20_000
	r := rand.New(rand.NewPCG(3, 1))
	fits, missed := 0, 0
	for range cases {
		p := small(r)
		s := solve(t, p, pack.Options{})
		if diff := cmp.Diff(s, pack.Solve(p, pack.Options{})); diff != "" {
			t.Fatalf("the same problem was solved differently: %s\n%+v", diff, p)
		}
		if !feasible(p) {
			if unplaced(s) == 0 {
				t.Fatalf("solver and oracle disagree on %+v", p)
			}
			continue
		}
		fits++
		if unplaced(s) > 0 {
			missed++
		}
	}
	t.Logf("of %d problems %d fit; the search missed %d of them", cases, fits, missed)
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
