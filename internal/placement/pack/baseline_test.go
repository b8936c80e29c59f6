package pack_test

import (
	"cmp"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// The published heuristics that our figures stand beside, for one class of bins without limit and items
// without constraints. Each gives the number of bins. Demands are parts of the capacity; weights of the
// dimensions are the average demand.

// baselines are the bins of each heuristic by name.
func baselines(p pack.Problem) map[string]int {
	items, weight := shares(p)
	return map[string]int{
		"first fit decreasing by sum": firstFit(items, func(v []float64) (s float64) {
			for d := range v {
				s += weight[d] * v[d]
			}
			return s
		}),
		"first fit decreasing by maximum": firstFit(items, slices.Max[[]float64]),
		"best-fit dot product": binByBin(items, func(v, room []float64) (s float64) {
			for d := range v {
				s += weight[d] * v[d] * room[d]
			}
			return s
		}),
		"norm greedy": binByBin(items, func(v, room []float64) (s float64) {
			for d := range v {
				s -= weight[d] * (room[d] - v[d]) * (room[d] - v[d])
			}
			return s
		}),
	}
}

// shares are the single items as parts of the capacity, and their average.
func shares(p pack.Problem) (items [][]float64, average []float64) {
	average = make([]float64, len(p.Bins[0].Capacity))
	for _, it := range p.Items {
		v := make([]float64, len(average))
		for d, want := range it.Demand {
			v[d] = float64(want) / float64(p.Bins[0].Capacity[d])
			average[d] += v[d] * float64(it.Count)
		}
		for range it.Count {
			items = append(items, v)
		}
	}
	for d := range average {
		average[d] /= float64(len(items))
	}
	return items, average
}

// room is an empty bin. Parts are rounded, so that what fills a bin exactly may seem to be a little more.
func room(dims int) []float64 { return slices.Repeat([]float64{1 + 1e-9}, dims) }

func put(v, room []float64) bool {
	for d := range v {
		if v[d] > room[d] {
			return false
		}
	}
	for d := range v {
		room[d] -= v[d]
	}
	return true
}

// firstFit puts the items, the largest first, each into the first bin that holds it.
func firstFit(items [][]float64, size func([]float64) float64) int {
	var bins [][]float64
	order := slices.Clone(items)
	slices.SortStableFunc(order, func(a, b []float64) int { return cmp.Compare(size(b), size(a)) })
	for _, v := range order {
		if slices.IndexFunc(bins, func(r []float64) bool { return put(v, r) }) < 0 {
			bins = append(bins, room(len(v)))
			put(v, bins[len(bins)-1])
		}
	}
	return len(bins)
}

// binByBin fills one bin after the other with the item of the best score that it holds.
func binByBin(items [][]float64, score func(v, room []float64) float64) (bins int) {
	left := slices.Clone(items)
	for len(left) > 0 {
		bins++
		r := room(len(left[0]))
		for {
			best, bestScore := -1, 0.0
			for i, v := range left {
				if s := score(v, r); (best < 0 || s > bestScore) && put(v, slices.Clone(r)) {
					best, bestScore = i, s
				}
			}
			if best < 0 {
				break
			}
			put(left[best], r)
			left = slices.Delete(left, best, best+1)
		}
	}
	return bins
}
