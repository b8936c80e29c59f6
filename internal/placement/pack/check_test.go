package pack_test

import (
	"fmt"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// check says what is wrong with a solution. It shares no code with the search.
func check(p pack.Problem, s pack.Solution) error {
	left := make([]int, len(p.Items))
	for i, it := range p.Items {
		left[i] = max(it.Count, 0)
	}
	used := make([]int, len(p.Bins))
	groups := make(map[int][]resident)
	for b, bin := range s.Bins {
		if bin.Class < 0 || bin.Class >= len(p.Bins) {
			return fmt.Errorf("bin %d has the unknown class %d", b, bin.Class)
		}
		used[bin.Class]++
		if len(bin.Items) == 0 {
			return fmt.Errorf("bin %d is listed and empty", b)
		}
		if err := checkBin(p, bin, left); err != nil {
			return fmt.Errorf("bin %d of class %d: %w", b, bin.Class, err)
		}
		for _, c := range bin.Items {
			for range c.Count {
				g := p.Items[c.Class].Group
				groups[g] = append(groups[g], resident{b, p.Bins[bin.Class].Domain})
			}
		}
	}
	for c, n := range used {
		if limit := p.Bins[c].Count; limit >= 0 && n > limit {
			return fmt.Errorf("%d bins of class %d, which has %d", n, c, limit)
		}
	}
	for _, u := range s.Unplaced {
		if u.Count <= 0 {
			return fmt.Errorf("%d unplaced items of class %d", u.Count, u.Class)
		}
		left[u.Class] -= u.Count
	}
	for i, n := range left {
		if n != 0 {
			return fmt.Errorf("item class %d: %d items neither placed nor listed", i, n)
		}
	}
	return checkGroups(p, groups)
}

// checkBin checks one bin alone and takes its items from those that are left.
func checkBin(p pack.Problem, bin pack.Bin, left []int) error {
	load := make(map[int]int64)
	for i, c := range bin.Items {
		if c.Class < 0 || c.Class >= len(p.Items) || c.Count <= 0 || i > 0 && bin.Items[i-1].Class >= c.Class {
			return fmt.Errorf("bad list of items %v", bin.Items)
		}
		it := p.Items[c.Class]
		if it.Allowed != nil && !it.Allowed[bin.Class] {
			return fmt.Errorf("item class %d is not allowed", c.Class)
		}
		for d, want := range it.Demand {
			load[d] += want * int64(c.Count)
		}
		left[c.Class] -= c.Count
	}
	for d, n := range load {
		var capacity int64
		if d < len(p.Bins[bin.Class].Capacity) {
			capacity = p.Bins[bin.Class].Capacity[d]
		}
		if n > capacity {
			return fmt.Errorf("dimension %d holds %d of %d", d, n, capacity)
		}
	}
	return nil
}

// resident is where an item of a group lies.
type resident struct{ bin, domain int }

func checkGroups(p pack.Problem, groups map[int][]resident) error {
	for g, rs := range groups {
		if g == 0 {
			continue
		}
		var strictest pack.Spread
		for _, it := range p.Items {
			if it.Group == g {
				strictest = max(strictest, it.Spread)
			}
		}
		for i, a := range rs {
			clash := slices.ContainsFunc(rs[:i], func(b resident) bool {
				return strictest >= pack.SpreadBin && a.bin == b.bin ||
					strictest == pack.SpreadDomain && a.domain == b.domain && a.domain != 0
			})
			if clash {
				return fmt.Errorf("group %d: two items share a place with %v", g, a)
			}
		}
	}
	return nil
}
