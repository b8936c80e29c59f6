package proof

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// nowhere is the host of an item that is not placed.
const nowhere = -1

// maxColumns is the width of the sets of scenarios; a site with more is not proven.
const maxColumns = 64

// index is the site in numbers. A column is one dimension in one scenario: a host's load is counted
// in each scenario apart, so that one placement serves all of them.
type index struct {
	s         *guarantee.Site
	scenarios []guarantee.Scenario
	dims      int
	width     int

	room   []int64 // by host and dimension: without lending share and firm leases
	usable []bool
	gone   []bool  // hosts that are lost
	domain []int32 // a host without a failure domain has one of its own
	alone  []bool  // it has none
	offer  []int32
	shift  []uint // by dimension: makes amounts comparable

	items     []item
	itemOf    []int32 // by workload; nowhere if no scenario runs it
	flavours  []flavour
	groups    []group
	needs     []needs
	offers    []needs
	reachable [][]bool // by needs and offer
}

// item is what is placed as one: a workload, or several that keep together.
type item struct {
	flavour int32
	// home is where it runs and stays; whole: nothing of it is new there.
	home    int32
	whole   bool
	members []int32
	groups  []int32
	// What is new at home: its groups, and whether it may not be there.
	fresh []int32
	never bool
}

// isNew says whether what an item has of a group is new on a host: it does not run there.
func (it *item) isNew(group, h int32) bool { return it.home != h || slices.Contains(it.fresh, group) }

// flavour is what equal items have in common.
type flavour struct {
	demand []int64 // by column
	needs  int32
	size   int64
	// runs is the set of scenarios.
	runs uint64
	// never: its own members keep apart and together.
	never bool
}

type group struct {
	domain  bool
	members []int32
}

// needs is what a workload asks of its host besides room, or what a host offers.
type needs struct{ labels, networks, pools []string }

func (n needs) within(o needs) bool {
	return within(n.labels, o.labels) && within(n.networks, o.networks) && within(n.pools, o.pools)
}

func within(a, b []string) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

func (n needs) key(buf []byte) []byte {
	for _, list := range [][]string{n.labels, n.networks, n.pools} {
		for _, x := range list {
			buf = append(append(buf, x...), 1)
		}
		buf = append(buf, 2)
	}
	return buf
}

// ordered has each list sorted, so that equal needs have equal keys.
func ordered(n needs) needs {
	for _, list := range []*[]string{&n.labels, &n.networks, &n.pools} {
		if !slices.IsSorted(*list) {
			*list = slices.Sorted(slices.Values(*list))
		}
	}
	return n
}

func newIndex(s *guarantee.Site, scenarios []guarantee.Scenario) *index {
	ix := &index{s: s, scenarios: scenarios, dims: len(s.Dimensions)}
	ix.width = ix.dims * len(scenarios)
	names := ix.hosts()
	for i := range s.Firm {
		if h, ok := names[s.Firm[i].Host]; ok {
			for d := range ix.dims {
				at := int(h)*ix.dims + d
				ix.room[at] = guarantee.Add(ix.room[at], -s.Firm[i].Demand.At(d))
			}
		}
	}
	ix.scale()
	b := &builder{ix: ix, names: names, flavours: map[string]int32{}, needs: map[string]int32{}, groups: map[guarantee.Apart]int32{}}
	b.build()
	for _, n := range ix.needs {
		row := make([]bool, len(ix.offers))
		for o := range ix.offers {
			row[o] = n.within(ix.offers[o])
		}
		ix.reachable = append(ix.reachable, row)
	}
	return ix
}

