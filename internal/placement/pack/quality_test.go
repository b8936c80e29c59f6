package pack_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// The classes of Caprara and Toth that Panigrahy and others measure on; see family.
const classes = 9

func TestNeverWorseThanPublishedHeuristics(t *testing.T) {
	for class := 1; class <= classes; class++ {
		for _, dims := range []int{2, 5, 10} {
			p := family(class, dims, 100, rand.New(rand.NewPCG(uint64(class), uint64(dims))))
			best := slices.Min(slices.Collect(maps.Values(baselines(p))))
			for _, steps := range []int{0, 300_000} {
				s := solve(t, p, pack.Options{Minimise: true, Steps: steps})
				if len(s.Bins) > best || unplaced(s) > 0 {
					t.Errorf("class %d in %d dimensions, %d steps: %d bins, the best of %v has %d",
						class, dims, steps, len(s.Bins), baselines(p), best)
				}
			}
		}
	}
}

// Bins that were cut into pieces are put together again with at most one bin more in thirty.
func TestPlantedOptimum(t *testing.T) {
	for _, tc := range []struct{ dims, pieces int }{{2, 3}, {2, 5}, {5, 3}, {20, 3}} {
		const bins = 30
		p := planted(tc.dims, bins, tc.pieces, rand.New(rand.NewPCG(5, uint64(tc.dims))))
		search := pack.NewSearch(p, pack.Options{Minimise: true})
		search.Run(6_000_000)
		s := search.Solution()
		if err := check(p, s); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d dimensions, %d pieces: %d of %d bins, bound %d", tc.dims, tc.pieces, len(s.Bins), bins, search.Bound())
		if len(s.Bins) < bins || len(s.Bins) > bins+1 || search.Bound() > bins {
			t.Errorf("%d dimensions, %d pieces: %d bins and bound %d, the optimum is %d", tc.dims, tc.pieces, len(s.Bins), search.Bound(), bins)
		}
	}
}

// With many copies of few types the relaxation decides: its bound is reached or nearly.
func TestManyCopies(t *testing.T) {
	for dims := 1; dims <= 3; dims++ {
		r := rand.New(rand.NewPCG(9, uint64(dims)))
		p := family(2, dims, 25, r)
		for i := range p.Items {
			p.Items[i].Count = 1 + r.IntN(200)
			for d := range p.Items[i].Demand {
				p.Items[i].Demand[d] = 30 + p.Items[i].Demand[d]/2
			}
		}
		search := pack.NewSearch(p, pack.Options{Minimise: true})
		search.Run(6_000_000)
		n := len(search.Solution().Bins)
		t.Logf("%d dimensions: %d bins, bound %d, heuristics %v", dims, n, search.Bound(), baselines(p))
		if err := check(p, search.Solution()); err != nil || n < search.Bound() || n > search.Bound()+2 {
			t.Errorf("%d dimensions: %d bins, bound %d, %v", dims, n, search.Bound(), err)
		}
	}
}

// BenchmarkClasses prints, for 200 items, our bins, the bound, and the bins of each published heuristic.
func BenchmarkClasses(b *testing.B) {
	for class := 1; class <= classes; class++ {
		for _, dims := range []int{2, 5, 10} {
			b.Run(fmt.Sprintf("class=%d/dims=%d", class, dims), func(b *testing.B) {
				p := family(class, dims, 200, rand.New(rand.NewPCG(uint64(class), uint64(dims))))
				for b.Loop() {
					s := pack.NewSearch(p, pack.Options{Minimise: true})
					s.Run(20_000_000) // half a second to a second
					b.ReportMetric(float64(len(s.Solution().Bins)), "bins")
					b.ReportMetric(float64(s.Bound()), "bound")
				}
				for name, bins := range baselines(p) { // Any order: benchmarks sort their units.
					b.ReportMetric(float64(bins), strings.ReplaceAll(name, " ", "-")+"-bins")
				}
			})
		}
	}
}
