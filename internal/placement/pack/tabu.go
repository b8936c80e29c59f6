package pack

import "slices"

// Numbers that bound a local search. They were found by trial on the benchmark's classes.
const (
	windowSteps  = 4000 // looks at items per move; small problems see everything
	widestOut    = 8    // items without a bin that are considered in one move
	pairsUpTo    = 24   // bins with more items are not searched for pairs
	patience     = 150  // moves without success before bins are repacked
	repacks      = 12   // pairs of bins to repack then
	tabuTable    = 1 << 14
	repackNodes  = 3000
	roundsNoGain = 40 // repacking rounds without success before the search starts again from the best
)

// move takes up to two items into a bin for up to two that leave it.
type move struct {
	bin   int
	in    [2]int32
	out   [2]int32
	delta int64 // of the weight that is out
}

// tabu is a local search that swaps items that are out with items in bins, never breaking a rule.
// What has moved stays for a while, so that the search does not go in circles.
type tabu struct {
	*state
	rng    random
	now    int64
	frozen []int64 // by hash of item class and bin: until when it neither enters nor leaves
	best   int64   // least weight out in this descent
	ties   int
	steps  int
	pack   knapsack
}

func newTabu(s *state, seed uint64) *tabu {
	t := &tabu{state: s, rng: random(seed), frozen: make([]int64, tabuTable), best: s.outWeight}
	return t
}

func (t *tabu) slot(item int32, bin int) *int64 {
	h := (uint64(item)*0x9e3779b97f4a7c15 ^ uint64(bin)*0xc2b2ae3d27d4eb4f) * 0xff51afd7ed558ccd
	return &t.frozen[h>>50]
}

func (t *tabu) tabu(item int32, bin int) bool { return *t.slot(item, bin) > t.now }

func (t *tabu) freeze(item int32, bin int) {
	*t.slot(item, bin) = t.now + 4 + int64(len(t.out)) + int64(t.rng.below(10))
}

// step makes the best move that is not forbidden. It says whether everything is placed.
func (t *tabu) step() bool {
	t.now++
	candidates := t.candidates()
	best := move{bin: -1}
	t.ties = 0
	start, seen := t.rng.below(len(t.bins)), t.steps
	for n := 0; n < len(t.bins) && t.steps-seen < windowSteps; n++ {
		bin := start + n
		if bin >= len(t.bins) {
			bin -= len(t.bins)
		}
		for _, item := range candidates {
			t.steps++
			if !t.allowed(item, bin) {
				continue
			}
			if fits(t.demand[item], t.room(bin)) && !t.clash(item, bin) {
				t.do(move{bin: bin, in: [2]int32{item, none}, out: [2]int32{none, none}})
				return len(t.out) == 0
			}
			t.swaps(item, bin, &best)
		}
		t.pairsIn(candidates, bin, &best)
	}
	if best.bin >= 0 {
		t.do(best)
	}
	return len(t.out) == 0
}

// candidates are some of the different items that are out.
func (t *tabu) candidates() []int32 {
	var some []int32
	start := t.rng.below(len(t.out))
next:
	for n := range t.out {
		item := t.out[(start+n)%len(t.out)]
		for _, other := range some {
			if other == item {
				continue next
			}
		}
		if some = append(some, item); len(some) == widestOut {
			break
		}
	}
	return some
}

// consider keeps a move if it is the best so far; among equals each has the same chance.
func (t *tabu) consider(m move, best *move) {
	if best.bin >= 0 && m.delta > best.delta {
		return
	}
	if best.bin >= 0 && m.delta == best.delta {
		t.ties++
		if t.rng.below(t.ties+1) > 0 {
			return
		}
	} else {
		t.ties = 0
	}
	*best = m
}

// forbidden says whether a move touches what must stay. A new best is always allowed.
func (t *tabu) forbidden(m move) bool {
	if t.outWeight+m.delta < t.best {
		return false
	}
	for i := range m.in {
		if m.in[i] != none && t.tabu(m.in[i], m.bin) || m.out[i] != none && t.tabu(m.out[i], m.bin) {
			return true
		}
	}
	return false
}

// swaps considers an item for one or two items of a bin.
func (t *tabu) swaps(item int32, bin int, best *move) {
	items, room := t.bins[bin].items, t.room(bin)
	demand, weight := t.demand[item], t.weight[item]
	for i, first := range items {
		if i > 0 && items[i-1] == first {
			continue
		}
		t.steps++
		m := move{bin: bin, in: [2]int32{item, none}, out: [2]int32{first, none}, delta: t.weight[first] - weight}
		if first == item || best.bin >= 0 && m.delta > best.delta {
			continue
		}
		if !t.swapFits(demand, room, first) || t.clash(item, bin, first) {
			t.pairsOut(m, i, best)
		} else if !t.forbidden(m) {
			t.consider(m, best)
		}
	}
}

