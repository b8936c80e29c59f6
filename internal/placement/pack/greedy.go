package pack

import (
	"cmp"
	"math"
	"slices"
)

// packing is a solution under construction. Items of a bin are in the order in which they came.
type packing struct {
	bins []openBin
	left []int // items without a bin, by item class
	rest int   // their number, without those that no bin can hold
}

type openBin struct {
	class int32
	items []int32
}

// score says which flavour a bin takes next.
type score int

const (
	byDot  score = iota // large where the bin has room: dot product of size and room
	byNorm              // leaves the least behind: squared distance of size and room
	bySum               // the largest first
	byPeak              // the largest in its largest dimension first
)

// rule is one member of the portfolio.
type rule struct {
	score score
	// power of a dimension's weight in the scarcity of that dimension: 0, 1 or 2.
	power int
	// urgent flavours, those with few bins to go to, first.
	urgent bool
	// rounds over the bin classes, filling a part of each; domains then fill evenly.
	rounds int
}

// portfolio are the rules of one pass, the ones that win most often first.
func portfolio() []rule {
	var rules []rule
	for _, urgent := range []bool{false, true} {
		for _, s := range []score{byNorm, byDot, bySum, byPeak} {
			for _, power := range []int{1, 0, 2} {
				rules = append(rules, rule{score: s, power: power, urgent: urgent, rounds: 1})
			}
		}
	}
	spread := rules[0]
	spread.rounds = 4
	return slices.Insert(rules, 1, spread)
}

// greedy is the best result of the portfolio. It stops at the first that places everything, unless
// the number of bins counts.
func greedy(in *instance, minimise bool) *packing {
	var best *packing
	for _, r := range portfolio() {
		if r.urgent && !in.choosy() || r.rounds > 1 && len(in.classes) < 2 {
			continue
		}
		p := newFiller(in, r).run()
		if best == nil || cmp.Or(cmp.Compare(p.rest, best.rest), cmp.Compare(len(p.bins), len(best.bins))) < 0 {
			best = p
		}
		if best.rest == 0 && !minimise {
			break
		}
	}
	return best
}

// choosy says whether some flavours have fewer bins to go to than others.
func (in *instance) choosy() bool {
	return slices.ContainsFunc(in.flavours, func(f flavour) bool { return f.bins != in.flavours[0].bins })
}

// filler fills bin after bin. Identical bins repeat a pattern until one of its flavours runs out.
type filler struct {
	in     *instance
	rule   rule
	out    *packing
	left   []int // by flavour
	weight []int64
	class  *binClass
	free   []int64 // of the bin that is being filled
	room   []int64 // the same, normalised
	next   []int   // first member of a flavour with items left, without groups
	queue  []queue // by flavour, with groups
	// taken is the serial number of the last bin that took an item of a group.
	taken  []int32
	serial int32
	// domains that a group has used, by group.
	domains map[int32][]int
}

func newFiller(in *instance, r rule) *filler {
	f := &filler{
		in: in, rule: r, out: in.empty(),
		left: make([]int, len(in.flavours)), weight: make([]int64, in.dims),
		next: make([]int, len(in.flavours)), queue: make([]queue, len(in.flavours)), taken: make([]int32, len(in.spread)), domains: make(map[int32][]int),
		free: make([]int64, in.dims), room: make([]int64, in.dims),
	}
	for i, it := range in.items {
		if it.flavour >= 0 {
			f.left[it.flavour] += in.items[i].count
		}
	}
	return f
}

// empty is a packing that holds nothing yet.
func (in *instance) empty() *packing {
	p := &packing{left: make([]int, len(in.items)), rest: in.total}
	for i, it := range in.items {
		p.left[i] = it.count
	}
	return p
}

// run fills the bins in order: first the classes that can hold the least kinds of items, of those the largest.
func (f *filler) run() *packing {
	order := make([]int, len(f.in.classes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &f.in.classes[a], &f.in.classes[b]
		return cmp.Or(cmp.Compare(len(x.eligible), len(y.eligible)), cmp.Compare(sum(y.room), sum(x.room)))
	})
	for round := range f.rule.rounds {
		for _, c := range order {
			n := f.in.classes[c].count
			f.fill(int32(c), n*(round+1)/f.rule.rounds-n*round/f.rule.rounds)
		}
	}
	return f.out
}

func sum(v []int64) (n int64) {
	for _, x := range v {
		n += x
	}
	return n
}

