package pack

import "slices"

// Search improves a solution step by step. It begins with the best of the greedy portfolio.
type Search struct {
	in       *instance
	minimise bool
	best     *packing
	bound    int // fewer bins are impossible
	tries    uint64
	descent  *tabu
	idle     int      // repacking rounds without success
	columns  *columns // nil if the problem is not for it
	diving   bool
	past     int // steps of the descents that are over
}

// firstTries are the descents before the relaxation is looked at; easy problems end there.
const firstTries = 2

// NewSearch prepares a search and runs the greedy portfolio. It ignores o.Steps.
func NewSearch(p Problem, o Options) *Search {
	s := &Search{in: newInstance(p), minimise: o.Minimise}
	s.best = greedy(s.in, o.Minimise)
	s.bound = s.in.volumeBound()
	if o.Minimise {
		s.columns = newColumns(s.in)
	}
	return s
}

// Done says that the solution cannot get better.
func (s *Search) Done() bool {
	return s.best.rest == 0 && (!s.minimise || len(s.best.bins) <= s.bound) || len(s.in.flavours) == 0
}

// Bound is a number of bins below which not everything can be placed.
func (s *Search) Bound() int { return s.bound }

// Solution is the best so far.
func (s *Search) Solution() Solution { return s.in.solution(s.best) }

// Run goes on for about as many steps and returns earlier if it is done.
func (s *Search) Run(steps int) {
	for steps > 0 && !s.Done() {
		before := s.spent()
		s.advance()
		steps -= s.spent() - before
	}
}

func (s *Search) spent() int {
	n := s.past
	if s.descent != nil {
		n += s.descent.steps
	}
	if s.columns != nil {
		n += s.columns.steps
	}
	return n
}

// advance does a little work: a descent first, then the relaxation, and from there on a dive before every
// second descent.
func (s *Search) advance() {
	c := s.columns
	switch {
	case s.descent != nil:
		s.round()
		if s.idle > roundsNoGain {
			s.past += s.descent.steps
			s.descent = nil
		}
	case c == nil || s.best.rest > 0 || s.tries < firstTries:
		s.begin(s.best)
	case c.root == nil:
		if s.tries == firstTries && len(c.pool) == 0 {
			c.learn(s.best)
		}
		if !c.improve() {
			c.root = c.lp
			c.dive(len(s.best.bins) - 1)
		}
		s.bound = max(s.bound, c.bound)
	case s.diving:
		if !c.improve() && c.fix() {
			s.diving = false
			s.begin(c.packing())
		}
	default:
		s.diving = s.tries%2 == 0
		if s.diving {
			c.dive(len(s.best.bins) - 1)
		} else {
			s.begin(s.best)
		}
	}
}

// begin starts a descent from a packing: with all bins that exist if not everything is placed yet,
// else with one bin less than the best solution has.
func (s *Search) begin(p *packing) {
	s.tries++
	st := newState(s.in, p)
	s.descent, s.idle = newTabu(st, s.tries), 0
	switch {
	case s.best.rest > 0:
		for c, n := range s.unused() {
			for range n {
				st.open(int32(c))
			}
		}
	case len(p.bins) == len(s.best.bins):
		s.closeOne()
	default:
		for len(st.bins) < len(s.best.bins)-1 {
			st.open(p.bins[0].class)
		}
	}
	s.descent.best = st.outWeight
	s.note()
}

// unused are the bins of each class that the best solution leaves empty.
func (s *Search) unused() []int {
	n := make([]int, len(s.in.classes))
	for c := range n {
		n[c] = s.in.classes[c].count
	}
	for _, b := range s.best.bins {
		n[b.class]--
	}
	return n
}

// closeOne closes the bin with the least in it; later tries take one that is nearly so.
func (s *Search) closeOne() {
	d := s.descent
	load := make([]int64, len(d.bins))
	order := make([]int, len(d.bins))
	for b := range d.bins {
		order[b] = b
		for _, it := range d.bins[b].items {
			load[b] += d.worth(it)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(min(max(load[a]-load[b], -1), 1)) })
	d.close(order[d.rng.below(min(len(order), int(s.tries)))])
}

// round makes moves until they stop helping and then repacks some bins.
func (s *Search) round() {
	d := s.descent
	s.idle++
	for n := 0; n < patience && len(d.out) > 0; n++ {
		d.step()
		if d.outWeight < d.best {
			d.best, n, s.idle = d.outWeight, 0, 0
			s.note()
		}
	}
	for n := 0; n < repacks && len(d.out) > 0; n++ {
		d.shuffle()
		if d.outWeight < d.best {
			d.best, s.idle = d.outWeight, 0
			s.note()
		}
	}
}

// note keeps the arrangement if it is the best solution so far.
func (s *Search) note() {
	d := s.descent
	switch {
	case len(d.out) == 0:
		s.best = d.packing()
		if s.minimise {
			s.idle = roundsNoGain + 1 // begin again with one bin less
		}
	case s.best.rest > len(d.out):
		s.best = d.packing()
	}
}
