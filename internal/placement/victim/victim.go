// Package victim chooses who goes when workloads need room: the cheapest leases that make enough of
// it, each taken as a whole, and none for nothing. It is pure, and its effort is bounded by counted
// steps: exact for each host within the bound, else greedy.
//
// Package proof calls it for a failover. It never decides where workloads go.
package victim

import (
	"cmp"
	"math"
	"slices"
)

// hostSteps bounds the exact choice on one host: tens of instances are decided exactly.
const hostSteps = 20_000

// rounds of improvement after each host was decided once.
const rounds = 2

// Lease is what can be taken as a whole.
type Lease struct {
	Name string
	Cost uint64
	// Held: taken already. Keeping it so costs nothing; without it nothing is given back to its host.
	Held  bool
	Parts []Part
}

// Part is what taking a lease frees on one host, by dimension.
type Part struct {
	Host int
	Gain []int64
}

// Need is the room that is missing on one host while nobody goes, by dimension.
type Need struct {
	Host int
	Room []int64
}

// Choose returns the leases to take, by number. Where all of them do not make enough room, all that
// are on that host go: as much as possible starts there.
func Choose(leases []Lease, needs []Need) []int {
	c := newChooser(leases, needs)
	for n := range c.needs {
		c.host(n)
	}
	for range rounds {
		changed := false
		for n := range c.needs {
			changed = c.again(n) || changed
		}
		if !changed {
			break
		}
	}
	c.spare()
	var out []int
	for i, taken := range c.taken {
		if taken {
			out = append(out, i)
		}
	}
	return out
}

type chooser struct {
	leases []Lease
	needs  []Need
	taken  []bool
	// at lists the leases with a part on each needy host; missing is what is missing there still.
	at      [][]candidate
	missing [][]int64
	number  map[int]int
}

// candidate is a lease with what it frees on one host.
type candidate struct {
	lease int
	cost  uint64
	gain  []int64
}

func newChooser(leases []Lease, needs []Need) *chooser {
	c := &chooser{leases: merged(leases), taken: make([]bool, len(leases)), number: map[int]int{}}
	for _, n := range needs {
		if !slices.ContainsFunc(n.Room, func(r int64) bool { return r > 0 }) {
			continue
		}
		c.number[n.Host] = len(c.needs)
		c.needs = append(c.needs, n)
		c.missing = append(c.missing, slices.Clone(n.Room))
	}
	c.at = make([][]candidate, len(c.needs))
	for i, l := range c.leases {
		for _, p := range l.Parts {
			if n, needy := c.number[p.Host]; needy {
				c.at[n] = append(c.at[n], candidate{i, l.Cost, p.Gain})
			}
		}
	}
	return c
}

// merged has one part for each host of a lease, and no cost for what is held.
func merged(leases []Lease) []Lease {
	out := slices.Clone(leases)
	for i := range out {
		l := &out[i]
		if l.Held {
			l.Cost = 0
		}
		if len(l.Parts) < 2 {
			continue
		}
		var parts []Part
		for _, p := range l.Parts {
			if n := slices.IndexFunc(parts, func(o Part) bool { return o.Host == p.Host }); n >= 0 {
				parts[n].Gain = sum(parts[n].Gain, p.Gain, 1)
			} else {
				parts = append(parts, p)
			}
		}
		l.Parts = parts
	}
	return out
}

func sum(a, b []int64, sign int64) []int64 {
	out := slices.Clone(a)
	for d := range out {
		out[d] += sign * b[d]
	}
	return out
}

// take or give back a lease.
func (c *chooser) set(lease int, taken bool) {
	sign := int64(1)
	if taken {
		sign = -1
	}
	c.taken[lease] = taken
	for _, p := range c.leases[lease].Parts {
		if n, needy := c.number[p.Host]; needy {
			for d, g := range p.Gain {
				c.missing[n][d] += sign * g
			}
		}
	}
}

func enough(missing []int64) bool {
	return !slices.ContainsFunc(missing, func(m int64) bool { return m > 0 })
}

// host takes the cheapest leases that make enough room on one host, besides those taken already. It
// returns them.
func (c *chooser) host(n int) (now []int) {
	if enough(c.missing[n]) {
		return nil
	}
	var free []candidate
	for _, x := range c.at[n] {
		if !c.taken[x.lease] {
			free = append(free, x)
		}
	}
	for _, i := range cheapest(free, c.missing[n]) {
		c.set(free[i].lease, true)
		now = append(now, free[i].lease)
	}
	return now
}

// again decides one host anew, with what the others need left as it is. It says whether that was better.
func (c *chooser) again(n int) bool {
	var own []int
	var before uint64
	for _, x := range c.at[n] {
		if c.taken[x.lease] && c.onlyFor(x.lease, n) {
			own = append(own, x.lease)
			before += x.cost
		}
	}
	if len(own) == 0 {
		return false
	}
	short := c.short(own)
	for _, l := range own {
		c.set(l, false)
	}
	now := c.host(n)
	var after uint64
	for _, l := range now {
		after += c.leases[l].Cost
	}
	if c.short(own) <= short && after < before {
		return true
	}
	for _, l := range now {
		c.set(l, false)
	}
	for _, l := range own {
		c.set(l, true)
	}
	return false
}

// short counts the hosts of some leases that lack room.
func (c *chooser) short(leases []int) (count int) {
	for _, l := range leases {
		for _, p := range c.leases[l].Parts {
			if n, needy := c.number[p.Host]; needy && !enough(c.missing[n]) {
				count++
			}
		}
	}
	return count
}

