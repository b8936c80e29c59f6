// Package proof searches for the guarantee's certificates: a placement of all workloads for the site
// as it is and for each pattern of losses that matters, or a lower bound that says why there is none.
// It is pure and deterministic, its effort bounded by counted steps. It never answers "fits" without a
// certificate that package audit accepts, and never "cannot fit" without a bound; otherwise it says
// "not proven".
//
// Admission works on the obligations of a certificate. The RPC handlers and the controllers call it.
package proof

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Prove looks for a certificate for all losses that the scenarios are to survive, then for fewer.
func Prove(s *guarantee.Site) guarantee.Decision {
	asked := s.Asked()
	d := guarantee.Decision{Asked: guarantee.Tolerance(asked), Proven: -1, Answer: guarantee.NotProven}
	if len(asked) > maxColumns {
		d.Reason = fmt.Sprintf("%d scenarios are more than can be proven at one time: %d", len(asked), maxColumns)
		return d
	}
	ix := newIndex(s, asked)
	for given := 0; given <= d.Asked; given++ {
		p := &prover{ix: ix, scenarios: guarantee.Weaken(asked, given)}
		c := p.prove()
		d.Steps += p.steps
		if c != nil {
			if err := audit.Check(s, c); err != nil {
				d.Fault = fmt.Errorf("the search made a wrong certificate: %w", err)
				p.fault, c = d.Fault.Error(), nil
			}
		}
		if given == 0 {
			d.Answer, d.Missing, d.Reason = p.answer(c), p.missing, p.why()
		}
		if c != nil {
			d.Proven, d.Certificate = d.Asked-given, c
			return d
		}
		if given > 0 {
			d.Reason = p.why() // What is missing for the least is more urgent.
		}
	}
	return d
}

// prover looks for the certificate of one tolerance.
type prover struct {
	ix        *index
	scenarios []guarantee.Scenario
	base      *board
	patterns  []*pattern
	missing   *guarantee.Missing
	// exhausted backs CannotFit where no bound does: every placement was tried.
	exhausted *guarantee.Missing
	fault     string
	steps     int
	// earlier is what the search goes on from; nil: it begins on an empty board.
	earlier *earlier
}

// pattern is one way to lose units that no other dominates.
type pattern struct {
	losses    *losses
	classes   []int32
	scenarios uint64
	spares    [][]int32
	size      int64
	// where items are that are elsewhere than in the base.
	moves []change
}

func (p *prover) answer(c *guarantee.Certificate) guarantee.Answer {
	switch {
	case c != nil:
		return guarantee.Fits
	case p.missing != nil:
		return guarantee.CannotFit
	default:
		return guarantee.NotProven
	}
}

func (p *prover) why() string {
	if p.missing != nil {
		return p.missing.String()
	}
	return p.fault
}

// prove searches, and looks for what backs a failure.
func (p *prover) prove() *guarantee.Certificate {
	c := p.search()
	if c == nil {
		p.explain()
	}
	return c
}

func (p *prover) search() *guarantee.Certificate {
	if !p.findPatterns() || !p.findBase() {
		return nil
	}
	for _, q := range p.patterns {
		if !p.repair(q) {
			if p.fault == "" {
				p.fault = "no placement was found without " + p.lost(q)
			}
			return nil
		}
	}
	p.steps += p.base.steps
	return p.certificate()
}

// explain looks for what backs "cannot fit". Of several scenarios each is looked at alone: they need
// not have one placement for all.
func (p *prover) explain() {
	if len(p.scenarios) > 1 {
		for i := range p.scenarios {
			one := p.scenarios[i : i+1]
			alone := &prover{ix: newIndex(p.ix.s, one), scenarios: one}
			c := alone.prove()
			p.steps += alone.steps
			if c == nil && alone.missing != nil {
				p.missing = alone.missing
				return
			}
		}
		return
	}
	if p.bound(); p.missing == nil {
		p.missing = p.exhausted
	}
}

// findPatterns lists what can be lost; false if the site has less than that, or too many ways.
func (p *prover) findPatterns() bool {
	for _, sort := range []guarantee.Unit{guarantee.UnitHost, guarantee.UnitDomain} {
		var l *losses
		sets := map[int]uint64{}
		var counts []int
		for n, sc := range p.scenarios {
			k := sc.Hosts
			if sort == guarantee.UnitDomain {
				k = sc.FailureDomains
			}
			if sets[k] == 0 && k > 0 {
				counts = append(counts, k)
			}
			sets[k] |= 1 << n
		}
		slices.Sort(counts)
		for _, k := range counts {
			if p.idle(sets[k]) {
				continue
			}
			if l == nil {
				l = newLosses(p.ix, sort)
			}
			if !p.addPatterns(l, k, sets[k]) {
				return false
			}
		}
	}
	slices.SortStableFunc(p.patterns, func(a, b *pattern) int { return int(min(max(b.size-a.size, -1), 1)) })
	return true
}

