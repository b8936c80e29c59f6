package pack

import "slices"

// Search improves a solution step by step, for callers that stop by something else than a number of
// steps. It begins with the greedy portfolio.
type Search struct {
	in       *instance
	minimise bool
	best     *packing
	bound    int    // fewer bins are impossible
	rules    []rule // of the portfolio that are still to be tried
	tries    uint64
	descent  *tabu
	idle     int      // repacking rounds without success
	columns  *columns // nil if the problem is not for it
	next     *packing // where a dive has ended
	ruled    int      // steps of the portfolio
	past     int      // steps of the descents that are over
	share    int      // how many times the steps of the descents the relaxation gets
	stop     func() bool
}

// firstTries are the descents before the relaxation is looked at; easy problems end there.
const firstTries = 2

// rulesFree are the steps of the portfolio before it shares with the descents. Only very large problems
// reach them.
const rulesFree = 5_000_000

// manyCopies is from how many items of a flavour the relaxation is worth more than descents.
const manyCopies = 3

// NewSearch prepares a search and packs by the first rule of the portfolio. It ignores o.Steps.
func NewSearch(p Problem, o Options) *Search {
	s := &Search{in: newInstance(p), minimise: o.Minimise, stop: o.Stop}
	s.rules = s.in.rules()
	s.bound = s.in.volumeBound()
	if o.Minimise {
		s.columns = newColumns(s.in)
		s.share = 1
		if s.in.total > manyCopies*len(s.in.flavours) {
			s.share = 4
		}
	}
	s.greedy()
	return s
}

// greedy packs by the next rule of the portfolio.
func (s *Search) greedy() {
	f := newFiller(s.in, s.rules[0])
	f.stop, f.hasty = s.stop, s.best == nil
	s.rules = s.rules[1:]
	if p := f.run(); !f.abandoned && p.better(s.best) {
		s.best = p
	}
	s.ruled += f.steps
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
	for steps > 0 && !s.Done() && !s.late() {
		before := s.spent()
		s.advance()
		steps -= s.spent() - before
	}
}

func (s *Search) late() bool { return s.stop != nil && s.stop() }

func (s *Search) spent() int { return s.ruled + s.descents() + s.relaxed() }

// descents are the steps of all descents, relaxed those of the relaxation and the dives.
func (s *Search) descents() int {
	if s.descent == nil {
		return s.past
	}
	return s.past + s.descent.steps
}

func (s *Search) relaxed() int {
	if s.columns == nil {
		return 0
	}
	return s.columns.steps
}

// advance does a little work. After the first descents, which are enough for easy problems, the
// relaxation gets its share of the steps; where its dives end is where a descent begins.
func (s *Search) advance() {
	if len(s.rules) > 0 && (s.ruled <= rulesFree || s.ruled < s.descents()) {
		s.greedy()
		return
	}
	if s.columns != nil && s.best.rest == 0 && s.tries >= firstTries && s.next == nil && s.relaxed() < s.descents()*s.share {
		s.relax()
		return
	}
	if s.descent == nil {
		p := s.best
		if s.next != nil {
			p, s.next = s.next, nil
		}
		s.begin(p)
		return
	}
	s.round()
	if s.idle > roundsNoGain {
		s.past += s.descent.steps
		s.descent = nil
	}
}

// relax does one iteration of the relaxation or of a dive.
func (s *Search) relax() {
	c := s.columns
	if len(c.pool) == 0 {
		c.learn(s.best)
	}
	if c.work(len(s.best.bins) - 1) {
		s.next = c.packing()
	}
	s.bound = max(s.bound, c.bound)
}

// begin starts a descent from a packing: with all bins that exist if not everything is placed yet,
// else with one bin less than the best solution has.
func (s *Search) begin(p *packing) {
	s.tries++
	goal := len(s.best.bins) - 1
	st := newState(s.in, p)
	s.descent, s.idle = newTabu(st, s.tries), 0
	if s.best.rest > 0 {
		for c, n := range s.unused() {
			for range n {
				st.open(int32(c))
			}
		}
	} else {
		for len(st.bins) > goal {
			s.closeOne()
		}
		for len(st.bins) < goal { // a dive ended early; it knows one class only
			st.open(0)
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
			load[b] += d.weight[it]
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(min(max(load[a]-load[b], -1), 1)) })
	d.close(order[d.rng.below(min(len(order), int(s.tries)))])
}

// round makes moves until they stop helping and then repacks some bins.
func (s *Search) round() {
	d := s.descent
	s.idle++
	for n := 0; n < patience && len(d.out) > 0 && !s.late(); n++ {
		d.step()
		if d.outWeight < d.best {
			d.best, n, s.idle = d.outWeight, 0, 0
			s.note()
		}
	}
	for n := 0; n < repacks && len(d.out) > 0 && !s.late(); n++ {
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
