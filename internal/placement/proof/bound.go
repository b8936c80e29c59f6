package proof

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// boundPatterns and boundSizes bound how many patterns and sizes are looked at for a lower bound.
const (
	boundPatterns = 64
	boundSizes    = 64
)

// bound looks for a reason why no placement exists: for a pattern and a scenario, what must be
// missing whatever goes where.
func (p *prover) bound() {
	if p.missing != nil {
		return
	}
	all := append([]*pattern{nil}, p.patterns[:min(len(p.patterns), boundPatterns)]...)
	for _, q := range all {
		for n := range p.scenarios {
			if q != nil && q.scenarios>>n&1 == 0 {
				continue
			}
			c := newCase(p, q, n)
			if m := c.missing(); m != nil {
				if q != nil {
					m.Why = "without " + p.lost(q) + " " + m.Why
				}
				m.Scenario = p.scenarios[n].Name
				p.missing = m
				return
			}
		}
	}
}

// boundCase is one scenario in one pattern.
type boundCase struct {
	p     *prover
	n     int
	lost  []bool
	room  []int64 // beside what stays
	items []int32 // to be placed
	stays []int32
	// host that runs more than it has; nowhere if none does.
	overfull, dimension int32
}

func newCase(p *prover, q *pattern, n int) *boundCase {
	ix := p.ix
	c := &boundCase{p: p, n: n, lost: make([]bool, len(ix.s.Hosts)), room: slices.Clone(ix.room), overfull: nowhere}
	if q != nil {
		if len(q.spares) == 0 {
			q.choose(newBoard(ix))
		}
		for _, hosts := range q.spares {
			for _, h := range hosts {
				c.lost[h] = true
			}
		}
	}
	for i := range ix.items {
		it := &ix.items[i]
		switch {
		case ix.flavours[it.flavour].runs>>n&1 == 0:
		case it.home >= 0 && !c.lost[it.home]:
			c.stays = append(c.stays, int32(i))
			for d, want := range c.demand(int32(i)) {
				at := int(it.home)*ix.dims + d
				c.room[at] -= want
				if want > 0 && c.room[at] < 0 {
					c.overfull, c.dimension = it.home, int32(d)
				}
			}
		default:
			c.items = append(c.items, int32(i))
		}
	}
	return c
}

// demand of an item in the scenario, by dimension.
func (c *boundCase) demand(it int32) []int64 {
	f := &c.p.ix.flavours[c.p.ix.items[it].flavour]
	return f.demand[c.n*c.p.ix.dims : (c.n+1)*c.p.ix.dims]
}

func (c *boundCase) open(h int32) bool { return c.p.ix.usable[h] && !c.lost[h] }

func (c *boundCase) missing() *guarantee.Missing {
	if h := c.overfull; h >= 0 {
		dimension := c.p.ix.s.Dimensions[c.dimension]
		return &guarantee.Missing{
			Plan: c.planOf(c.stays[slices.IndexFunc(c.stays, func(it int32) bool { return c.p.ix.items[it].home == h })]), Dimension: dimension,
			Amount: -c.room[int(h)*c.p.ix.dims+int(c.dimension)], Why: "host " + c.p.ix.s.Hosts[h].Name + " runs more than it has",
		}
	}
	for _, find := range []func() *guarantee.Missing{c.nowhereToGo, c.tooMuch, c.tooLarge, c.tooClose} {
		if m := find(); m != nil {
			return m
		}
	}
	return nil
}

func (c *boundCase) planOf(it int32) string {
	return c.p.ix.s.Workloads[c.p.ix.items[it].members[0]].Plan
}

// nowhereToGo finds an item that no host could take even if nothing else had to be placed.
func (c *boundCase) nowhereToGo() *guarantee.Missing {
	ix := c.p.ix
	done := map[int32]bool{}
	for _, it := range c.items {
		f := ix.items[it].flavour
		if done[f] {
			continue
		}
		done[f] = true
		best, dimension, amount := int64(math.MaxInt64), -1, int64(0)
		for h := range int32(len(ix.s.Hosts)) {
			if !c.open(h) || !ix.reaches(it, h) {
				continue
			}
			short, d, n := c.shortage(it, h)
			if short < best {
				best, dimension, amount = short, d, n
			}
		}
		w := &ix.s.Workloads[ix.items[it].members[0]]
		switch {
		case best == math.MaxInt64:
			return &guarantee.Missing{Plan: w.Plan, Dimension: "hosts", Amount: 1, Why: c.p.describe(w) + " fits on no host: no usable one has " + c.wants(it)}
		case best > 0:
			return &guarantee.Missing{Plan: w.Plan, Dimension: ix.s.Dimensions[dimension], Amount: amount, Why: c.p.describe(w) + " fits on no host"}
		}
	}
	return nil
}

// shortage of a host for an item: all of it in comparable amounts, and the dimension that lacks most.
func (c *boundCase) shortage(it, h int32) (sum int64, dimension int, amount int64) {
	most := int64(-1)
	for d, want := range c.demand(it) {
		lack := want - c.room[int(h)*c.p.ix.dims+d]
		if want == 0 || lack <= 0 {
			continue
		}
		size := lack>>c.p.ix.shift[d] + 1
		sum = guarantee.Add(sum, size)
		if size > most {
			most, dimension, amount = size, d, lack
		}
	}
	return min(sum, math.MaxInt64-1), dimension, amount
}