func (p *prover) idle(scenarios uint64) bool {
	return !slices.ContainsFunc(p.ix.items, func(it item) bool { return p.ix.flavours[it.flavour].runs&scenarios != 0 })
}

func (p *prover) addPatterns(l *losses, k int, scenarios uint64) bool {
	if k > maxLosses {
		p.fault = fmt.Sprintf("%d losses at one time are more than can be proven: %d", k, maxLosses)
		return false
	}
	if len(l.units) < k {
		first := slices.IndexFunc(p.ix.items, func(it item) bool { return p.ix.flavours[it.flavour].runs&scenarios != 0 })
		p.missing = &guarantee.Missing{
			Scenario: p.scenarios[bits.TrailingZeros64(scenarios)].Name, Plan: p.ix.s.Workloads[p.ix.items[first].members[0]].Plan,
			Dimension: "hosts", Amount: int64(k - len(l.units) + 1), Why: fmt.Sprintf("%s may be lost and the site has %d", count(k, l.sort), len(l.units)),
		}
		return false
	}
	all, ok := l.patterns(k)
	if !ok {
		p.fault = fmt.Sprintf("there are more than %d ways to lose %s", maxPatterns, count(k, l.sort))
		return false
	}
	for _, classes := range all {
		q := &pattern{losses: l, classes: classes, scenarios: scenarios}
		for _, c := range classes {
			q.size += l.class[c].size
		}
		p.patterns = append(p.patterns, q)
	}
	return true
}