func (ix *index) hosts() map[string]int32 {
	names := make(map[string]int32, len(ix.s.Hosts))
	domains := map[string]int32{}
	offers := map[string]int32{}
	ix.room = make([]int64, len(ix.s.Hosts)*ix.dims)
	var buf []byte
	for i := range ix.s.Hosts {
		h := &ix.s.Hosts[i]
		names[h.Name] = int32(i)
		for d := range ix.dims {
			ix.room[i*ix.dims+d] = h.Capacity.At(d) - h.Lending.At(d)
		}
		ix.usable = append(ix.usable, h.State == guarantee.Usable)
		ix.gone = append(ix.gone, h.State == guarantee.Lost)
		ix.alone = append(ix.alone, h.FailureDomain == "")
		n, known := domains[h.FailureDomain]
		if !known || h.FailureDomain == "" {
			n = int32(i)
			domains[h.FailureDomain] = n
		}
		ix.domain = append(ix.domain, n)
		offer := ordered(needs{h.Labels, h.Networks, h.Pools})
		buf = offer.key(buf[:0])
		o, known := offers[string(buf)]
		if !known {
			o = int32(len(ix.offers))
			offers[string(buf)] = o
			ix.offers = append(ix.offers, offer)
		}
		ix.offer = append(ix.offer, o)
	}
	return names
}

// comparable amounts have at most so many bits.
const scaledBits = 16

func (ix *index) scale() {
	for d := range ix.dims {
		var most int64
		for h := range ix.s.Hosts {
			most = max(most, ix.room[h*ix.dims+d])
		}
		ix.shift = append(ix.shift, uint(max(bits.Len64(uint64(most))-scaledBits, 0)))
	}
}

// roomOf is the room of a host by dimension.
func (ix *index) roomOf(h int32) []int64 { return ix.room[int(h)*ix.dims : (int(h)+1)*ix.dims] }

// reaches says whether a host has what an item needs besides room.
func (ix *index) reaches(it, h int32) bool {
	f := &ix.flavours[ix.items[it].flavour]
	return !f.never && ix.reachable[f.needs][ix.offer[h]]
}

// holds says whether an empty host has room for an item.
func (ix *index) holds(it, h int32) bool {
	room, demand := ix.roomOf(h), ix.flavours[ix.items[it].flavour].demand
	for c, n := range demand {
		if n > 0 && n > room[c%ix.dims] {
			return false
		}
	}
	return true
}

// builder makes the items.
type builder struct {
	ix       *index
	names    map[string]int32
	flavours map[string]int32
	needs    map[string]int32
	groups   map[guarantee.Apart]int32
	buf      []byte
}

// unitOf gathers the workloads that keep together.
type unitOf struct {
	members []int32
	home    int32
	apart   bool // they run on several hosts already
	whole   bool
}

func (b *builder) build() {
	ix := b.ix
	ix.itemOf = make([]int32, len(ix.s.Workloads))
	units := map[string]*unitOf{}
	for i := range ix.s.Workloads {
		ix.itemOf[i] = nowhere
		w := &ix.s.Workloads[i]
		if w.Together == "" {
			continue
		}
		u := units[w.Together]
		if u == nil {
			u = &unitOf{home: nowhere, whole: true}
			units[w.Together] = u
		}
		home := b.home(w)
		u.apart = u.apart || home >= 0 && u.home >= 0 && home != u.home
		u.home = max(u.home, home)
		if home < 0 && b.runs(w) != 0 {
			u.whole = false
		}
		if b.runs(w) != 0 {
			u.members = append(u.members, int32(i))
		}
	}
	ix.items = make([]item, 0, len(ix.s.Workloads))
	alone := make([]int32, len(ix.s.Workloads)) // One for all: most keep together with nobody.
	for i := range ix.s.Workloads {
		w := &ix.s.Workloads[i]
		u := units[w.Together]
		switch {
		case b.runs(w) == 0:
		case u == nil || u.apart:
			alone[i] = int32(i)
			b.add(alone[i:i+1:i+1], b.home(w), true)
		case u.members[0] == int32(i):
			b.add(u.members, u.home, u.whole)
		}
	}
}

func (b *builder) home(w *guarantee.Workload) int32 {
	if w.Host == "" {
		return nowhere
	}
	if h, ok := b.names[w.Host]; ok && !b.ix.gone[h] {
		return h
	}
	return nowhere
}

