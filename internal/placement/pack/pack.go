package pack

// BinClass is a number of identical bins.
type BinClass struct {
	// Capacity by dimension; a missing dimension is zero.
	Capacity []int64
	// Count of bins; negative: as many as needed.
	Count int
	// Domain is the failure domain of all these bins. In domain 0 each bin is a domain of its own.
	Domain int
}

// ItemClass is a number of identical items.
type ItemClass struct {
	// Demand by dimension, never negative; a missing dimension is zero.
	Demand []int64
	Count  int
	// Allowed says for each bin class whether these items may go there; nil: everywhere.
	Allowed []bool
	// Group whose items keep apart as Spread says; 0: none. If the classes of a group differ in
	// Spread, the strictest counts for all of them.
	Group  int
	Spread Spread
}

// Spread says what no two items of a group may share.
type Spread int

// The kinds of spread, each stricter than the one before.
const (
	SpreadNone Spread = iota
	SpreadBin
	SpreadDomain
)

// Problem is what to pack.
type Problem struct {
	Bins  []BinClass
	Items []ItemClass
}

// Count is a number of items of a class.
type Count struct {
	Class, Count int
}

// Bin is one used bin and what lies in it, by ascending item class.
type Bin struct {
	Class int
	Items []Count
}

// Solution of a problem. Bins that stay empty are not listed.
type Solution struct {
	Bins     []Bin
	Unplaced []Count
}

// Options of a search.
type Options struct {
	// Steps bounds the effort of the improvement after the greedy portfolio; a step is about one look
	// at one item in one bin. With 0 the portfolio's best is the answer.
	Steps int
	// Minimise asks for as few bins as possible instead of any bins that exist.
	Minimise bool
	// Stop, if there is one, is asked often, and when it says so the search ends as soon as it can with
	// everything placed that it can place quickly. With it an answer depends on more than the problem.
	Stop func() bool
}

// Solve packs the items.
func Solve(p Problem, o Options) Solution {
	s := NewSearch(p, o)
	for len(s.rules) > 0 && !s.Done() {
		s.greedy()
	}
	s.Run(o.Steps)
	return s.Solution()
}