func count(n int, u guarantee.Unit) string {
	word := "host"
	if u == guarantee.UnitDomain {
		word = "failure domain"
	}
	if n == 1 {
		return "a " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// findBase looks for the placement without losses. It first leaves the largest pattern's spares empty:
// then that pattern is proven with it, and the others have a spare to go to. Hosts on which something
// runs are no such spares.
func (p *prover) findBase() bool {
	if p.earlier != nil {
		p.base = p.earlier.base(p.ix)
		return p.base != nil
	}
	i := slices.IndexFunc(p.patterns, func(q *pattern) bool {
		return !slices.ContainsFunc(q.classes, func(c int32) bool { return !q.losses.class[c].spare })
	})
	tries := []*pattern{nil}
	if i >= 0 {
		tries = []*pattern{p.patterns[i], nil}
	}
	for _, q := range tries {
		if b := p.placeAll(q, ^uint64(0)); b != nil {
			b.open()
			p.base = b
			return true
		}
	}
	if p.fault == "" {
		p.fault = "no placement was found"
	}
	return false
}

// open ends a pattern: no host is lost, and every scenario counts.
func (b *board) open() {
	clear(b.shut)
	b.count(^uint64(0))
	b.log = nil
}

// placeAll looks for a placement of everything on an empty board without the spares of a pattern.
func (p *prover) placeAll(q *pattern, scenarios uint64) *board {
	var left []int32
	for _, steps := range p.efforts() {
		b := p.start(q, scenarios)
		left = b.full(steps)
		p.steps += b.steps
		if len(left) == 0 && b.sound() {
			return b
		}
	}
	b := p.start(q, scenarios)
	found, whole := b.exact()
	p.steps += b.steps
	if found && b.sound() {
		return b
	}
	if whole && !found && len(left) > 0 {
		w := &p.ix.s.Workloads[p.ix.items[left[0]].members[0]]
		why := "every placement was tried, and the best leaves out " + p.describe(w)
		if q != nil {
			why = "without " + p.lost(q) + " " + why
		}
		p.exhausted = &guarantee.Missing{Scenario: p.scenarios[0].Name, Plan: w.Plan, Dimension: "hosts", Amount: 1, Why: why}
	}
	if len(left) > 0 {
		p.fault = p.unplaced(q, left[0])
	}
	return nil
}

// efforts of the full packs that are tried one after the other. Of a small site every placement is
// tried after the first.
func (p *prover) efforts() []int {
	if len(p.ix.items) <= exactItems && len(p.ix.s.Hosts) <= exactHosts {
		return []int{0}
	}
	return []int{0, packSteps}
}

// start is an empty board on which the spares of a pattern are lost.
func (p *prover) start(q *pattern, scenarios uint64) *board {
	b := newBoard(p.ix)
	b.count(scenarios)
	if q != nil {
		q.choose(b)
		b.close(q)
	}
	return b
}

func (b *board) close(q *pattern) {
	for _, hosts := range q.spares {
		for _, h := range hosts {
			b.shut[h] = true
		}
	}
}

// sound says whether no host carries more than it has: what runs is there whether it fits or not.
func (b *board) sound() bool {
	for h := range int32(len(b.ix.s.Hosts)) {
		if !b.within(h) {
			return false
		}
	}
	return true
}

// choose takes as spares the units of the classes that carry least.
func (q *pattern) choose(b *board) {
	q.spares = q.spares[:0]
	taken := map[int32]bool{}
	for _, c := range q.classes {
		best, least := int32(-1), 0
		units := q.losses.class[c].units
		for i := range units {
			u := units[len(units)-1-i]
			n := 0
			for _, h := range q.losses.units[u].hosts {
				n += len(b.on[h])
			}
			if !taken[u] && (best < 0 || n < least) {
				best, least = u, n
			}
			if best >= 0 && least == 0 {
				break
			}
		}
		taken[best] = true
		q.spares = append(q.spares, q.losses.units[best].hosts)
	}
}

// repair finds the placement of one pattern: by that of an earlier one that covered it, by moving what its spares carry in
// the base, or anew.
func (p *prover) repair(q *pattern) bool {
	b := p.base
	b.count(q.scenarios)
	q.choose(b)
	b.close(q)
	ok := p.earlier != nil && p.earlier.carry(b, q)
	if !ok {
		ok = b.evacuate(q)
	}
	if ok {
		q.moves = b.difference(b.log)
	}
	b.undo(0)
	b.open()
	if ok || p.earlier != nil {
		return ok
	}
	full := p.placeAll(q, q.scenarios)
	if full == nil {
		return false
	}
	for it := range p.ix.items {
		if at := full.at[it]; at != b.at[it] && p.ix.flavours[p.ix.items[it].flavour].runs&q.scenarios != 0 {
			q.moves = append(q.moves, change{int32(it), at})
		}
	}
	return true
}

// evacuate moves what the spares of a pattern carry elsewhere.
func (b *board) evacuate(q *pattern) bool {
	var items []int32
	for _, hosts := range q.spares {
		for _, h := range hosts {
			for _, it := range b.on[h] {
				if b.runs(it) {
					items = append(items, it)
				}
			}
		}
	}
	for _, it := range items {
		b.put(it, nowhere)
	}
	return len(b.insert(items, b.steps+ejectSteps)) == 0
}

// difference lists where the items of a log are now, if elsewhere than before.
func (b *board) difference(log []change) []change {
	before := map[int32]int32{}
	for _, c := range log {
		if _, known := before[c.item]; !known {
			before[c.item] = c.from
		}
	}
	var out []change
	for _, c := range log {
		if from, left := before[c.item]; left && from != b.at[c.item] {
			out = append(out, change{c.item, b.at[c.item]})
		}
		delete(before, c.item)
	}
	return out
}

// unplaced says which item found no room.
func (p *prover) unplaced(q *pattern, it int32) string {
	w := &p.ix.s.Workloads[p.ix.items[it].members[0]]
	text := "no placement was found for " + p.describe(w)
	if q != nil {
		text = "without " + p.lost(q) + ": " + text
	}
	return text
}

// describe names a workload with its size.
func (p *prover) describe(w *guarantee.Workload) string {
	var parts []string
	for d, name := range p.ix.s.Dimensions {
		if n := w.Demand.At(d); n > 0 {
			parts = append(parts, guarantee.Quantity(name, n))
		}
	}
	return w.Name + " (" + strings.Join(parts, ", ") + ")"
}

// lost names what a pattern loses.
func (p *prover) lost(q *pattern) string {
	var parts []string
	for _, hosts := range q.spares {
		if h := &p.ix.s.Hosts[hosts[0]]; q.losses.sort == guarantee.UnitDomain && h.FailureDomain != "" {
			parts = append(parts, "failure domain "+h.FailureDomain)
		} else {
			parts = append(parts, "host "+h.Name)
		}
	}
	return strings.Join(parts, " and ")
}
