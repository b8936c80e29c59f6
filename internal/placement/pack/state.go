package pack

import "slices"

// state is an arrangement that the local search changes: a fixed set of bins, what lies in each, and
// what is out. No rule is ever broken in it.
type state struct {
	in   *instance
	bins []openBin // items in ascending order
	free []int64   // by bin and dimension
	at   [][]int32 // by group: the bin of each of its items
	out  []int32   // items without a bin
	// By item class: its demand, and its weight: what it costs to leave one out.
	demand    [][]int64
	weight    []int64
	outWeight int64
}

// newState arranges the bins of a packing; what they do not hold is out.
func newState(in *instance, p *packing) *state {
	s := &state{
		in: in, at: make([][]int32, len(in.spread)),
		demand: make([][]int64, len(in.items)), weight: make([]int64, len(in.items)),
	}
	weights := in.weights()
	for i, n := range p.left {
		f := in.items[i].flavour
		if f < 0 {
			continue
		}
		s.demand[i], s.weight[i] = in.flavours[f].demand, weights[f]
		for range n {
			s.drop(int32(i))
		}
	}
	for _, b := range p.bins {
		at := s.open(b.class)
		for _, it := range b.items {
			s.put(it, at)
		}
	}
	return s
}

// weights are the demands of the flavours, summed over the dimensions by scarcity.
func (in *instance) weights() []int64 {
	demand, room := make([]float64, in.dims), make([]float64, in.dims)
	for _, it := range in.items {
		if it.flavour >= 0 {
			for d, s := range in.flavours[it.flavour].size {
				demand[d] += float64(s) * float64(it.count)
			}
		}
	}
	for _, c := range in.classes {
		for d, r := range c.room {
			room[d] += float64(r) * float64(c.count)
		}
	}
	scarcest := 0.0
	for d := range demand {
		demand[d] /= max(room[d], 1)
		scarcest = max(scarcest, demand[d])
	}
	weights := make([]int64, len(in.flavours))
	for f := range weights {
		weights[f] = 1 // also an item without demand is worth placing
		for d, s := range in.flavours[f].size {
			weights[f] += s * int64(demand[d]/max(scarcest, 1e-9)*64)
		}
	}
	return weights
}

// packing is a copy of the arrangement.
func (s *state) packing() *packing {
	p := s.in.empty()
	for _, b := range s.bins {
		if len(b.items) == 0 {
			continue
		}
		p.bins = append(p.bins, openBin{class: b.class, items: slices.Clone(b.items)})
		for _, it := range b.items {
			p.left[it]--
			p.rest--
		}
	}
	return p
}

func (s *state) room(bin int) []int64 { return s.free[bin*s.in.dims : (bin+1)*s.in.dims] }

// open adds an empty bin.
func (s *state) open(class int32) int {
	s.bins = append(s.bins, openBin{class: class})
	s.free = append(s.free, s.in.classes[class].capacity...)
	return len(s.bins) - 1
}

// close removes a bin; its items are out. The last bin takes its number.
func (s *state) close(bin int) {
	s.clear(bin)
	last := len(s.bins) - 1
	for _, it := range s.bins[last].items {
		if g := s.in.items[it].group; g > 0 {
			s.at[g][slices.Index(s.at[g], int32(last))] = int32(bin)
		}
	}
	copy(s.room(bin), s.room(last))
	s.bins[bin] = s.bins[last]
	s.bins, s.free = s.bins[:last], s.free[:last*s.in.dims]
}

// clear takes everything out of a bin.
func (s *state) clear(bin int) {
	for len(s.bins[bin].items) > 0 {
		it := s.bins[bin].items[len(s.bins[bin].items)-1]
		s.take(it, bin)
		s.drop(it)
	}
}

// put places an item that is nowhere; the caller knows that it may lie there.
func (s *state) put(item int32, bin int) {
	b := &s.bins[bin]
	i, _ := slices.BinarySearch(b.items, item)
	b.items = slices.Insert(b.items, i, item)
	for d, want := range s.demand[item] {
		s.free[bin*s.in.dims+d] -= want
	}
	if g := s.in.items[item].group; g > 0 {
		s.at[g] = append(s.at[g], int32(bin))
	}
}

// take removes an item from a bin; it is then nowhere.
func (s *state) take(item int32, bin int) {
	b := &s.bins[bin]
	i, _ := slices.BinarySearch(b.items, item)
	b.items = slices.Delete(b.items, i, i+1)
	for d, want := range s.demand[item] {
		s.free[bin*s.in.dims+d] += want
	}
	if g := s.in.items[item].group; g > 0 {
		i := slices.Index(s.at[g], int32(bin))
		s.at[g] = slices.Delete(s.at[g], i, i+1)
	}
}

// drop adds an item that is nowhere to those that are out, fetch is the reverse.
func (s *state) drop(item int32) {
	s.out = append(s.out, item)
	s.outWeight += s.weight[item]
}

func (s *state) fetch(item int32) {
	i := slices.Index(s.out, item)
	s.out[i] = s.out[len(s.out)-1]
	s.out = s.out[:len(s.out)-1]
	s.outWeight -= s.weight[item]
}

// none stands for no item.
const none int32 = -1

// clash says whether an item may not go to a bin because of its group, if another item left.
func (s *state) clash(item int32, bin int, leaving ...int32) bool {
	g := s.in.items[item].group
	if g == 0 {
		return false
	}
	domain := s.in.classes[s.bins[bin].class].domain
	near := 0
	for _, b := range s.at[g] {
		if int(b) == bin || s.in.spread[g] == SpreadDomain && domain != 0 && s.in.classes[s.bins[b].class].domain == domain {
			near++
		}
	}
	for _, l := range leaving {
		if l != none && s.in.items[l].group == g {
			near--
		}
	}
	return near > 0
}

// allowed says whether a bin's class may hold an item at all.
func (s *state) allowed(item int32, bin int) bool {
	return s.in.classes[s.bins[bin].class].may[s.in.items[item].flavour]
}
