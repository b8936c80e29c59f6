package proof

import (
	"cmp"
	"slices"
)

// board is a placement under construction. Every change is in its log, so that it can be taken back.
type board struct {
	ix   *index
	at   []int32 // by item
	load []int64 // by host and column
	on   [][]int32
	// shut hosts are lost in the pattern at hand.
	shut []bool
	// scenarios of the pattern at hand, and the columns that count in them.
	scenarios uint64
	columns   []int
	log       []change
	steps     int
}

type change struct{ item, from int32 }

func newBoard(ix *index) *board {
	b := &board{
		ix: ix, at: make([]int32, len(ix.items)), load: make([]int64, len(ix.s.Hosts)*ix.width),
		on: make([][]int32, len(ix.s.Hosts)), shut: make([]bool, len(ix.s.Hosts)),
	}
	for i := range b.at {
		b.at[i] = nowhere
	}
	b.count(^uint64(0))
	return b
}

// count says which scenarios are looked at: room is counted in them, and what none of them runs is in nobody's way.
func (b *board) count(scenarios uint64) {
	b.scenarios, b.columns = scenarios, b.columns[:0]
	for c := range b.ix.width {
		if scenarios>>(c/b.ix.dims)&1 == 1 {
			b.columns = append(b.columns, c)
		}
	}
}

// put moves an item to a host, or nowhere.
func (b *board) put(it, h int32) {
	b.log = append(b.log, change{it, b.at[it]})
	b.set(it, h)
}

func (b *board) set(it, h int32) {
	demand := b.ix.flavours[b.ix.items[it].flavour].demand
	if from := b.at[it]; from >= 0 {
		load := b.load[int(from)*b.ix.width:]
		for c, n := range demand {
			load[c] -= n
		}
		i := slices.Index(b.on[from], it)
		last := len(b.on[from]) - 1
		b.on[from][i] = b.on[from][last]
		b.on[from] = b.on[from][:last]
	}
	b.at[it] = h
	if h >= 0 {
		load := b.load[int(h)*b.ix.width:]
		for c, n := range demand {
			load[c] += n
		}
		b.on[h] = append(b.on[h], it)
	}
}

// mark remembers where the log is; undo goes back there.
func (b *board) mark() int { return len(b.log) }

func (b *board) undo(mark int) {
	for len(b.log) > mark {
		last := b.log[len(b.log)-1]
		b.log = b.log[:len(b.log)-1]
		b.set(last.item, last.from)
	}
}

// hasRoom says whether an item of this demand fits beside what the host carries.
func (b *board) hasRoom(demand []int64, h int32) bool {
	load, room := b.load[int(h)*b.ix.width:], b.ix.roomOf(h)
	for _, c := range b.columns {
		if demand[c] > 0 && demand[c] > room[c%b.ix.dims]-load[c] {
			return false
		}
	}
	return true
}

// runs says whether one of the scenarios that are looked at runs an item.
func (b *board) runs(it int32) bool {
	return b.ix.flavours[b.ix.items[it].flavour].runs&b.scenarios != 0
}

// clash is an item that keeps apart from this one and is in the way on the host; nowhere if none is. Two that are both
// there already are not in each other's way.
func (b *board) clash(it, h int32) int32 {
	for _, g := range b.ix.items[it].groups {
		gr, joins := &b.ix.groups[g], b.ix.items[it].isNew(g, h)
		for _, m := range gr.members {
			at := b.at[m]
			near := at == h || gr.domain && at >= 0 && b.ix.domain[at] == b.ix.domain[h]
			if m != it && near && b.runs(m) && (joins || b.ix.items[m].isNew(g, at)) {
				return m
			}
		}
	}
	return nowhere
}

// may says whether the host takes the item, whatever it carries.
func (b *board) may(it, h int32) bool {
	if b.shut[h] {
		return false
	}
	if home := b.ix.items[it].home; home >= 0 && !b.shut[home] {
		return home == h && !b.ix.items[it].never
	}
	return b.ix.usable[h] && b.ix.reaches(it, h)
}

// takes says whether an item can go to a host now.
func (b *board) takes(it, h int32) bool {
	if !b.may(it, h) {
		return false
	}
	if it := &b.ix.items[it]; it.home == h && it.whole {
		return true // It runs there: that is a fact, not a choice. Whether there is room is checked at the end.
	}
	return b.hasRoom(b.ix.flavours[b.ix.items[it].flavour].demand, h) && b.clash(it, h) < 0
}

// slack is how much room an item leaves on a host, in comparable amounts.
func (b *board) slack(it, h int32) (sum int64) {
	demand, load, room := b.ix.flavours[b.ix.items[it].flavour].demand, b.load[int(h)*b.ix.width:], b.ix.roomOf(h)
	for _, c := range b.columns {
		d := c % b.ix.dims
		sum += (room[d] - load[c] - demand[c]) >> b.ix.shift[d]
	}
	return sum
}

// best is the host that an item fills most, of those that take it; nowhere if none does.
func (b *board) best(it int32) int32 {
	best, bestSlack := int32(nowhere), int64(0)
	b.steps += len(b.ix.s.Hosts)
	for h := range int32(len(b.ix.s.Hosts)) {
		if !b.takes(it, h) {
			continue
		}
		if s := b.slack(it, h); best < 0 || s < bestSlack {
			best, bestSlack = h, s
		}
	}
	return best
}

// largestFirst orders items for insertion.
func (b *board) largestFirst(items []int32) {
	type sized struct {
		size int64
		item int32
	}
	order := make([]sized, len(items)) // The sizes beside each other: there may be 100,000.
	for i, it := range items {
		order[i] = sized{b.ix.flavours[b.ix.items[it].flavour].size, it}
	}
	slices.SortFunc(order, func(x, y sized) int { return cmp.Or(cmp.Compare(y.size, x.size), cmp.Compare(x.item, y.item)) })
	for i := range order {
		items[i] = order[i].item
	}
}

// insert places items, with ejections where there is no room. It returns those that found none.
func (b *board) insert(items []int32, limit int) (left []int32) {
	b.largestFirst(items)
	for _, it := range items {
		if h := b.best(it); h >= 0 {
			b.put(it, h)
		} else if !b.eject(it, limit) {
			left = append(left, it)
		}
	}
	return left
}

// eject makes room for an item by moving one other, or by moving what clashes with it.
func (b *board) eject(it int32, limit int) bool {
	for h := range int32(len(b.ix.s.Hosts)) {
		if b.steps > limit {
			return false
		}
		if !b.may(it, h) || !b.ix.holds(it, h) {
			continue
		}
		for _, other := range slices.Clone(b.on[h]) {
			b.steps++
			if home := b.ix.items[other].home; home >= 0 && !b.shut[home] {
				continue
			}
			mark := b.mark()
			b.put(other, nowhere)
			if b.takes(it, h) {
				b.put(it, h)
				if to := b.best(other); to >= 0 {
					b.put(other, to)
					return true
				}
			}
			b.undo(mark)
		}
	}
	return false
}
