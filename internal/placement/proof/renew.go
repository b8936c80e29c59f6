package proof

import (
	"slices"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Kept is what was proven of a site as it was.
type Kept struct {
	Site     *guarantee.Site
	Decision guarantee.Decision
}

// Renew proves a site of which something was proven before it changed. Packing heuristics are not monotone: a search from
// the beginning may find less although the site has become easier. Then it goes on from the placements that are kept. If
// nothing but that has happened (leases or workloads are gone, hosts have come), it finds no less than those prove.
func Renew(is *guarantee.Site, kept ...Kept) guarantee.Decision {
	d := Prove(is)
	for _, k := range kept {
		if d.Worse(k.Decision) && k.Decision.Certificate != nil && slices.Equal(k.Site.Dimensions, is.Dimensions) && len(is.Asked()) <= maxColumns {
			d = goOn(k, is, d)
		}
	}
	return d
}

// goOn looks for more than was proven of a site, from what is kept.
func goOn(from Kept, is *guarantee.Site, d guarantee.Decision) guarantee.Decision {
	k := newKept(from.Site, from.Decision.Certificate, is)
	asked := is.Asked()
	for given := range d.Asked - d.Proven {
		if given == 0 && d.Answer == guarantee.CannotFit {
			continue
		}
		p := &prover{ix: newIndex(is, asked), scenarios: guarantee.Weaken(asked, given), kept: k}
		c := p.search()
		d.Steps += p.steps
		if c == nil || audit.Check(is, c) != nil {
			continue
		}
		d.Proven, d.Certificate = d.Asked-given, c
		if given == 0 {
			d.Answer, d.Missing, d.Reason = guarantee.Fits, nil, ""
		}
		return d
	}
	return d
}

// kept is a certificate of the site as it was, beside the site as it is. Numbers of hosts and workloads are those of then,
// unless said otherwise.
type kept struct {
	was  *index
	cert *guarantee.Certificate
	// host is the number that a host has now, hostWas the other way round; nowhere if it is not there.
	host, hostWas []int32
	// workWas is the number that each workload of now had.
	workWas []int32
	losses  map[guarantee.Unit]*losses
}

func newKept(was *guarantee.Site, c *guarantee.Certificate, is *guarantee.Site) *kept {
	k := &kept{was: newIndex(was, c.Scenarios), cert: c, host: make([]int32, len(was.Hosts)), losses: map[guarantee.Unit]*losses{}}
	now := make(map[string]int32, len(is.Hosts))
	k.hostWas = slices.Repeat([]int32{nowhere}, len(is.Hosts))
	for i := range is.Hosts {
		now[is.Hosts[i].Name] = int32(i)
	}
	for i := range was.Hosts {
		k.host[i] = nowhere
		if n, there := now[was.Hosts[i].Name]; there {
			k.host[i], k.hostWas[n] = n, int32(i)
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
		k.workWas = append(k.workWas, n)
	}
	return k
}

// base is a board with everything where the witness has it, as far as it may still be there, and the rest inserted; nil
// if that is not possible.
func (k *kept) base(ix *index) *board {
	b := newBoard(ix)
	b.home()
	at := func(w int32) int32 { return k.cert.Witness[w] }
	if left := b.settle(k, at); len(b.insert(left, ejectSteps)) > 0 || !b.sound() {
		return nil
	}
	b.open()
	return b
}

// settle puts the items that are nowhere and run in the scenarios at hand where a placement of then has them. It returns
// those that may not be there.
func (b *board) settle(k *kept, at func(workload int32) int32) (left []int32) {
	for it := range int32(len(b.ix.items)) {
		item := &b.ix.items[it]
		if b.at[it] != nowhere || !b.runs(it) {
			continue
		}
		to := int32(nowhere)
		if w := k.workWas[item.members[0]]; w >= 0 && at(w) >= 0 {
			to = k.host[at(w)]
		}
		if to >= 0 && b.takes(it, to) {
			b.put(it, to)
		} else {
			left = append(left, it)
		}
	}
	return left
}

// carry finds the placement of a pattern in the one that is kept of a pattern that covered it: that one's spares are
// empty there, and what is on the hosts that are lost now moves to them as a block.
func (k *kept) carry(b *board, q *pattern) bool {
	for i := range k.cert.Patterns {
		p := &k.cert.Patterns[i]
		block, ok := k.blocks(p, q)
		if !ok {
			continue
		}
		moved := make(map[int32]int32, len(p.Moves))
		for _, m := range p.Moves {
			moved[m.Workload] = m.Host
		}
		at := func(w int32) int32 {
			h, elsewhere := moved[w]
			if !elsewhere {
				h = k.cert.Witness[w]
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
		if left := b.settle(k, at); len(b.insert(left, b.steps+ejectSteps)) == 0 && b.sound() {
			return true
		}
		b.undo(mark)
	}
	return false
}

// blocks says to which host each host that is lost now hands what it has in a pattern of then; false if the pattern does
// not cover these losses.
func (k *kept) blocks(p *guarantee.Pattern, q *pattern) (map[int32]int32, bool) {
	if p.Unit != q.losses.sort {
		return nil, false
	}
	l := k.losses[p.Unit]
	if l == nil {
		l = newLosses(k.was, p.Unit)
		k.losses[p.Unit] = l
	}
	unitOf := func(host int32) int {
		return slices.IndexFunc(l.units, func(u unit) bool { return slices.Contains(u.hosts, host) })
	}
	var spares, lost []int
	for _, hosts := range p.Spares {
		spares = append(spares, unitOf(hosts[0]))
	}
	for _, hosts := range q.spares {
		for _, h := range hosts {
			if k.hostWas[h] == nowhere {
				continue
			}
			if u := unitOf(k.hostWas[h]); u >= 0 && !slices.Contains(lost, u) {
				lost = append(lost, u)
			}
		}
	}
	// What is lost in both stands in for itself: as dominance is transitive, that leaves no other one without.
	both := func(u int) bool { return slices.Contains(spares, u) && slices.Contains(lost, u) }
	away := slices.DeleteFunc(slices.Clone(lost), both)
	empty := slices.DeleteFunc(spares, both)
	block := map[int32]int32{}
	return block, l.standIn(away, empty, block)
}

// standIn finds for each lost unit an empty one of its own that dominates it, and notes to which host each host hands
// what it has.
func (l *losses) standIn(lost, empty []int, block map[int32]int32) bool {
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
