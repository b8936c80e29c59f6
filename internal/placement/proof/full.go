package proof

import (
	"encoding/binary"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// Bounds of a search, in steps: a step is about one look at one item on one host.
const (
	packSteps  = 200_000
	ejectSteps = 4_000_000
	exactSteps = 60_000
)

// binKind is a number of hosts that are equal for a full pack.
type binKind struct {
	hosts []int32
	next  int
}

// full places on an empty board what the scenarios at hand run: first what runs already, then the rest by flavour. It
// returns what found no room.
func (b *board) full(steps int) []int32 {
	b.home()
	p, kinds, classes := b.problem()
	solution := pack.Solve(p, pack.Options{Steps: steps})
	for _, bin := range solution.Bins {
		k := &kinds[bin.Class]
		h := k.hosts[k.next]
		k.next++
		for _, c := range bin.Items {
			members := classes[c.Class]
			for _, it := range members[:c.Count] {
				if b.takes(it, h) {
					b.put(it, h)
				}
			}
			classes[c.Class] = members[c.Count:]
		}
	}
	var left []int32
	for it := range b.ix.items {
		if b.at[it] == nowhere && b.runs(int32(it)) {
			left = append(left, int32(it))
		}
	}
	return b.insert(left, b.steps+ejectSteps)
}

// home puts what runs where it runs: first the facts, then what has to join them. It says whether
// all of it went there.
func (b *board) home() bool {
	all := true
	for _, facts := range []bool{true, false} {
		for it := range int32(len(b.ix.items)) {
			home := b.ix.items[it].home
			if home < 0 || b.shut[home] || b.ix.items[it].whole != facts {
				continue
			}
			if b.takes(it, home) {
				b.put(it, home)
			} else {
				all = false
			}
		}
	}
	return all
}

// problem states the board for the packing engine: classes of equal hosts, and of equal items. An
// item's largest group is stated; what its others forbid is inserted afterwards.
func (b *board) problem() (pack.Problem, []binKind, [][]int32) {
	var p pack.Problem
	var kinds []binKind
	var offers []int32
	domains := slices.ContainsFunc(b.ix.groups, func(g group) bool { return g.domain && len(g.members) > 1 })
	seen := map[string]int{}
	var buf []byte
	for h := range int32(len(b.ix.s.Hosts)) {
		if b.shut[h] || !b.ix.usable[h] {
			continue
		}
		capacity := make([]int64, len(b.columns))
		buf = binary.AppendUvarint(buf[:0], uint64(b.ix.offer[h]))
		for i, c := range b.columns {
			capacity[i] = max(b.ix.roomOf(h)[c%b.ix.dims]-b.load[int(h)*b.ix.width+c], 0)
			buf = binary.AppendVarint(buf, capacity[i])
		}
		domain := 0
		if domains && !b.ix.alone[h] {
			domain = int(b.ix.domain[h]) + 1
			buf = binary.AppendVarint(buf, int64(domain))
		}
		n, known := seen[string(buf)]
		if !known {
			n = len(kinds)
			seen[string(buf)] = n
			kinds, offers = append(kinds, binKind{}), append(offers, b.ix.offer[h])
			p.Bins = append(p.Bins, pack.BinClass{Capacity: capacity, Domain: domain})
		}
		kinds[n].hosts = append(kinds[n].hosts, h)
		p.Bins[n].Count++
	}
	classes := b.itemClasses(&p, offers)
	return p, kinds, classes
}

func (b *board) itemClasses(p *pack.Problem, offers []int32) [][]int32 {
	type class struct{ flavour, group int32 }
	var classes [][]int32
	seen := map[class]int{}
	allowed := make([][]bool, len(b.ix.needs))
	for it := range b.ix.items {
		item := &b.ix.items[it]
		f := &b.ix.flavours[item.flavour]
		if !b.runs(int32(it)) || b.at[it] != nowhere || item.home >= 0 && !b.shut[item.home] || f.never {
			continue
		}
		key := class{item.flavour, b.largestGroup(item.groups)}
		n, known := seen[key]
		if !known {
			n = len(classes)
			seen[key] = n
			classes = append(classes, nil)
			if allowed[f.needs] == nil {
				allowed[f.needs] = make([]bool, len(offers))
				for i, o := range offers {
					allowed[f.needs][i] = b.ix.reachable[f.needs][o]
				}
			}
			c := pack.ItemClass{Demand: make([]int64, len(b.columns)), Allowed: allowed[f.needs]}
			for i, column := range b.columns {
				c.Demand[i] = f.demand[column]
			}
			if key.group >= 0 {
				c.Group, c.Spread = int(key.group)+1, pack.SpreadBin
				if b.ix.groups[key.group].domain {
					c.Spread = pack.SpreadDomain
				}
			}
			p.Items = append(p.Items, c)
		}
		classes[n] = append(classes[n], int32(it))
		p.Items[n].Count++
	}
	return classes
}

func (b *board) largestGroup(groups []int32) int32 {
	best, size := int32(nowhere), 1
	for _, g := range groups {
		if n := len(b.ix.groups[g].members); n > size {
			best, size = g, n
		}
	}
	return best
}
