package pack

import (
	"cmp"
	"math"
	"slices"
)

// knapsack finds the most valuable content of one bin by branch and bound. Floats only guide it
// where to look; whether items fit is counted in integers.
type knapsack struct {
	choices []choice
	free    []int64
	// price of a unit of each dimension in the surrogate constraint.
	price []float64
	// nodes that may still be visited. If they run out the result is not known to be the best.
	nodes int

	ratio   []float64 // by choice and dimension: the highest value per unit of this choice and those after it
	slack   float64   // surrogate room
	picked  []int32   // indices of choices
	value   int64
	best    []int32
	highest int64
}

// choice is an item class on offer.
type choice struct {
	item      int32
	group     int32 // 0 or a group of which the bin takes one item
	limit     int
	value     int64
	demand    []int64
	surrogate float64
	density   float64
}

// solve gives the best content as item classes, not sorted, and its value, if above the given one.
func (k *knapsack) solve(above int64) ([]int32, int64) {
	dims := len(k.free)
	k.slack = k.cost(k.free)
	for i := range k.choices {
		c := &k.choices[i]
		c.surrogate = k.cost(c.demand)
		c.density = ratio(c.value, c.surrogate)
	}
	slices.SortStableFunc(k.choices, func(a, b choice) int { return cmp.Compare(b.density, a.density) })
	k.ratio = slices.Grow(k.ratio[:0], len(k.choices)*dims)[:len(k.choices)*dims]
	for i, c := range slices.Backward(k.choices) {
		for d, want := range c.demand {
			r := ratio(c.value, float64(want))
			if i+1 < len(k.choices) {
				r = max(r, k.ratio[(i+1)*dims+d])
			}
			k.ratio[i*dims+d] = r
		}
	}
	k.picked, k.best, k.value, k.highest = k.picked[:0], k.best[:0], 0, above
	k.dig(0)
	items := make([]int32, 0, len(k.best))
	for _, i := range k.best {
		items = append(items, k.choices[i].item)
	}
	return items, k.highest
}

// cost of a demand in the surrogate dimension. The conversions keep the compiler from fusing
// operations, which would round differently on different machines.
func (k *knapsack) cost(demand []int64) (s float64) {
	for d, want := range demand {
		s += float64(k.price[d] * float64(want))
	}
	return s
}

func ratio(value int64, by float64) float64 {
	if by <= 0 {
		return math.MaxFloat64
	}
	return float64(value) / by
}

// dig tries all contents that add to what is picked items of choice i and after it.
func (k *knapsack) dig(i int) {
	k.nodes--
	if k.value > k.highest {
		k.highest = k.value
		k.best = append(k.best[:0], k.picked...)
	}
	for ; i < len(k.choices) && k.nodes > 0; i++ {
		c := &k.choices[i]
		if k.slack >= 0 && below(k.slack*c.density, k.highest-k.value) {
			return // no choice after this one has a higher density
		}
		if c.limit == 0 || !fits(c.demand, k.free) || k.hopeless(i) || k.clash(c.group) {
			continue
		}
		c.limit--
		for d, want := range c.demand {
			k.free[d] -= want
		}
		slack := k.slack
		k.slack -= c.surrogate
		k.value += c.value
		k.picked = append(k.picked, int32(i))
		k.dig(i)
		k.picked = k.picked[:len(k.picked)-1]
		k.value -= c.value
		k.slack = slack
		for d, want := range c.demand {
			k.free[d] += want
		}
		c.limit++
	}
}

// below says that an upper bound allows no more than a value. Values are whole numbers, so that half
// a unit is room for rounding.
func below(bound float64, value int64) bool { return bound < float64(value)+0.5 }

// hopeless says whether some dimension has no room for enough value from choice i on.
func (k *knapsack) hopeless(i int) bool {
	dims := len(k.free)
	for d, r := range k.ratio[i*dims : (i+1)*dims] {
		if below(r*float64(k.free[d]), k.highest-k.value) {
			return true
		}
	}
	return false
}

// clash says whether an item of the group is picked already.
func (k *knapsack) clash(group int32) bool {
	return group > 0 && slices.ContainsFunc(k.picked, func(p int32) bool { return k.choices[p].group == group })
}