// fill up to n bins of a class.
func (f *filler) fill(class int32, n int) {
	f.class = &f.in.classes[class]
	for _, fl := range f.class.eligible {
		if f.in.flavours[fl].grouped {
			f.queue[fl] = f.members(fl)
		}
	}
	var pattern []int32
	for range n {
		if f.out.rest == 0 {
			return
		}
		bin := openBin{class: class}
		copy(f.free, f.class.capacity)
		copy(f.room, f.class.room)
		f.serial++
		whole := len(pattern) > 0
		for _, fl := range pattern {
			whole = f.take(fl, &bin) && whole
		}
		if !whole {
			pattern = pattern[:0]
			f.weigh()
			for fl := f.choose(); fl >= 0; fl = f.choose() {
				if f.take(fl, &bin) {
					pattern = append(pattern, fl)
				}
			}
			// The next bin repeats what this one holds, not only what it got after a pattern broke.
			pattern = pattern[:0]
			for _, item := range bin.items {
				pattern = append(pattern, f.in.items[item].flavour)
			}
		}
		for _, fl := range pattern {
			f.queue[fl].giveBack(f.out.left)
		}
		if len(bin.items) == 0 {
			return
		}
		f.out.bins = append(f.out.bins, bin)
	}
}

// members are the item classes of a flavour that may still go to the failure domain of the class.
func (f *filler) members(fl int32) queue {
	q := queue{}
	for _, m := range f.in.flavours[fl].members {
		group := f.in.items[m].group
		if f.out.left[m] > 0 && (f.class.domain == 0 || !slices.Contains(f.domains[group], f.class.domain)) {
			q.push(m, f.out.left[m])
		}
	}
	return q
}

// weigh sets the weights of the dimensions from what is left to place.
func (f *filler) weigh() {
	total := make([]int64, f.in.dims)
	var most int64 = 1
	for fl, n := range f.left {
		for d, s := range f.in.flavours[fl].size {
			total[d] += s * int64(n)
			most = max(most, total[d])
		}
	}
	for d := range total {
		share := int64(float64(total[d]) / float64(most) * 1024)
		switch f.rule.power {
		case 0:
			f.weight[d] = 1024
		case 1:
			f.weight[d] = share
		default:
			f.weight[d] = share * share >> 10
		}
	}
}

// choose is the flavour with the best score that fits into the bin, or -1.
func (f *filler) choose() int32 {
	best, bestBins := int32(-1), 0
	var bestScore int64
	for _, fl := range f.class.eligible {
		v := &f.in.flavours[fl]
		if f.left[fl] == 0 || v.grouped && f.queue[fl].n == 0 || !fits(v.demand, f.free) {
			continue
		}
		bins := 0
		if f.rule.urgent {
			bins = v.bins
		}
		s := f.score(v.size)
		if best < 0 || bins < bestBins || bins == bestBins && s > bestScore {
			best, bestBins, bestScore = fl, bins, s
		}
	}
	return best
}

func fits(demand, free []int64) bool {
	for d, want := range demand {
		if want > free[d] {
			return false
		}
	}
	return true
}

// score of a size in the room that the bin has left.
func (f *filler) score(size []int64) (s int64) {
	switch f.rule.score {
	case byDot:
		for d, v := range size {
			s += f.weight[d] * v * f.room[d]
		}
	case byNorm:
		for d, v := range size {
			s -= f.weight[d] * (f.room[d] - v) * (f.room[d] - v)
		}
	case bySum:
		for d, v := range size {
			s += f.weight[d] * v
		}
	default:
		s = math.MinInt64
		for d, v := range size {
			s = max(s, f.weight[d]*v)
		}
	}
	return s
}

// take puts one item of a flavour into the bin, of the member with most items left. It fails if
// the flavour has no member that may go there or the bin has no room.
func (f *filler) take(fl int32, bin *openBin) bool {
	v := &f.in.flavours[fl]
	if f.left[fl] == 0 || !fits(v.demand, f.free) {
		return false
	}
	item := int32(-1)
	if v.grouped {
		item = f.member(fl)
	} else {
		for f.out.left[v.members[f.next[fl]]] == 0 {
			f.next[fl]++
		}
		item = v.members[f.next[fl]]
	}
	if item < 0 {
		return false
	}
	bin.items = append(bin.items, item)
	f.out.left[item]--
	f.out.rest--
	f.left[fl]--
	for d, want := range v.demand {
		f.free[d] -= want
		f.room[d] -= v.size[d]
	}
	return true
}
