package proof

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// maxLosses and maxPatterns bound what is proven at one time; a site that needs more is not proven.
const (
	maxLosses   = 8
	maxPatterns = 20_000
)

// unit is what is lost at one time: a host or a failure domain.
type unit struct {
	hosts []int32
	class int32
}

// class is a number of units that are equal when they are lost. Units that something runs on are each
// their own class: they never stand in for another.
type class struct {
	units []int32
	// shapes of the hosts of a domain, sorted.
	shapes       []int32
	spare, clean bool
	size         int64
	offers       int
}

// losses are the units of one sort with the classes and the dominance among them.
type losses struct {
	ix    *index
	sort  guarantee.Unit
	units []unit
	class []class
	// unitAt is the unit of each host; nowhere if losing it changes nothing.
	unitAt []int32
	// by host
	shape  []int32
	spread []bool
	runs   []bool
	clean  []bool
}

func newLosses(ix *index, sort guarantee.Unit) *losses {
	l := &losses{ix: ix, sort: sort, runs: make([]bool, len(ix.s.Hosts)), spread: make([]bool, len(ix.s.Hosts))}
	l.shapes()
	l.runners()
	l.findUnits()
	return l
}

// shapes numbers hosts with equal room and offer, and says on which shapes something may be that is
// spread over failure domains.
func (l *losses) shapes() {
	ix := l.ix
	seen := map[string]int32{}
	var spread []bool
	spreaders := l.spreaders()
	var buf []byte
	for h := range int32(len(ix.s.Hosts)) {
		buf = binary.AppendVarint(buf[:0], int64(ix.offer[h]))
		for _, n := range ix.roomOf(h) {
			buf = binary.AppendVarint(buf, n)
		}
		n, known := seen[string(buf)]
		if !known {
			n = int32(len(spread))
			seen[string(buf)] = n
			spread = append(spread, slices.ContainsFunc(spreaders, func(m int32) bool { return l.mayCarry(m, h) }))
		}
		l.shape = append(l.shape, n)
		l.spread[h] = spread[n]
	}
}

// spreaders are the workloads that are spread over failure domains, one of each kind.
func (l *losses) spreaders() (out []int32) {
	seen := map[int32]bool{}
	for i := range l.ix.items {
		it := &l.ix.items[i]
		if len(it.members) == 1 && seen[it.flavour] {
			continue
		}
		for _, m := range it.members {
			if slices.ContainsFunc(l.ix.s.Workloads[m].Apart, func(a guarantee.Apart) bool { return a.Domain }) {
				out = append(out, m)
				seen[it.flavour] = seen[it.flavour] || len(it.members) == 1
			}
		}
	}
	return out
}

// mayCarry says whether a workload might be on a host.
func (l *losses) mayCarry(m, h int32) bool {
	w := &l.ix.s.Workloads[m]
	for d, n := range l.ix.roomOf(h) {
		if want := w.Demand.At(d); want > 0 && want > n { // Nothing fits where there is less than nothing.
			return false
		}
	}
	return needs{w.Labels, w.Networks, w.Pools}.within(l.ix.offers[l.ix.offer[h]])
}

// runners notes what runs where, and whether it could be placed like that: only then it may move as a block.
func (l *losses) runners() {
	ix := l.ix
	l.clean = slices.Repeat([]bool{true}, len(ix.s.Hosts))
	for i := range ix.items {
		it := &ix.items[i]
		if it.home < 0 {
			continue
		}
		l.runs[it.home] = true
		for _, m := range it.members {
			w := &ix.s.Workloads[m]
			if !(needs{w.Labels, w.Networks, w.Pools}).within(ix.offers[ix.offer[it.home]]) {
				l.clean[it.home] = false
			}
		}
		for _, g := range it.groups {
			gr := &ix.groups[g]
			l.spread[it.home] = l.spread[it.home] || gr.domain
			for _, m := range gr.members {
				o := ix.items[m].home
				if int(m) != i && o >= 0 && (o == it.home || gr.domain && ix.domain[o] == ix.domain[it.home]) {
					l.clean[it.home] = false
				}
			}
		}
		if ix.flavours[it.flavour].never {
			l.clean[it.home] = false
		}
	}
}

// findUnits makes the units and their classes.
func (l *losses) findUnits() {
	ix := l.ix
	byDomain := map[int32]int{}
	l.unitAt = slices.Repeat([]int32{nowhere}, len(ix.s.Hosts))
	for h := range int32(len(ix.s.Hosts)) {
		if ix.gone[h] || !ix.usable[h] && !l.runs[h] {
			continue
		}
		n, known := byDomain[ix.domain[h]]
		if l.sort == guarantee.UnitHost || !known {
			n = len(l.units)
			byDomain[ix.domain[h]] = n
			l.units = append(l.units, unit{})
		}
		l.units[n].hosts = append(l.units[n].hosts, h)
		l.unitAt[h] = int32(n)
	}
	seen := map[string]int32{}
	for u := range l.units {
		c := l.classOf(&l.units[u])
		key := l.key(&c, &l.units[u], u)
		n, known := seen[string(key)]
		if !known {
			n = int32(len(l.class))
			seen[string(key)] = n
			l.class = append(l.class, c)
		}
		l.units[u].class = n
		l.class[n].units = append(l.class[n].units, int32(u))
	}
}