// onlyFor says whether a lease is taken for nothing but this host.
func (c *chooser) onlyFor(lease, host int) bool {
	for _, p := range c.leases[lease].Parts {
		n, needy := c.number[p.Host]
		if needy && n != host && !c.withoutPart(n, p.Gain) {
			return false
		}
	}
	return true
}

// withoutPart says whether a host has enough room without this gain, or never has.
func (c *chooser) withoutPart(n int, gain []int64) bool {
	for d, g := range gain {
		if g > 0 && c.missing[n][d]+g > 0 && c.needs[n].Room[d] > 0 {
			return false
		}
	}
	return true
}

// spare gives back whole leases, dearest first, that others made superfluous. What is held already
// costs nothing, and is given back last.
func (c *chooser) spare() {
	var order []int
	for i, taken := range c.taken {
		if taken {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &c.leases[a], &c.leases[b]
		return cmp.Or(held(x)-held(y), cmp.Compare(y.Cost, x.Cost), cmp.Compare(x.Name, y.Name))
	})
	for _, l := range order {
		if c.needed(l) {
			continue
		}
		if c.set(l, false); c.needed(l) {
			c.set(l, true)
		}
	}
}

// needed says whether one of a lease's hosts lacks room.
func (c *chooser) needed(lease int) bool {
	return slices.ContainsFunc(c.leases[lease].Parts, func(p Part) bool {
		n, needy := c.number[p.Host]
		return needy && !enough(c.missing[n])
	})
}

func held(l *Lease) int {
	if l.Held {
		return 1
	}
	return 0
}

// cheapest chooses among the candidates of one host; all of them if they are not enough.
func cheapest(free []candidate, missing []int64) []int {
	s := &search{free: free, missing: missing, best: math.MaxUint64}
	worths := make([]float64, len(free))
	for i := range free {
		s.order = append(s.order, i)
		worths[i] = worth(free[i], missing)
	}
	slices.SortStableFunc(s.order, func(a, b int) int {
		return cmp.Or(cmp.Compare(worths[a], worths[b]), cmp.Compare(free[b].cost, free[a].cost))
	})
	slices.Reverse(s.order)
	if !s.greedy() {
		return s.order
	}
	s.rates()
	s.try(0, 0, slices.Clone(missing))
	return s.chosen
}

// worth is the share of what is missing that a candidate frees, for its cost.
func worth(x candidate, missing []int64) (w float64) {
	for d, m := range missing {
		if m > 0 {
			w += float64(min(max(x.gain[d], 0), m)) / float64(m)
		}
	}
	return w / (float64(x.cost) + 1)
}

// search is the choice on one host.
type search struct {
	free    []candidate
	missing []int64
	order   []int
	// rate is the least cost for one piece of a dimension, rest all that is left, from each place of the order on.
	rate   [][]float64
	rest   [][]int64
	now    []int
	chosen []int
	best   uint64
	steps  int
}

// greedy takes the best worth first, then gives back what turned out not to be needed, dearest first.
func (s *search) greedy() bool {
	missing := slices.Clone(s.missing)
	var taken []int
	for _, i := range s.order {
		if enough(missing) {
			break
		}
		if useful(s.free[i].gain, missing) {
			taken = append(taken, i)
			missing = sum(missing, s.free[i].gain, -1)
		}
	}
	if !enough(missing) {
		return false
	}
	slices.SortStableFunc(taken, func(a, b int) int { return cmp.Compare(s.free[b].cost, s.free[a].cost) })
	for _, i := range slices.Clone(taken) {
		if without := sum(missing, s.free[i].gain, 1); enough(without) {
			missing = without
			taken = slices.DeleteFunc(taken, func(t int) bool { return t == i })
		}
	}
	s.best = 0
	for _, i := range taken {
		s.best += s.free[i].cost
	}
	s.chosen = taken
	return true
}

func useful(gain, missing []int64) bool {
	for d, m := range missing {
		if m > 0 && gain[d] > 0 {
			return true
		}
	}
	return false
}

func (s *search) rates() {
	n := len(s.order)
	s.rate, s.rest = make([][]float64, n+1), make([][]int64, n+1)
	s.rate[n], s.rest[n] = slices.Repeat([]float64{math.Inf(1)}, len(s.missing)), make([]int64, len(s.missing))
	for k := n - 1; k >= 0; k-- {
		s.rate[k], s.rest[k] = slices.Clone(s.rate[k+1]), slices.Clone(s.rest[k+1])
		x := s.free[s.order[k]]
		for d, g := range x.gain {
			if g > 0 {
				s.rate[k][d] = min(s.rate[k][d], float64(x.cost)/float64(g))
				s.rest[k][d] += g
			}
		}
	}
}

// try decides the candidates from k on.
func (s *search) try(k int, cost uint64, missing []int64) {
	if s.steps++; s.steps > hostSteps || cost >= s.best {
		return
	}
	if enough(missing) {
		s.best, s.chosen = cost, slices.Clone(s.now)
		return
	}
	for d, m := range missing {
		if m <= 0 {
			continue
		}
		if m > s.rest[k][d] || float64(cost)+float64(m)*s.rate[k][d]*(1-1e-9) >= float64(s.best) {
			return
		}
	}
	x := s.free[s.order[k]]
	if useful(x.gain, missing) {
		s.now = append(s.now, s.order[k])
		s.try(k+1, cost+x.cost, sum(missing, x.gain, -1))
		s.now = s.now[:len(s.now)-1]
	}
	s.try(k+1, cost, missing)
}