// runs is the set of scenarios that run a workload: all of them if it runs already.
func (b *builder) runs(w *guarantee.Workload) (set uint64) {
	if b.home(w) >= 0 {
		return 1<<len(b.ix.scenarios) - 1
	}
	for n, sc := range b.ix.scenarios {
		if sc.Covers(w.Plan) {
			set |= 1 << n
		}
	}
	return set
}

// add makes one item.
func (b *builder) add(members []int32, home int32, whole bool) {
	ix := b.ix
	it := item{home: home, whole: whole, members: members}
	f := flavour{demand: make([]int64, ix.width)}
	var need needs
	for _, m := range members {
		w := &ix.s.Workloads[m]
		ix.itemOf[m] = int32(len(ix.items))
		b.demand(&f, w)
		if len(members) == 1 {
			need = needs{w.Labels, w.Networks, w.Pools}
		} else {
			need = needs{slices.Concat(need.labels, w.Labels), slices.Concat(need.networks, w.Networks), slices.Concat(need.pools, w.Pools)}
		}
		for _, g := range w.Apart {
			n := b.group(g)
			f.never = f.never || slices.Contains(it.groups, n)
			it.groups = append(it.groups, n)
			ix.groups[n].members = append(ix.groups[n].members, int32(len(ix.items)))
		}
	}
	if home >= 0 && !whole {
		b.joins(&it)
	}
	f.needs = b.need(need)
	it.flavour = b.flavour(f)
	ix.items = append(ix.items, it)
}

// demand adds a workload to a flavour, in the columns of the scenarios that run it.
func (b *builder) demand(f *flavour, w *guarantee.Workload) {
	runs := b.runs(w)
	f.runs |= runs
	for n := range b.ix.scenarios {
		if runs>>n&1 == 0 {
			continue
		}
		for d := range b.ix.dims {
			c := n*b.ix.dims + d
			f.demand[c] = guarantee.Add(f.demand[c], max(w.Demand.At(d), 0))
		}
	}
}

// joins says what is new of an item at its home, and whether that may be there.
func (b *builder) joins(it *item) {
	ix := b.ix
	count := map[int32]int{}
	for _, n := range it.groups {
		count[n]++
	}
	for _, m := range it.members {
		w := &ix.s.Workloads[m]
		if b.home(w) >= 0 {
			continue
		}
		n := needs{w.Labels, w.Networks, w.Pools}
		it.never = it.never || !ix.usable[it.home] || !n.within(ix.offers[ix.offer[it.home]])
		for _, g := range w.Apart {
			n := b.group(g)
			it.fresh = append(it.fresh, n)
			it.never = it.never || count[n] > 1
		}
	}
}

func (b *builder) group(g guarantee.Apart) int32 {
	n, known := b.groups[g]
	if !known {
		n = int32(len(b.ix.groups))
		b.groups[guarantee.Apart{Group: strings.Clone(g.Group), Domain: g.Domain}] = n
		b.ix.groups = append(b.ix.groups, group{domain: g.Domain})
	}
	return n
}

func (b *builder) need(n needs) int32 {
	n = ordered(n)
	b.buf = n.key(b.buf[:0])
	id, known := b.needs[string(b.buf)]
	if !known {
		id = int32(len(b.ix.needs))
		b.needs[string(b.buf)] = id
		b.ix.needs = append(b.ix.needs, n)
	}
	return id
}

func (b *builder) flavour(f flavour) int32 {
	b.buf = binary.AppendVarint(b.buf[:0], int64(f.needs))
	b.buf = binary.AppendUvarint(b.buf, f.runs)
	for _, n := range f.demand {
		b.buf = binary.AppendVarint(b.buf, n)
	}
	if f.never {
		b.buf = append(b.buf, 1)
	}
	id, known := b.flavours[string(b.buf)]
	if !known {
		for c, n := range f.demand {
			f.size = guarantee.Add(f.size, n>>b.ix.shift[c%b.ix.dims])
		}
		id = int32(len(b.ix.flavours))
		b.flavours[string(b.buf)] = id
		b.ix.flavours = append(b.ix.flavours, f)
	}
	return id
}
