package pack

import (
	"cmp"
	"math/bits"
	"slices"
)

// Bounds of the column generation.
const (
	mostRows   = 450     // flavours; the inverse has the square of it
	priceEvery = 3       // iterations; in between known patterns enter
	relaxEvery = 2       // iterations
	quickNodes = 3000    // to find any pattern that improves
	proofNodes = 200_000 // to show that there is none
	stallGain  = 0.001   // of the amount, over as many iterations as there are rows
	priceUnit  = 1 << 30 // of a price as a whole number
)

// columns solves the linear relaxation over all patterns of one bin class by column generation. It
// gives a lower bound, and start points for the local search: a dive fixes the largest amounts, solves
// again for what is left, and so on.
type columns struct {
	in    *instance
	class *binClass
	count []int // of all items, by flavour
	left  []int // of those that the lp is about
	pool  []pattern
	pack  knapsack
	rng   random

	lp         *lp
	root       *lp     // the solution for all items, as far as it has come
	ended      bool    // the root is solved
	exact      bool    // the last pricing saw all patterns
	iterations int     // so far
	since      int     // iterations since the last check of progress
	mark       float64 // amount of bins then
	bound      int
	steps      int

	dives bool      // lp is that of a dive
	done  []pattern // bins that the dive has fixed
	stop  int       // the number of bins at which it ends
}

// newColumns is nil if the problem has several classes of bins, groups or too many flavours.
func newColumns(in *instance) *columns {
	if len(in.classes) != 1 || len(in.spread) > 1 || len(in.flavours) > mostRows {
		return nil
	}
	c := &columns{in: in, class: &in.classes[0], count: make([]int, len(in.flavours)), rng: 1}
	for _, it := range in.items {
		if it.flavour >= 0 {
			c.count[it.flavour] += it.count
		}
	}
	c.left = slices.Clone(c.count)
	c.root = newLP(c.left, c.single)
	c.lp = c.root
	c.pack.price = in.prices(0)
	return c
}

// single is how many items of a flavour fit into an empty bin.
func (c *columns) single(flavour int32) int {
	n := int64(c.count[flavour])
	for d, want := range c.in.flavours[flavour].demand {
		if want > 0 {
			n = min(n, c.class.capacity[d]/want)
		}
	}
	return int(n)
}

// learn adds the bins of a solution to the patterns that are known.
func (c *columns) learn(p *packing) {
	for _, b := range p.bins {
		counts := make(map[int32]int32)
		for _, it := range b.items {
			counts[c.in.items[it].flavour]++
		}
		var known pattern
		for _, it := range b.items {
			if f := c.in.items[it].flavour; counts[f] > 0 {
				known = append(known, part{f, counts[f]})
				counts[f] = 0
			}
		}
		c.pool = append(c.pool, known)
	}
}

// improve does one iteration and says whether another may help.
func (c *columns) improve() bool {
	m := len(c.lp.rows)
	c.steps += m + m*m/16
	c.iterations++
	if c.iterations%priceEvery == 0 {
		if p := c.price(quickNodes); p != nil {
			c.pool = append(c.pool, p)
			return c.lp.enter(p)
		}
	}
	if c.iterations%relaxEvery == 0 && c.lp.relax() {
		return true
	}
	best, value := -1, 1+1e-7
	for i, p := range c.pool {
		if v := c.lp.value(p); v > value && c.available(p) {
			best, value = i, v
		}
	}
	c.steps += len(c.pool)
	if best >= 0 {
		return c.lp.enter(c.pool[best])
	}
	p := c.price(quickNodes)
	if p == nil && !c.exact && !c.dives {
		p = c.price(proofNodes)
	}
	if p == nil {
		return c.lp.relax()
	}
	c.pool = append(c.pool, p)
	return c.lp.enter(p)
}

func (c *columns) available(p pattern) bool {
	for _, q := range p {
		if int(q.count) > c.left[q.flavour] {
			return false
		}
	}
	return true
}

