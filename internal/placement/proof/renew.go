package proof

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// mostGoOnSteps bounds how far a search goes on from earlier placements, for each number of losses: a step is a look at a
// pattern, or at an item that is put where it was. It is some seconds.
const mostGoOnSteps = 20_000_000

// Earlier is what was proven of a site before it changed.
type Earlier struct {
	Site     *guarantee.Site
	Decision guarantee.Decision
}

// Renew proves a site of which something was proven before. Packing heuristics are not monotone: a search from the
// beginning may find less although the site has become easier. Then it goes on from the earlier placements. If nothing but
// that has happened (leases or workloads are gone, hosts have come), it finds no less than those prove, unless there are
// so many patterns that it gives up.
func Renew(is *guarantee.Site, before ...Earlier) guarantee.Decision {
	d := Prove(is)
	for _, e := range before {
		if d.Worse(e.Decision) && e.Decision.Certificate != nil && len(is.Asked()) <= maxColumns {
			d = goOn(e, is, d)
		}
	}
	return d
}

// goOn looks for more than was proven of a site, from what was proven earlier.
func goOn(from Earlier, is *guarantee.Site, d guarantee.Decision) guarantee.Decision {
	e := newEarlier(from.Site, from.Decision.Certificate, is)
	asked := is.Asked()
	reason := ""
	for given := range d.Asked - d.Proven {
		if given == 0 && d.Answer == guarantee.CannotFit {
			reason = d.Missing.String()
			continue
		}
		p := &prover{ix: newIndex(is, asked), scenarios: guarantee.Weaken(asked, given), earlier: e}
		e.steps = 0
		c := p.search()
		d.Steps += p.steps + e.steps
		if c != nil {
			if err := audit.Check(is, c); err != nil {
				d.Fault = fmt.Errorf("the search made a wrong certificate: %w", err)
				continue
			}
			d.Proven, d.Certificate, d.Reason = d.Asked-given, c, reason
			if given == 0 {
				d.Answer, d.Missing = guarantee.Fits, nil
			}
			return d
		}
		if reason = p.why(); reason == "" {
			reason = "no placement was found"
		}
	}
	return d
}

// earlier is a certificate of the site as it was, beside the site as it is. Numbers of hosts and workloads are those of
// then, unless said otherwise.
type earlier struct {
	was  *guarantee.Site
	cert *guarantee.Certificate
	// host is the number that a host has now, hostWas the other way round; nowhere if it is not there.
	host, hostWas []int32
	// workWas is the number that each workload of now had.
	workWas []int32
	// losses by unit, and the spares of each pattern as numbers of units, once they were asked for.
	losses map[guarantee.Unit]*losses
	spares [][]int32
	// same are the patterns by their spares.
	same         map[string][]int
	steps, limit int
}

func newEarlier(was *guarantee.Site, c *guarantee.Certificate, is *guarantee.Site) *earlier {
	e := &earlier{was: was, cert: c, host: make([]int32, len(was.Hosts)), losses: map[guarantee.Unit]*losses{}, same: map[string][]int{}, limit: mostGoOnSteps}
	now := make(map[string]int32, len(is.Hosts))
	e.hostWas = slices.Repeat([]int32{nowhere}, len(is.Hosts))
	for i := range is.Hosts {
		now[is.Hosts[i].Name] = int32(i)
	}
	for i := range was.Hosts {
		e.host[i] = nowhere
		if n, there := now[was.Hosts[i].Name]; there {
			e.host[i], e.hostWas[n] = n, int32(i)
		}
	}
	then := make(map[string]int32, len(was.Workloads))
	for i := range was.Workloads {
		then[was.Workloads[i].Name] = int32(i)
	}
	for i := range is.Workloads {
		n, there := then[is.Workloads[i].Name]
		if !there {
			n = nowhere
		}
		e.workWas = append(e.workWas, n)
	}
	for i, p := range c.Patterns {
		key := lossKey(p.Unit, p.Spares)
		e.same[key] = append(e.same[key], i)
	}
	return e
}

// lossKey is the same for the same hosts, lost as the same units.
func lossKey(u guarantee.Unit, spares [][]int32) string {
	var all []int32
	for _, hosts := range spares {
		all = append(all, hosts...)
	}
	slices.Sort(all)
	key := binary.AppendVarint(nil, int64(u))
	for _, h := range all {
		key = binary.AppendVarint(key, int64(h))
	}
	return string(key)
}

// base is a board with everything where the witness has it, as far as it may still be there, and the rest inserted; nil
// if that is not possible.
func (e *earlier) base(ix *index) *board {
	b := newBoard(ix)
	b.home()
	at := func(w int32) int32 { return e.cert.Witness[w] }
	if left := e.settle(b, at); len(b.insert(left, ejectSteps)) > 0 || !b.sound() {
		return nil
	}
	b.open()
	return b
}

