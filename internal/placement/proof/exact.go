package proof

import "slices"

// exactItems and exactHosts bound the sites for which every placement is tried.
const (
	exactItems = 40
	exactHosts = 16
)

// exact tries every placement of a small site on an empty board, largest items first, equal hosts
// only once. whole says whether it came to the end.
func (b *board) exact() (found, whole bool) {
	if len(b.ix.items) > exactItems || len(b.ix.s.Hosts) > exactHosts {
		return false, false
	}
	if !b.home() || !b.sound() {
		return false, true
	}
	var free []int32
	for it := range int32(len(b.ix.items)) {
		if b.at[it] == nowhere && b.runs(it) {
			free = append(free, it)
		}
	}
	b.largestFirst(free)
	x := &exactSearch{board: b, limit: b.steps + exactSteps}
	found = x.try(free)
	return found, b.steps <= x.limit
}

// within says whether what a host carries fits at all.
func (b *board) within(h int32) bool {
	load, room := b.load[int(h)*b.ix.width:], b.ix.roomOf(h)
	return !slices.ContainsFunc(b.columns, func(c int) bool { return load[c] > 0 && load[c] > room[c%b.ix.dims] })
}

type exactSearch struct {
	*board
	limit int
}

func (x *exactSearch) try(items []int32) bool {
	if len(items) == 0 {
		return true
	}
	it := items[0]
	for h := range int32(len(x.ix.s.Hosts)) {
		if x.steps++; x.steps > x.limit {
			return false
		}
		if !x.takes(it, h) || x.tried(h) {
			continue
		}
		mark := x.mark()
		x.put(it, h)
		if x.try(items[1:]) {
			return true
		}
		x.undo(mark)
	}
	return false
}

// tried says whether an equal host without load comes before this one. Failure domains make hosts
// unequal where groups are spread over them.
func (x *exactSearch) tried(h int32) bool {
	if len(x.on[h]) > 0 {
		return false
	}
	for o := range h {
		if len(x.on[o]) == 0 && !x.shut[o] && x.ix.usable[o] && x.ix.offer[o] == x.ix.offer[h] &&
			slices.Equal(x.ix.roomOf(o), x.ix.roomOf(h)) && (x.ix.domain[o] == x.ix.domain[h] || !x.spreads()) {
			return true
		}
	}
	return false
}

func (x *exactSearch) spreads() bool {
	return slices.ContainsFunc(x.ix.groups, func(g group) bool { return g.domain })
}
