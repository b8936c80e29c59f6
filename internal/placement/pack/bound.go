package pack

import (
	"cmp"
	"math/bits"
	"slices"
)

// volumeBound is the least number of bins whose capacity is enough in each dimension alone.
func (in *instance) volumeBound() int {
	bound := min(in.total, 1)
	for d := range in.dims {
		bound = max(bound, in.volumeOf(d))
	}
	return bound
}

// volumeOf counts the bins, the largest first, that hold the total demand in one dimension.
func (in *instance) volumeOf(d int) int {
	var high, low uint64 // 128 bits: counts times bytes can exceed 64
	for _, it := range in.items {
		if it.flavour >= 0 {
			h, l := bits.Mul64(uint64(in.flavours[it.flavour].demand[d]), uint64(it.count))
			var carry uint64
			low, carry = bits.Add64(low, l, 0)
			high += h + carry
		}
	}
	classes := slices.Clone(in.classes)
	slices.SortStableFunc(classes, func(a, b binClass) int { return cmp.Compare(b.capacity[d], a.capacity[d]) })
	n := 0
	for _, c := range classes {
		if high == 0 && low == 0 || c.capacity[d] <= 0 {
			break
		}
		size := uint64(c.capacity[d])
		need := uint64(c.count)
		if high < size {
			if q, r := bits.Div64(high, low, size); q < need || q == need && r == 0 {
				return n + int(q) + int(min(r, 1))
			}
		}
		h, l := bits.Mul64(size, need)
		var borrow uint64
		low, borrow = bits.Sub64(low, l, 0)
		high -= h + borrow
		n += c.count
	}
	return n
}