// wants says what an item asks of its host besides room.
func (c *boundCase) wants(it int32) string {
	n := c.p.ix.needs[c.p.ix.flavours[c.p.ix.items[it].flavour].needs]
	var out []string
	for _, kind := range []struct {
		word  string
		names []string
	}{{"label", n.labels}, {"network", n.networks}, {"pool", n.pools}} {
		for _, name := range kind.names {
			out = append(out, kind.word+" "+name)
		}
	}
	if len(out) == 0 {
		return "room"
	}
	return strings.Join(out, ", ")
}

// tooMuch finds a dimension in which the items that are confined to some hosts need more than these have.
func (c *boundCase) tooMuch() *guarantee.Missing {
	ix := c.p.ix
	for r := range ix.needs {
		var inside []int32
		for _, it := range c.items {
			if c.confined(ix.flavours[ix.items[it].flavour].needs, int32(r)) {
				inside = append(inside, it)
			}
		}
		if len(inside) == 0 {
			continue
		}
		room := make([]int64, ix.dims)
		for h := range int32(len(ix.s.Hosts)) {
			if c.open(h) && ix.reachable[r][ix.offer[h]] {
				for d := range room {
					room[d] = guarantee.Add(room[d], max(c.room[int(h)*ix.dims+d], 0))
				}
			}
		}
		for d := range room {
			if m := c.exceeds(inside, d, room[d]); m != nil {
				return m
			}
		}
	}
	return nil
}

// confined says whether every host that has needs a also has needs r.
func (c *boundCase) confined(a, r int32) bool {
	if a == r {
		return true
	}
	for o, ok := range c.p.ix.reachable[a] {
		if ok && !c.p.ix.reachable[r][o] {
			return false
		}
	}
	return true
}

// exceeds compares a sum with the room for it, and names the plan with which it is exceeded.
func (c *boundCase) exceeds(items []int32, d int, room int64) *guarantee.Missing {
	var sum int64
	for _, it := range items {
		sum = guarantee.Add(sum, c.demand(it)[d])
	}
	if sum <= room {
		return nil
	}
	rank := func(it int32) *guarantee.Workload { return &c.p.ix.s.Workloads[c.p.ix.items[it].members[0]] }
	slices.SortStableFunc(items, func(a, b int32) int {
		return cmp.Or(cmp.Compare(rank(a).Rank, rank(b).Rank), cmp.Compare(rank(a).Plan, rank(b).Plan))
	})
	var so int64
	for _, it := range items {
		if so = guarantee.Add(so, c.demand(it)[d]); so > room {
			name := c.p.ix.s.Dimensions[d]
			return &guarantee.Missing{Plan: c.planOf(it), Dimension: name, Amount: sum - room, Why: fmt.Sprintf("it takes %s and there is %s",
				guarantee.Quantity(name, sum), guarantee.Quantity(name, room))}
		}
	}
	return nil
}

// tooLarge counts, for each size, the items of at least that size and the places of that size.
func (c *boundCase) tooLarge() *guarantee.Missing {
	ix := c.p.ix
	for d := range ix.dims {
		items := slices.Clone(c.items)
		slices.SortStableFunc(items, func(a, b int32) int { return cmp.Compare(c.demand(b)[d], c.demand(a)[d]) })
		looked := 0
		for i, it := range items {
			size := c.demand(it)[d]
			if size <= 0 || looked == boundSizes {
				break
			}
			if i+1 < len(items) && c.demand(items[i+1])[d] == size {
				continue
			}
			looked++
			var places int64
			for h := range int32(len(ix.s.Hosts)) {
				if c.open(h) {
					places = guarantee.Add(places, max(c.room[int(h)*ix.dims+d], 0)/size)
				}
			}
			if n := int64(i + 1); n > places {
				w := ix.s.Workloads[ix.items[it].members[0]]
				return &guarantee.Missing{
					Plan: w.Plan, Dimension: ix.s.Dimensions[d], Amount: (n - places) * size,
					Why: fmt.Sprintf("%d workloads need %s each and there is room for %d", n, guarantee.Quantity(ix.s.Dimensions[d], size), places),
				}
			}
		}
	}
	return nil
}

// tooClose finds a group with more members than there are hosts or failure domains for them.
func (c *boundCase) tooClose() *guarantee.Missing {
	ix := c.p.ix
	waits := make([]bool, len(ix.items))
	for _, it := range c.items {
		waits[it] = true
	}
	for g := range ix.groups {
		places := map[int32]bool{}
		var members, free int64
		first := int32(nowhere)
		for _, it := range ix.groups[g].members {
			if !waits[it] {
				continue
			}
			members++
			first = it
			for h := range int32(len(ix.s.Hosts)) {
				if len(places) > len(ix.groups[g].members) {
					break
				}
				if c.open(h) && ix.reaches(it, h) {
					places[c.placeOf(&ix.groups[g], h)] = true
				}
			}
		}
		for _, it := range ix.groups[g].members { // Places that a member that stays has already.
			if home := ix.items[it].home; !waits[it] && home >= 0 && !c.lost[home] {
				delete(places, c.placeOf(&ix.groups[g], home))
			}
		}
		if free = int64(len(places)); members > free {
			what := "hosts"
			if ix.groups[g].domain {
				what = "failure domains"
			}
			return &guarantee.Missing{
				Plan: c.planOf(first), Dimension: what, Amount: members - free,
				Why: fmt.Sprintf("%s is one of %d that keep apart, and can use %s",
					c.p.ix.s.Workloads[ix.items[first].members[0]].Name, members, guarantee.Quantity(what, free)),
			}
		}
	}
	return nil
}

func (c *boundCase) placeOf(g *group, h int32) int32 {
	if g.domain {
		return c.p.ix.domain[h]
	}
	return h
}
