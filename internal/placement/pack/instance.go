package pack

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// unit is the normalised size of the largest capacity in each dimension: sizes of different
// dimensions compare, and products of two of them with a weight stay far below 63 bits.
const unit = 1 << 16

// instance is a problem prepared for the search. Item classes that only differ in their group are
// members of one flavour.
type instance struct {
	dims     int
	classes  []binClass
	flavours []flavour
	items    []itemClass
	spread   []Spread // by group
	total    int      // items that some bin can hold
}

type binClass struct {
	capacity []int64
	room     []int64 // normalised capacity
	count    int
	domain   int
	eligible []int32 // flavours that fit into an empty bin and are allowed
	may      []bool  // the same, by flavour
}

type flavour struct {
	demand  []int64
	size    []int64 // normalised demand, rounded up
	whole   int64   // size over all dimensions
	members []int32 // item classes
	grouped bool
	bins    int // that it may go to
}

type itemClass struct {
	flavour int32 // -1: no bin can hold it
	group   int32 // 0: none
	count   int
}

// newInstance prepares a problem.
func newInstance(p Problem) *instance {
	in := &instance{items: make([]itemClass, len(p.Items))}
	for _, b := range p.Bins {
		in.dims = max(in.dims, len(b.Capacity))
	}
	for _, it := range p.Items {
		in.dims = max(in.dims, len(it.Demand))
	}
	in.addGroups(p)
	items := 0
	for _, it := range p.Items {
		items += max(it.Count, 0)
	}
	for _, b := range p.Bins {
		n := b.Count
		if n < 0 || n > items {
			n = items // more bins than items are never needed
		}
		in.classes = append(in.classes, binClass{capacity: padded(b.Capacity, in.dims), count: n, domain: b.Domain})
	}
	in.addFlavours(p)
	for i := range in.classes {
		c := &in.classes[i]
		c.may = make([]bool, len(in.flavours))
		for _, f := range c.eligible {
			c.may[f] = true
		}
	}
	in.normalise()
	return in
}

func padded(v []int64, n int) []int64 { return append(slices.Clone(v), make([]int64, n-len(v))...) }

// addGroups numbers the groups from one and finds the spread of each.
func (in *instance) addGroups(p Problem) {
	strictest := make(map[int]Spread)
	for _, it := range p.Items {
		strictest[it.Group] = max(strictest[it.Group], it.Spread)
	}
	in.spread = []Spread{SpreadNone}
	number := make(map[int]int32)
	for i, it := range p.Items {
		if it.Group == 0 || strictest[it.Group] == SpreadNone {
			continue
		}
		if number[it.Group] == 0 {
			number[it.Group] = int32(len(in.spread))
			in.spread = append(in.spread, strictest[it.Group])
		}
		in.items[i].group = number[it.Group]
	}
}

// addFlavours sorts the item classes by demand, the bins that can hold them, and spread.
func (in *instance) addFlavours(p Problem) {
	known := make(map[string]int32)
	var key []byte
	for i, it := range p.Items {
		item := &in.items[i]
		item.count, item.flavour = max(it.Count, 0), -1
		demand := padded(it.Demand, in.dims)
		key = binary.AppendVarint(key[:0], int64(in.spread[item.group]))
		for _, d := range demand {
			key = binary.AppendVarint(key, d)
		}
		bins := 0
		eligible := make([]int, 0, len(in.classes))
		for c := range in.classes {
			if in.holds(c, it, demand) {
				eligible = append(eligible, c)
				bins += in.classes[c].count
				key = binary.AppendVarint(key, int64(c))
			}
		}
		if bins == 0 {
			continue
		}
		n, ok := known[string(key)]
		if !ok {
			n = int32(len(in.flavours))
			known[string(key)] = n
			in.flavours = append(in.flavours, flavour{demand: demand, grouped: item.group > 0, bins: bins})
			for _, c := range eligible {
				in.classes[c].eligible = append(in.classes[c].eligible, n)
			}
		}
		item.flavour = n
		in.flavours[n].members = append(in.flavours[n].members, int32(i))
		in.total += item.count
	}
}

// holds says whether an empty bin of a class can hold an item.
func (in *instance) holds(class int, it ItemClass, demand []int64) bool {
	if it.Allowed != nil && (class >= len(it.Allowed) || !it.Allowed[class]) {
		return false
	}
	for d, want := range demand {
		if want < 0 || want > in.classes[class].capacity[d] {
			return false
		}
	}
	return true
}

// normalise fills in sizes and rooms.
func (in *instance) normalise() {
	largest := make([]int64, in.dims)
	for _, c := range in.classes {
		for d, v := range c.capacity {
			largest[d] = max(largest[d], v)
		}
	}
	for i := range in.classes {
		in.classes[i].room = make([]int64, in.dims)
		for d, v := range in.classes[i].capacity {
			in.classes[i].room[d] = scale(max(v, 0), largest[d])
		}
	}
	for i := range in.flavours {
		in.flavours[i].size = make([]int64, in.dims)
		for d, v := range in.flavours[i].demand {
			in.flavours[i].size[d] = scale(v, largest[d])
		}
		in.flavours[i].whole = sum(in.flavours[i].size)
	}
}

// scale is v in units of whole/unit, rounded up; 0 <= v <= whole.
func scale(v, whole int64) int64 {
	if whole == 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(v), unit)
	low, carry := bits.Add64(low, uint64(whole-1), 0)
	q, _ := bits.Div64(high+carry, low, uint64(whole))
	return int64(q)
}
