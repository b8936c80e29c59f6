package proof

import (
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// certificate states what was found, with the obligations that follow from it.
func (p *prover) certificate() *guarantee.Certificate {
	s := p.ix.s
	c := &guarantee.Certificate{Scenarios: p.scenarios, Witness: make([]int32, len(s.Workloads))}
	for w := range c.Witness {
		c.Witness[w] = guarantee.Nowhere
		if it := p.ix.itemOf[w]; it >= 0 {
			c.Witness[w] = p.base.at[it]
		}
	}
	o := newObliger(p)
	for _, q := range p.patterns {
		pattern := guarantee.Pattern{Unit: q.losses.sort, Spares: q.spares}
		for _, m := range q.moves {
			for _, w := range p.ix.items[m.item].members {
				pattern.Moves = append(pattern.Moves, guarantee.Move{Workload: w, Host: m.from})
			}
		}
		c.Patterns = append(c.Patterns, pattern)
		o.pattern(q)
	}
	c.Obligations, c.Budgets = o.obligations, o.budgets
	return c
}

// obliger gathers what each host may have to carry.
type obliger struct {
	p           *prover
	obligations []guarantee.Vector
	budgets     []time.Duration
}

func newObliger(p *prover) *obliger {
	o := &obliger{p: p, obligations: make([]guarantee.Vector, len(p.ix.s.Hosts)), budgets: make([]time.Duration, len(p.ix.s.Hosts))}
	all := make(guarantee.Vector, len(p.ix.s.Hosts)*p.ix.dims)
	for h := range o.obligations {
		o.obligations[h], all = all[:p.ix.dims:p.ix.dims], all[p.ix.dims:]
		o.carry(int32(h), int32(h), ^uint64(0))
	}
	return o
}

// carry obliges host a to what b carries on the board.
func (o *obliger) carry(a, b int32, scenarios uint64) {
	ix, load := o.p.ix, o.p.base.load[int(b)*o.p.ix.width:]
	for c := range ix.width {
		if scenarios>>(c/ix.dims)&1 == 1 {
			d := c % ix.dims
			o.obligations[a][d] = max(o.obligations[a][d], load[c])
		}
	}
	for _, it := range o.p.base.on[b] {
		for _, m := range ix.items[it].members {
			if n := ix.s.Workloads[m].Budget; n > 0 && (o.budgets[a] == 0 || n < o.budgets[a]) {
				o.budgets[a] = n
			}
		}
	}
}

// pattern obliges the hosts that something moves to, and the spares to the block of each unit that
// they stand in for.
func (o *obliger) pattern(q *pattern) {
	b := o.p.base
	left := map[int32][]int32{} // What moved away counts on for the budgets, as the audit has it.
	for _, m := range q.moves {
		left[b.at[m.item]] = append(left[b.at[m.item]], m.item)
		b.put(m.item, m.from)
	}
	for _, m := range q.moves {
		o.carry(m.from, m.from, q.scenarios)
	}
	lost := map[int32]bool{}
	for _, hosts := range q.spares {
		lost[hosts[0]] = true
	}
	for i, hosts := range q.spares {
		a := q.classes[i]
		if !q.losses.class[a].spare {
			continue
		}
		for n := range q.losses.class {
			if !q.losses.dominates(a, int32(n)) {
				continue
			}
			for _, u := range q.losses.class[n].units {
				if other := q.losses.units[u].hosts; !lost[other[0]] {
					o.blocks(q, hosts, other, left)
				}
			}
		}
	}
	b.undo(0)
	b.log = nil
}

// blocks obliges each host of a spare to what the hosts of a unit carry that may move there.
func (o *obliger) blocks(q *pattern, spare, other []int32, left map[int32][]int32) {
	for _, h := range other {
		for _, a := range spare {
			if q.losses.sort == guarantee.UnitDomain && q.losses.shape[a] != q.losses.shape[h] {
				continue
			}
			o.carry(a, h, q.scenarios)
			for _, it := range left[h] {
				o.budgets[a] = o.least(o.budgets[a], it)
			}
		}
	}
}

func (o *obliger) least(budget time.Duration, it int32) time.Duration {
	for _, m := range o.p.ix.items[it].members {
		if n := o.p.ix.s.Workloads[m].Budget; n > 0 && (budget == 0 || n < budget) {
			budget = n
		}
	}
	return budget
}
