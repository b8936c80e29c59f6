package admission

import (
	"cmp"
	"math"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// leaf is how many hosts the smallest part of the index has: few, as each of them is looked at, and more than one, as
// every part above costs memory and time when a host changes.
const leaf = 8

// index finds the host for an instance without asking all of them: a tree over the hosts, whose every part knows the most that
// one host in it has of each dimension, so that a part in which nobody can do better is left out as a whole. It answers with the
// same rank as asking everybody would.
type index struct {
	dims int
	// order has the hosts, alike ones beside each other, so that what a part knows is close to what one of its hosts has; place
	// says where a host is in it. Hosts that take nothing are in it, and count as having nothing.
	order, place []int
	// leaves is how many parts the lowest level has, a power of two. Part 1 is the whole, those of part p are 2p and 2p+1.
	leaves int
	// most of each part: free now, free beside all obligations, left for what preempted leases keep; by dimension.
	most []int64
	// offers of each part: a bit for each kind of host in it, by networks and pools. Of more than 64 kinds some share a bit.
	offers []uint64
	// kinds has one host of each kind.
	kinds []int
}

// newIndex makes the index of all hosts as they are.
func newIndex(l *Lender) *index {
	n := len(l.s.Hosts)
	x := &index{dims: l.dims, order: make([]int, n), place: make([]int, n), leaves: 1}
	for x.leaves*leaf < n {
		x.leaves *= 2
	}
	x.most, x.offers = make([]int64, 2*x.leaves*3*x.dims), make([]uint64, 2*x.leaves)
	kind := x.sort(l)
	for at, h := range x.order {
		x.place[h] = at
		x.offers[x.leaves+at/leaf] |= 1 << (kind[h] % 64)
	}
	for p := x.leaves; p < 2*x.leaves; p++ {
		x.count(l, p)
	}
	for p := x.leaves - 1; p > 0; p-- {
		x.sum(p)
		x.offers[p] = x.offers[2*p] | x.offers[2*p+1]
	}
	return x
}

// sort puts alike hosts beside each other, and returns the kind of each.
func (x *index) sort(l *Lender) []int {
	hosts := l.s.Hosts
	for h := range x.order {
		x.order[h] = h
	}
	slices.SortFunc(x.order, func(a, b int) int {
		return cmp.Or(compareOffers(&hosts[a], &hosts[b]),
			// Devices first: of them most hosts have none.
			compareBackwards(hosts[a].Capacity, hosts[b].Capacity), cmp.Compare(a, b))
	})
	kind := make([]int, len(hosts))
	for at, h := range x.order {
		if at == 0 || compareOffers(&hosts[x.order[at-1]], &hosts[h]) != 0 {
			x.kinds = append(x.kinds, h)
		}
		kind[h] = len(x.kinds) - 1
	}
	return kind
}

// compareOffers orders hosts by what they reach.
func compareOffers(a, b *guarantee.Host) int {
	return cmp.Or(slices.Compare(a.Networks, b.Networks), slices.Compare(a.Pools, b.Pools))
}

// compareBackwards orders vectors by their last dimension first.
func compareBackwards(a, b guarantee.Vector) int {
	for d := max(len(a), len(b)) - 1; d >= 0; d-- {
		if c := cmp.Compare(a.At(d), b.At(d)); c != 0 {
			return c
		}
	}
	return 0
}

// clone is the same, and changes alone.
func (x *index) clone() *index {
	out := *x
	out.most = slices.Clone(x.most)
	return &out
}

// update brings a host's parts up to date.
func (x *index) update(l *Lender, h int) {
	p := x.leaves + x.place[h]/leaf
	x.count(l, p)
	for p /= 2; p > 0; p /= 2 {
		x.sum(p)
	}
}

// of returns what a part has the most of.
func (x *index) of(p int) []int64 { return x.most[p*3*x.dims : (p+1)*3*x.dims] }

// hosts returns the hosts of a part of the lowest level.
func (x *index) hosts(p int) []int {
	from := min((p-x.leaves)*leaf, len(x.order))
	return x.order[from:min(from+leaf, len(x.order))]
}

// count asks each host of a part of the lowest level.
func (x *index) count(l *Lender, p int) {
	most := x.of(p)
	for i := range most {
		most[i] = math.MinInt64
	}
	for _, h := range x.hosts(p) {
		if l.s.Hosts[h].State != guarantee.Usable {
			continue
		}
		for d := range x.dims {
			most[d] = max(most[d], l.free(h, d))
			most[x.dims+d] = max(most[x.dims+d], l.calm(h, d))
			most[2*x.dims+d] = max(most[2*x.dims+d], l.left(h, d))
		}
	}
}

// sum asks the two halves of a part.
func (x *index) sum(p int) {
	most, a, b := x.of(p), x.of(2*p), x.of(2*p+1)
	for i := range most {
		most[i] = max(a[i], b[i])
	}
}

// search looks for the best host for an instance.
type search struct {
	l *Lender
	v *guarantee.Instance
	// offers are the kinds of hosts that reach all that it needs.
	offers uint64
	best   int
	top    rank
}

func newSearch(l *Lender, v *guarantee.Instance) *search {
	s := &search{l: l, v: v, best: -1}
	for k, h := range l.index.kinds {
		if reaches(v, &l.s.Hosts[h]) {
			s.offers |= 1 << (k % 64)
		}
	}
	return s
}

// promise returns the best rank that a host of a part can have, and whether any can take the instance at all.
func (s *search) promise(p int) (rank, bool) {
	x := s.l.index
	most, dims := x.of(p), x.dims
	if x.offers[p]&s.offers == 0 {
		return rank{}, false
	}
	best := rank{true, most[1]}
	for d, want := range s.v.Demand {
		if want > 0 {
			if want > most[d] {
				return rank{}, false
			}
			best.quiet = best.quiet && want <= most[dims+d]
		}
	}
	for d, want := range s.v.Residue {
		if want > 0 && want > most[2*dims+d] {
			return rank{}, false
		}
	}
	return best, s.best < 0 || best.above(s.top)
}

// visit looks through a part, first through the half that promises more.
func (s *search) visit(p int) {
	if p >= s.l.index.leaves {
		for _, h := range s.l.index.hosts(p) {
			s.ask(h)
		}
		return
	}
	first, second := 2*p, 2*p+1
	a, ok := s.promise(first)
	b, also := s.promise(second)
	if also && (!ok || b.above(a)) {
		first, second, ok, also = second, first, also, ok
	}
	if ok {
		s.visit(first)
	}
	if !also {
		return
	}
	if _, still := s.promise(second); still {
		s.visit(second)
	}
}

// ask takes a host if it is better than the best so far. Networks and the time to reclaim come last, as they cost most.
func (s *search) ask(h int) {
	l, v := s.l, s.v
	at := rank{true, l.free(h, 1)}
	if s.best >= 0 && !at.above(s.top) || !l.hasRoom(h, v) {
		return
	}
	at.quiet = l.quiet(h, v)
	if (s.best < 0 || at.above(s.top)) && l.suits(h, v) {
		s.best, s.top = h, at
	}
}
