package pack_test

import (
	"math/rand/v2"

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
	ranges := [][3]int64{{100, 400, 1000}, {1, 1000, 1000}, {200, 800, 1000}, {50, 200, 1000}, {25, 100, 1000}, {20, 100, 150}}
	capacity := int64(150)
	switch class {
	case 7, 8:
	case 9:
		ranges = append(ranges, ranges[:3]...) // the last of them is the first
		ranges[8] = ranges[0]
		fallthrough
	default:
		capacity = ranges[min(class, 9)-1][2]
	case 10:
		capacity = 100
	}
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
			case class == 10:
				v[d] = within(25, 50)
			case class == 7 || class == 8:
				v[d] = within(20, 100)
			default:
				v[d] = within(ranges[class-1][0], ranges[class-1][1])
			}
			total[d] += v[d]
		}
		p.Items = append(p.Items, pack.ItemClass{Demand: v, Count: 1})
	}
	for d := range dims {
		p.Bins[0].Capacity[d] = capacity
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