// settle puts the items that are nowhere and run in the scenarios at hand where a placement of then has them. It returns
// those that may not be there.
func (e *earlier) settle(b *board, at func(workload int32) int32) (left []int32) {
	e.steps += len(b.ix.items)
	for it := range int32(len(b.ix.items)) {
		if b.at[it] != nowhere || !b.runs(it) {
			continue
		}
		to := int32(nowhere)
		if w := e.workWas[b.ix.items[it].members[0]]; w >= 0 && at(w) >= 0 {
			to = e.host[at(w)]
		}
		if to >= 0 && b.takes(it, to) {
			b.put(it, to)
		} else {
			left = append(left, it)
		}
	}
	return left
}

// carry finds the placement of a pattern in that of an earlier one which covered it: that one's spares are empty there,
// and what is on the hosts that are lost now moves to them as a block. The one with the same spares is tried first.
func (e *earlier) carry(b *board, q *pattern) bool {
	lost := make([][]int32, 0, len(q.spares))
	for _, hosts := range q.spares {
		var then []int32
		for _, h := range hosts {
			if e.hostWas[h] != nowhere {
				then = append(then, e.hostWas[h])
			}
		}
		lost = append(lost, then)
	}
	for _, i := range e.same[lossKey(q.losses.sort, lost)] {
		if e.steps > e.limit {
			return false
		}
		if e.resume(b, &e.cert.Patterns[i], nil) {
			return true
		}
	}
	units := e.unitsOf(q.losses.sort, lost)
	for i := range e.cert.Patterns {
		if e.steps++; e.steps > e.limit {
			return false
		}
		if e.cert.Patterns[i].Unit != q.losses.sort {
			continue
		}
		if block, ok := e.blocks(i, units); ok && e.resume(b, &e.cert.Patterns[i], block) {
			return true
		}
	}
	return false
}

// resume puts everything where an earlier pattern has it, less what moves as a block, and inserts what may not be there.
func (e *earlier) resume(b *board, p *guarantee.Pattern, block map[int32]int32) bool {
	moved := make(map[int32]int32, len(p.Moves))
	for _, m := range p.Moves {
		moved[m.Workload] = m.Host
	}
	at := func(w int32) int32 {
		h, elsewhere := moved[w]
		if !elsewhere {
			h = e.cert.Witness[w]
		}
		if to, moves := block[h]; moves {
			return to
		}
		return h
	}
	mark := b.mark()
	for it := range int32(len(b.ix.items)) {
		if b.runs(it) {
			b.put(it, nowhere)
		}
	}
	b.home()
	if left := e.settle(b, at); len(b.insert(left, b.steps+ejectSteps)) == 0 && b.sound() {
		return true
	}
	b.undo(mark)
	return false
}

// unitsOf numbers the units of lost hosts; those that were none are left out.
func (e *earlier) unitsOf(sort guarantee.Unit, lost [][]int32) (units []int32) {
	l := e.lossesOf(sort)
	for _, hosts := range lost {
		for _, h := range hosts {
			if u := l.unitAt[h]; u != nowhere && !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	return units
}

func (e *earlier) lossesOf(sort guarantee.Unit) *losses {
	l := e.losses[sort]
	if l == nil {
		l = newLosses(newIndex(e.was, e.cert.Scenarios), sort)
		e.losses[sort] = l
	}
	return l
}

// blocks says to which host each host that is lost now hands what it has in the i-th pattern of then; false if that does
// not cover these losses.
func (e *earlier) blocks(i int, lost []int32) (map[int32]int32, bool) {
	p := &e.cert.Patterns[i]
	l := e.lossesOf(p.Unit)
	if e.spares == nil {
		e.spares = make([][]int32, len(e.cert.Patterns))
	}
	if e.spares[i] == nil {
		for _, hosts := range p.Spares {
			e.spares[i] = append(e.spares[i], l.unitAt[hosts[0]])
		}
	}
	// What is lost in both stands in for itself: that leaves no other one without, as far as dominance is transitive.
	var away, empty []int32
	for _, u := range lost {
		if !slices.Contains(e.spares[i], u) {
			away = append(away, u)
		}
	}
	for _, u := range e.spares[i] {
		if !slices.Contains(lost, u) {
			empty = append(empty, u)
		}
	}
	block := map[int32]int32{}
	return block, len(away) <= len(empty) && l.standIn(away, empty, block)
}

// standIn finds for each lost unit an empty one of its own that dominates it, and notes to which host each host hands
// what it has.
func (l *losses) standIn(lost, empty []int32, block map[int32]int32) bool {
	if len(lost) == 0 {
		return true
	}
	low := &l.units[lost[0]]
	for i, s := range empty {
		if s < 0 || !l.dominates(l.units[s].class, low.class) {
			continue
		}
		if l.standIn(lost[1:], slices.Delete(slices.Clone(empty), i, i+1), block) {
			l.handOver(low, &l.units[s], block)
			return true
		}
	}
	return false
}

// handOver pairs the hosts of a unit with those of an empty one: hosts of equal shape, where there are several.
func (l *losses) handOver(low, top *unit, block map[int32]int32) {
	free := slices.Clone(top.hosts)
	for _, h := range low.hosts {
		i := 0
		if l.sort == guarantee.UnitDomain {
			i = slices.IndexFunc(free, func(o int32) bool { return l.shape[o] == l.shape[h] })
		}
		if i >= 0 && i < len(free) {
			block[h] = free[i]
			free = slices.Delete(free, i, i+1)
		}
	}
}