func (l *losses) classOf(u *unit) class {
	c := class{spare: true, clean: true}
	for _, h := range u.hosts {
		c.spare = c.spare && l.ix.usable[h] && !l.runs[h]
		c.clean = c.clean && l.clean[h]
		c.shapes = append(c.shapes, l.shape[h])
		for d, n := range l.ix.roomOf(h) {
			c.size += n >> l.ix.shift[d]
		}
		o := l.ix.offers[l.ix.offer[h]]
		c.offers += len(o.labels) + len(o.networks) + len(o.pools)
	}
	slices.Sort(c.shapes)
	return c
}

func (l *losses) key(c *class, u *unit, number int) (key []byte) {
	if !c.spare {
		return binary.AppendVarint(nil, int64(-1-number))
	}
	for _, s := range c.shapes {
		key = binary.AppendVarint(key, int64(s))
	}
	if h := u.hosts[0]; l.sort == guarantee.UnitHost && l.spread[h] {
		key = binary.AppendVarint(key, int64(l.ix.domain[h])) // A host without a domain has one of its own.
	}
	return key
}

// dominates says whether the load of class b may move to an empty unit of class a, as one block for
// each host: a's room and offer are at least b's, and so is the failure domain where that matters.
func (l *losses) dominates(a, b int32) bool {
	top, low := &l.class[a], &l.class[b]
	if !top.spare || !low.clean {
		return false
	}
	if a == b {
		return true
	}
	if l.sort == guarantee.UnitDomain {
		return multiset(top.shapes, low.shapes)
	}
	t, h := l.units[top.units[0]].hosts[0], l.units[low.units[0]].hosts[0]
	if l.spread[h] && l.ix.domain[t] != l.ix.domain[h] {
		return false
	}
	room, want := l.ix.roomOf(t), l.ix.roomOf(h)
	for d := range want {
		if want[d] > room[d] {
			return false
		}
	}
	return l.ix.offer[t] == l.ix.offer[h] || l.ix.offers[l.ix.offer[h]].within(l.ix.offers[l.ix.offer[t]])
}

// multiset says whether b is contained in a. Both are sorted.
func multiset(a, b []int32) bool {
	for len(b) > 0 {
		i, found := slices.BinarySearch(a, b[0])
		if !found {
			return false
		}
		a, b = a[i+1:], b[1:]
	}
	return true
}

// undominated lists the classes that matter when so many units are lost: not those that another
// dominates which has as many units, as one of them is always left.
func (l *losses) undominated(losses int) []int32 {
	order := make([]int32, len(l.class))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		x, y := &l.class[a], &l.class[b]
		return cmp.Or(cmp.Compare(y.size, x.size), cmp.Compare(y.offers, x.offers), boolFirst(x.spare, y.spare))
	})
	var out []int32
	for _, c := range order {
		if !slices.ContainsFunc(out, func(o int32) bool { return len(l.class[o].units) >= losses && l.dominates(o, c) }) {
			out = append(out, c)
		}
	}
	return out
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// patterns lists the undominated ways to lose so many units, as classes; false if there are too many.
func (l *losses) patterns(losses int) ([][]int32, bool) {
	classes := l.undominated(losses)
	left := make(map[int32]int, len(classes))
	for _, c := range classes {
		left[c] = len(l.class[c].units)
	}
	var out [][]int32
	var taken []int32
	ok := true
	var choose func(from int)
	choose = func(from int) {
		if !ok {
			return
		}
		if len(taken) == losses {
			if l.maximal(taken, classes, left) {
				out = append(out, slices.Clone(taken))
				ok = len(out) <= maxPatterns
			}
			return
		}
		for i := from; i < len(classes); i++ {
			if left[classes[i]] == 0 {
				continue
			}
			left[classes[i]]--
			taken = append(taken, classes[i])
			choose(i)
			taken = taken[:len(taken)-1]
			left[classes[i]]++
		}
	}
	choose(0)
	return out, ok
}

// maximal says whether no class of a pattern could be exchanged for one that dominates it.
func (l *losses) maximal(taken, classes []int32, left map[int32]int) bool {
	for _, b := range taken {
		for _, a := range classes {
			if a != b && left[a] > 0 && l.dominates(a, b) {
				return false
			}
		}
	}
	return true
}