// pairsOut considers an item for item i of a bin and one after it.
func (t *tabu) pairsOut(m move, i int, best *move) {
	items, room := t.bins[m.bin].items, t.room(m.bin)
	if len(items) > pairsUpTo {
		return
	}
	demand, single := t.demand[m.in[0]], m.delta
	for j := i + 1; j < len(items); j++ {
		if j > i+1 && items[j-1] == items[j] {
			continue
		}
		t.steps++
		m.out[1], m.delta = items[j], single+t.weight[items[j]]
		if best.bin >= 0 && m.delta > best.delta || !t.pairFits(demand, room, items[i], items[j]) ||
			t.forbidden(m) || t.clash(m.in[0], m.bin, items[i], items[j]) {
			continue
		}
		t.consider(m, best)
	}
}

// swapFits says whether a demand fits into the room that an item leaves behind.
func (t *tabu) swapFits(demand, room []int64, leaving int32) bool {
	leave := t.demand[leaving]
	for d, want := range demand {
		if want-leave[d] > room[d] {
			return false
		}
	}
	return true
}

func (t *tabu) pairFits(demand, room []int64, a, b int32) bool {
	first, second := t.demand[a], t.demand[b]
	for d, want := range demand {
		if want-first[d]-second[d] > room[d] {
			return false
		}
	}
	return true
}

// pairsIn considers two of the candidates for one item of a bin.
func (t *tabu) pairsIn(candidates []int32, bin int, best *move) {
	room := t.room(bin)
	for i, a := range candidates {
		for _, b := range candidates[i+1:] {
			if !t.allowed(a, bin) || !t.allowed(b, bin) || t.together(a, b) {
				continue
			}
			for n, leaving := range t.bins[bin].items {
				if n > 0 && t.bins[bin].items[n-1] == leaving {
					continue
				}
				t.steps++
				m := move{bin: bin, in: [2]int32{a, b}, out: [2]int32{leaving, none}, delta: t.weight[leaving] - t.weight[a] - t.weight[b]}
				if best.bin >= 0 && m.delta > best.delta || !t.bothFit(a, b, room, leaving) || t.forbidden(m) ||
					t.clash(a, bin, leaving) || t.clash(b, bin, leaving) {
					continue
				}
				t.consider(m, best)
			}
		}
	}
}

// together says whether two items are of one group and may not share a bin.
func (t *tabu) together(a, b int32) bool {
	g := t.in.items[a].group
	return g > 0 && g == t.in.items[b].group
}

func (t *tabu) bothFit(a, b int32, room []int64, leaving int32) bool {
	first, second, leave := t.demand[a], t.demand[b], t.demand[leaving]
	for d, want := range first {
		if want-leave[d] > room[d]-second[d] {
			return false
		}
	}
	return true
}

// do makes a move.
func (t *tabu) do(m move) {
	for _, item := range m.out {
		if item != none {
			t.take(item, m.bin)
			t.drop(item)
			t.freeze(item, m.bin)
		}
	}
	for _, item := range m.in {
		if item != none {
			t.fetch(item)
			t.put(item, m.bin)
			t.freeze(item, m.bin)
		}
	}
}

// repack empties some bins and fills them again, one after the other, with the best of their items
// and of those that are out.
func (t *tabu) repack(bins []int) {
	for _, b := range bins {
		t.clear(b)
	}
	for _, b := range bins {
		t.pack.choices = t.pack.choices[:0]
		counts := make(map[int32]int)
		for _, item := range t.out {
			counts[item]++
			if counts[item] > 1 || !t.allowed(item, b) || t.clash(item, b) {
				continue
			}
			// A little noise, or else the same bins are always filled in the same way.
			value := t.weight[item]*16 + int64(t.rng.below(int(t.weight[item]*2+1)))
			t.pack.choices = append(t.pack.choices, choice{
				item: item, group: t.in.items[item].group, value: value, demand: t.demand[item],
			})
		}
		for i := range t.pack.choices {
			t.pack.choices[i].limit = counts[t.pack.choices[i].item]
		}
		t.pack.free = append(t.pack.free[:0], t.room(b)...)
		t.pack.price = t.in.prices(int(t.bins[b].class))
		t.pack.nodes = repackNodes
		items, _ := t.pack.solve(0)
		t.steps += repackNodes - t.pack.nodes + len(t.out)
		for _, item := range items {
			t.fetch(item)
			t.put(item, b)
		}
	}
}

// prices make the whole of a bin cost about one in each dimension.
func (in *instance) prices(class int) []float64 {
	p := make([]float64, in.dims)
	for d, c := range in.classes[class].capacity {
		p[d] = 1 / float64(max(c, 1))
	}
	return p
}

// shuffle repacks a few bins unless that leaves more out than before.
func (t *tabu) shuffle() {
	var bins []int
	for range min(len(t.bins), 2+t.rng.below(2)) {
		if b := t.rng.below(len(t.bins)); !slices.Contains(bins, b) {
			bins = append(bins, b)
		}
	}
	before := t.outWeight
	was := make([][]int32, len(bins))
	for i, b := range bins {
		was[i] = slices.Clone(t.bins[b].items)
	}
	t.repack(bins)
	if t.outWeight <= before {
		return
	}
	for _, b := range bins {
		t.clear(b)
	}
	for i, b := range bins {
		for _, item := range was[i] {
			t.fetch(item)
			t.put(item, b)
		}
	}
}
