package pack

import "slices"

// solution lists what lies where.
func (in *instance) solution(p *packing) Solution {
	var s Solution
	for _, b := range p.bins {
		if len(b.items) == 0 {
			continue
		}
		items := slices.Clone(b.items)
		slices.Sort(items)
		bin := Bin{Class: int(b.class)}
		for _, it := range items {
			if n := len(bin.Items); n > 0 && bin.Items[n-1].Class == int(it) {
				bin.Items[n-1].Count++
			} else {
				bin.Items = append(bin.Items, Count{int(it), 1})
			}
		}
		s.Bins = append(s.Bins, bin)
	}
	for i, n := range p.left {
		if n > 0 {
			s.Unplaced = append(s.Unplaced, Count{i, n})
		}
	}
	return s
}