// price looks for the pattern of the highest value at the present prices; nil: none above 1 was found.
func (c *columns) price(nodes int) pattern {
	c.pack.choices = c.pack.choices[:0]
	for row, f := range c.lp.rows {
		if v := int64(c.lp.y[row] * priceUnit); v > 0 {
			c.pack.choices = append(c.pack.choices, choice{
				item: f, limit: c.left[f], value: v, demand: c.in.flavours[f].demand,
			})
		}
	}
	c.pack.free = append(c.pack.free[:0], c.class.capacity...)
	c.pack.nodes = nodes
	flavours, value := c.pack.solve(0)
	c.steps += nodes - c.pack.nodes
	c.exact = c.pack.nodes > 0
	if c.exact && !c.dives {
		c.raise(value)
	}
	if value <= priceUnit+priceUnit>>20 {
		return nil
	}
	slices.Sort(flavours)
	var p pattern
	for i, f := range flavours {
		if i > 0 && flavours[i-1] == f {
			p[len(p)-1].count++
		} else {
			p = append(p, part{f, 1})
		}
	}
	return p
}

// raise lifts the lower bound: if no bin holds more than a value, all items together need their
// value's worth of bins. This is exact, whatever the prices are.
func (c *columns) raise(most int64) {
	var high, low uint64
	for _, ch := range c.pack.choices {
		h, l := bits.Mul64(uint64(ch.value), uint64(c.count[ch.item]))
		var carry uint64
		low, carry = bits.Add64(low, l, 0)
		high += h + carry
	}
	if most <= 0 || high >= uint64(most) {
		return
	}
	q, r := bits.Div64(high, low, uint64(most))
	c.bound = max(c.bound, int(q)+int(min(r, 1)))
}

// work does one iteration. It says whether a dive has ended; the next one ends with at most so many bins.
func (c *columns) work(stop int) bool {
	if c.dives || !c.ended {
		more := c.improve()
		if more && !c.stalled() {
			return false
		}
		c.ended = c.ended || !more && !c.dives
	}
	if !c.dives {
		c.lp, c.done, c.stop, c.dives = c.root.clone(), nil, stop, true
	}
	if !c.fix() {
		return false
	}
	copy(c.left, c.count)
	c.lp, c.dives, c.mark, c.since = c.root, false, 0, 0
	return true
}

// stalled says whether the last iterations gained next to nothing. What the last bit takes long for is
// better spent on a dive, after which the root goes on.
func (c *columns) stalled() bool {
	c.since++
	if c.since < max(len(c.lp.rows), 50) {
		return false
	}
	amount := 0.0
	for _, x := range c.lp.x {
		amount += x
	}
	gain := c.mark - amount
	c.mark, c.since = amount, 0
	return gain >= 0 && gain < amount*stallGain
}

// fix takes the patterns with the largest amounts for good and says whether the dive is over.
func (c *columns) fix() bool {
	type rated struct {
		pattern pattern
		amount  float64
		rank    float64
	}
	var all []rated
	for i, b := range c.lp.basis {
		if b.pattern != nil && c.lp.x[i] > 1e-6 {
			noise := float64(c.rng.below(1024)) / (5 * 1024) // other dives, other bins
			all = append(all, rated{b.pattern, c.lp.x[i], c.lp.x[i] + noise})
		}
	}
	slices.SortStableFunc(all, func(a, b rated) int { return cmp.Compare(b.rank, a.rank) })
	before := len(c.done)
	for _, r := range all {
		copies := int(r.amount + 1e-6)
		if copies == 0 && (len(c.done) == before || r.amount > 0.75) {
			copies = 1
		}
		for ; copies > 0 && len(c.done) < c.stop && c.available(r.pattern); copies-- {
			c.done = append(c.done, r.pattern)
			for _, q := range r.pattern {
				c.left[q.flavour] -= int(q.count)
			}
		}
	}
	if len(c.done) == c.stop || len(c.done) == before {
		return true
	}
	c.lp, c.mark, c.since = newLP(c.left, c.single), 0, 0
	return len(c.lp.rows) == 0
}

// packing has the bins that a dive fixed.
func (c *columns) packing() *packing {
	p := c.in.empty()
	for _, pat := range c.done {
		bin := openBin{}
		for _, q := range pat {
			for range q.count {
				bin.items = append(bin.items, c.in.anyOf(q.flavour, p.left))
			}
		}
		p.rest -= len(bin.items)
		p.bins = append(p.bins, bin)
	}
	return p
}

// anyOf takes an item of a flavour from those that are left.
func (in *instance) anyOf(flavour int32, left []int) int32 {
	for _, m := range in.flavours[flavour].members {
		if left[m] > 0 {
			left[m]--
			return m
		}
	}
	panic("pack: a pattern holds more items of a flavour than are left")
}
