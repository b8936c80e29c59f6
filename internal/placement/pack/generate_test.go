package pack_test

import (
	"math/rand/v2"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// family generates problems of n items in some dimensions, in identical bins without limit.
//
// The nine classes that Panigrahy, Talwar, Uyeda and Wieder ("Heuristics for Vector Bin Packing", 2011)
// measure on are those of Caprara and Toth (2001), carried over to more than two dimensions:
//
//	1..5  each demand uniform in 100..400, 1..1000, 200..800, 50..200, 25..100 of 1000
//	6     each demand uniform in 20..100 of 150
//	7     pairs of dimensions: the first uniform in 20..100, the second within 10 of it, of 150
//	8     the same, but the second within 10 of 120 minus the first
//	9     uniform in 100..400; the capacity of each dimension is its demand divided by the number of
//	      bins of 1000 that the demand needs, so that no room is left to waste
//
// Class 10 of Caprara and Toth are triples that fill a bin of 100 exactly: two of 25..50 and the rest.
func family(class, dims, n int, r *rand.Rand) pack.Problem {
	within := func(low, high int64) int64 { return low + r.Int64N(high-low+1) }
	// The range of a single demand and the capacity, by class.
	ranges := [...][3]int64{
		1: {100, 400, 1000}, 2: {1, 1000, 1000}, 3: {200, 800, 1000}, 4: {50, 200, 1000}, 5: {25, 100, 1000},
		6: {20, 100, 150}, 7: {20, 100, 150}, 8: {20, 100, 150}, 9: {100, 400, 1000}, 10: {25, 50, 100},
	}[class]
	p := pack.Problem{Bins: []pack.BinClass{{Capacity: make([]int64, dims), Count: -1}}}
	total := make([]int64, dims)
	for i := range n {
		v := make([]int64, dims)
		for d := range v {
			switch {
			case class == 7 && d%2 == 1:
				v[d] = within(v[d-1]-10, v[d-1]+10)
			case class == 8 && d%2 == 1:
				v[d] = within(110-v[d-1], 130-v[d-1])
			case class == 10 && i%3 == 2:
				v[d] = 100 - p.Items[i-1].Demand[d] - p.Items[i-2].Demand[d]
			default:
				v[d] = within(ranges[0], ranges[1])
			}
			total[d] += v[d]
		}
		p.Items = append(p.Items, pack.ItemClass{Demand: v, Count: 1})
	}
	for d := range dims {
		p.Bins[0].Capacity[d] = ranges[2]
	}
	if class == 9 {
		var most int64
		for _, t := range total {
			most = max(most, (t+999)/1000)
		}
		for d, t := range total {
			p.Bins[0].Capacity[d] = (t + most - 1) / most
		}
	}
	return p
}

// planted cuts full bins into random pieces: the optimum is the number of bins that were cut.
func planted(dims, bins, pieces int, r *rand.Rand) pack.Problem {
	const capacity = 1000
	p := pack.Problem{Bins: []pack.BinClass{{Capacity: make([]int64, dims), Count: -1}}}
	for range bins {
		n := pieces - 1 + r.IntN(3) // pieces on average
		vectors := make([][]int64, n)
		for i := range vectors {
			vectors[i] = make([]int64, dims)
		}
		for d := range dims {
			p.Bins[0].Capacity[d] = capacity
			share, sum := make([]int64, n), int64(0)
			for i := range share {
				share[i] = 20 + r.Int64N(100)
				sum += share[i]
			}
			left := int64(capacity)
			for i := range share[1:] {
				vectors[i][d] = capacity * share[i] / sum
				left -= vectors[i][d]
			}
			vectors[n-1][d] = left
		}
		for _, v := range vectors {
			p.Items = append(p.Items, pack.ItemClass{Demand: v, Count: 1})
		}
	}
	return p
}

// plantedSite cuts bins of several classes into pieces, leaving a share of each bin free, and adds
// constraints that the cut bins satisfy: everything fits.
func plantedSite(free int, r *rand.Rand) pack.Problem {
	var p pack.Problem
	dims := 2 + r.IntN(3)
	members := make(map[int][]home) // by group
	classes := 2 + r.IntN(4)
	for c := range classes {
		b := pack.BinClass{Count: 1 + r.IntN(6), Domain: r.IntN(4)}
		for range dims {
			b.Capacity = append(b.Capacity, 50+r.Int64N(100))
		}
		p.Bins = append(p.Bins, b)
		for bin := range b.Count {
			pieces := 3 + r.IntN(5)
			left := make([]int64, dims)
			for d := range left {
				left[d] = b.Capacity[d] * int64(100-free) / 100
			}
			for n := range pieces {
				it := pack.ItemClass{Count: 1}
				for d := range left {
					share := left[d]
					if n < pieces-1 {
						share = r.Int64N(2*left[d]/int64(pieces-n) + 1)
					}
					left[d] -= share
					it.Demand = append(it.Demand, share)
				}
				if r.IntN(4) == 0 {
					it.Allowed = make([]bool, classes)
					for i := range it.Allowed {
						it.Allowed[i] = i == c || r.IntN(2) == 0
					}
				}
				if g := 1 + r.IntN(12); r.IntN(2) == 0 && apart(p, members[g], pack.Spread(1+g%2), home{c, bin}) {
					it.Group, it.Spread = g, pack.Spread(1+g%2)
					members[g] = append(members[g], home{c, bin})
				}
				p.Items = append(p.Items, it)
			}
		}
	}
	return p
}

// home is a bin by class and number.
type home struct{ class, bin int }

// apart says whether a group that has items in some bins may have one in another bin.
func apart(p pack.Problem, taken []home, spread pack.Spread, bin home) bool {
	domain := p.Bins[bin.class].Domain
	return !slices.ContainsFunc(taken, func(h home) bool {
		return h == bin || spread == pack.SpreadDomain && domain != 0 && p.Bins[h.class].Domain == domain
	})
}
