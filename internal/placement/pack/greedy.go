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

// better says whether a packing has fewer items without a bin, or as few in fewer bins.
func (p *packing) better(q *packing) bool {
	return q == nil || cmp.Or(cmp.Compare(p.rest, q.rest), cmp.Compare(len(p.bins), len(q.bins))) < 0
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

// rules are those of the portfolio that may differ from each other on this problem.
func (in *instance) rules() []rule {
	return slices.DeleteFunc(portfolio(), func(r rule) bool {
		return r.urgent && !in.choosy() || r.rounds > 1 && len(in.classes) < 2
	})
}

// choosy says whether some flavours have fewer bins to go to than others.
func (in *instance) choosy() bool {
	return slices.ContainsFunc(in.flavours, func(f flavour) bool { return f.bins != in.flavours[0].bins })
}

// mostLooks bounds the flavours that are compared for one place. If there are more, the largest are
// compared, and some of the others. With very many flavours fewer are compared, so
// that one rule takes allLooks in all.
const (
	mostLooks  = 2000
	leastLooks = 20
	allLooks   = 60_000_000 // by the dimensions and four
	hastyLooks = 8          // when the time is up
)

// sweep is how many flavours have nothing left before they are taken out of the list.
const sweep = 256

// filler fills bin after bin. Identical bins repeat a pattern until one of its flavours runs out.
type filler struct {
	in     *instance
	rule   rule
	out    *packing
	left   []int   // by flavour
	total  []int64 // normalised demand that is left, by dimension
	weight []int64
	class  *binClass
	// eligible flavours of the class that may have items left; gone of them have none.
	eligible []int32
	gone     int
	// most flavours are compared for one place.
	most int
	// stop asks to come to an end: by placing the rest in haste, or by giving up.
	stop      func() bool
	hasty     bool
	abandoned bool
	free      []int64 // of the bin that is being filled
	room      []int64 // the same, normalised
	next      []int   // first member of a flavour with items left, without groups
	queue     []queue // by flavour, with groups
	// waiting are the flavours with members that wait for the next bin.
	waiting []int32
	steps   int
	// taken is the serial number of the last bin that took an item of a group.
	taken  []int32
	serial int32
	// domains that a group has used, by group.
	domains map[int32][]int
}

func newFiller(in *instance, r rule) *filler {
	f := &filler{
		in: in, rule: r, out: in.empty(),
		left: make([]int, len(in.flavours)), total: make([]int64, in.dims), weight: make([]int64, in.dims),
		next: make([]int, len(in.flavours)), queue: make([]queue, len(in.flavours)), taken: make([]int32, len(in.spread)), domains: make(map[int32][]int),
		free: make([]int64, in.dims), room: make([]int64, in.dims),
		most: min(mostLooks, max(leastLooks, allLooks/max(len(in.flavours), 1)/(in.dims+4))),
	}
	for _, it := range in.items {
		if it.flavour >= 0 {
			f.left[it.flavour] += it.count
			for d, s := range in.flavours[it.flavour].size {
				f.total[d] += s * int64(it.count)
			}
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
	f.eligible = append(f.eligible[:0], f.class.eligible...)
	f.gone = sweep
	if len(f.eligible) > f.most {
		slices.SortStableFunc(f.eligible, func(a, b int32) int {
			return cmp.Compare(f.in.flavours[b].whole, f.in.flavours[a].whole)
		})
	}
	for _, fl := range f.eligible {
		if f.in.flavours[fl].grouped {
			f.queue[fl] = f.members(fl)
		}
	}
	var pattern []int32
	for range n {
		if f.out.rest == 0 || f.late() {
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
			pattern = f.search(&bin, pattern)
		}
		for _, fl := range f.waiting {
			f.queue[fl].giveBack(f.out.left)
		}
		f.waiting = f.waiting[:0]
		if len(bin.items) == 0 {
			return
		}
		f.out.bins = append(f.out.bins, bin)
	}
}

// search fills up a bin with the best flavours and gives what is in it then, for the next bins to repeat.
func (f *filler) search(bin *openBin, pattern []int32) []int32 {
	if f.gone >= sweep || len(f.eligible) <= mostLooks {
		f.eligible = slices.DeleteFunc(f.eligible, func(fl int32) bool { return f.left[fl] == 0 })
		f.gone = 0
	}
	f.weigh()
	for fl := f.choose(bin); fl >= 0 && !f.late(); fl = f.choose(bin) {
		f.take(fl, bin) // or none of the flavour may go there, and it is not chosen again
	}
	pattern = pattern[:0]
	for _, item := range bin.items {
		pattern = append(pattern, f.in.items[item].flavour)
	}
	return pattern
}

// members are the item classes of a flavour that have items left.
func (f *filler) members(fl int32) queue {
	q := queue{}
	for _, m := range f.in.flavours[fl].members {
		if f.out.left[m] > 0 {
			q.push(m, f.out.left[m])
		}
	}
	return q
}

// weigh sets the weights of the dimensions from what is left to place.
func (f *filler) weigh() {
	most := max(1, slices.Max(append(f.total, 0)))
	for d, n := range f.total {
		share := int64(float64(n) / float64(most) * 1024)
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

// late says whether to give up; whoever may not give up goes on in haste.
func (f *filler) late() bool {
	if f.stop == nil || !f.stop() {
		return false
	}
	if f.hasty {
		f.most = min(f.most, hastyLooks)
		return false
	}
	f.abandoned = true
	return true
}

// choose is the flavour with the best score that fits into the bin, or -1.
func (f *filler) choose(bin *openBin) int32 {
	best, bestBins := int32(-1), 0
	var bestScore int64
	looks, step := 0, 1
	for i := 0; i < len(f.eligible); i += step {
		if looks == f.most/2 && len(bin.items) > 0 {
			step = max(1, 2*(len(f.eligible)-i)/f.most) // Some of every size: one of them fills the bin best.
		}
		fl := f.eligible[i]
		if f.left[fl] == 0 {
			continue
		}
		if looks++; looks > f.most && best >= 0 {
			break
		}
		v := &f.in.flavours[fl]
		if v.grouped && f.queue[fl].n == 0 || !fits(v.demand, f.free) {
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
	f.steps += looks
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
	var item int32
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
	if f.left[fl]--; f.left[fl] == 0 {
		f.gone++
	}
	for d, want := range v.demand {
		f.free[d] -= want
		f.room[d] -= v.size[d]
		f.total[d] -= v.size[d]
	}
	return true
}
