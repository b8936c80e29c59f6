package repair

import (
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// A change that is not repaired leaves a witness that is of no use any more.

// Add takes in one more workload, the at-th of the site. False: a full proof is needed.
func (w *Witness) Add(at int, s *guarantee.Workload) bool {
	v := w.newWork(s)
	wakes := slices.ContainsFunc(w.numbers(v.runs), func(n int) bool { return w.idle[n] })
	// What is spread over failure domains decides which hosts stand in for others, and a scenario that ran nothing
	// has no pattern.
	if v.Together != "" || v.Host != "" || spreads(&v) || wakes {
		return false
	}
	id := int32(len(w.work))
	w.work = append(w.work, v)
	w.workOrder = slices.Insert(w.workOrder, at, id)
	w.enter(id)
	return v.runs == 0 || w.place(id)
}

// spreads says whether a workload is spread over failure domains.
func spreads(v *work) bool {
	return slices.ContainsFunc(v.Apart, func(g guarantee.Apart) bool { return g.Domain })
}

// numbers lists the scenarios of a set.
func (w *Witness) numbers(set uint64) (out []int) {
	for n := range w.scenarios {
		if set>>n&1 == 1 {
			out = append(out, n)
		}
	}
	return out
}

// Remove forgets the at-th workload of the site. False: a full proof is needed.
func (w *Witness) Remove(at int) bool {
	id := w.workOrder[at]
	v := &w.work[id]
	if v.Host != "" || v.Together != "" || spreads(v) {
		return false // Without it other hosts may stand in for others.
	}
	w.workOrder = slices.Delete(w.workOrder, at, at+1)
	if h := v.at; h != nowhere {
		if w.sole(v) {
			w.relieve(h, v)
		}
		w.put(id, nowhere)
	}
	v.gone, v.moves = true, nil
	for _, g := range v.Apart {
		w.groups[g] = slices.DeleteFunc(w.groups[g], func(m int32) bool { return m == id })
	}
	return true
}

// AddHost takes in one more host without firm leases, the at-th of the site, if it is like one that is there. False: a full proof is
// needed.
func (w *Witness) AddHost(at int, s *guarantee.Host) bool {
	h := w.newHost(s, nil)
	if w.domains || w.pinned || s.State == guarantee.Usable && w.alike(h.class) < max(w.most, 1) {
		return false
	}
	w.hostOrder = slices.Insert(w.hostOrder, at, int32(len(w.hosts)))
	w.hosts = append(w.hosts, h)
	w.free = append(w.free, h.room...)
	return true
}

// alike counts the usable hosts of a class. With as many as are to be survived, every way to lose some of them has
// its pattern, however many more there are.
func (w *Witness) alike(class int) (n int) {
	for i := range w.hosts {
		if o := &w.hosts[i]; !o.gone && o.State == guarantee.Usable && o.class == class {
			n++
		}
	}
	return n
}

// RemoveHost forgets the at-th host of the site, after what it carries was placed elsewhere. False: a full proof is
// needed.
func (w *Witness) RemoveHost(at int) bool {
	id := w.hostOrder[at]
	usable := w.hosts[id].State == guarantee.Usable
	if w.pinned || usable && !w.Close(at, guarantee.Lost) || len(w.hosts[id].on) > 0 {
		return false
	}
	w.hosts[id].gone = true
	w.hostOrder = slices.Delete(w.hostOrder, at, at+1)
	return true
}

// Close takes the at-th host of the site out of use: it is lost, silent, or takes nothing new, and nothing runs
// there. What the witness has there is placed elsewhere, and where it was a spare another one of its kind is
// emptied. False: a full proof is needed.
func (w *Witness) Close(at int, state guarantee.State) bool {
	id := w.hostOrder[at]
	h := &w.hosts[id]
	if w.domains || w.pinned || w.together || h.State != guarantee.Usable {
		return false
	}
	h.State = state
	for n := range w.patterns {
		if w.patterns[n].loses(id) && !w.respare(int32(n), id) {
			return false
		}
	}
	for _, v := range slices.Clone(h.on) {
		w.put(v, nowhere)
		if !w.place(v) {
			return false
		}
	}
	if !w.redirect(id) {
		return false
	}
	copy(w.freeOf(id), h.room)
	h.budget = 0
	return true
}

// redirect finds other hosts for what patterns move to one that is closed.
func (w *Witness) redirect(id int32) bool {
	for _, i := range w.movers {
		v := &w.work[i]
		for m := range v.moves {
			if v.moves[m].host != id {
				continue
			}
			to := w.find(i, &w.patterns[v.moves[m].pattern])
			if to == nowhere {
				return false
			}
			v.moves[m].host = to
			w.oblige(to, i)
		}
	}
	return true
}

// respare makes another host of its kind the spare of a pattern, and moves away what that carries there.
func (w *Witness) respare(n, id int32) bool {
	p := &w.patterns[n]
	next := int32(nowhere)
	for i := range w.hosts {
		o := &w.hosts[i]
		fitting := int32(i) != id && !o.gone && o.State == guarantee.Usable && o.class == w.hosts[id].class && !p.loses(int32(i))
		if fitting && (next == nowhere || len(o.on) < len(w.hosts[next].on)) {
			next = int32(i)
		}
	}
	if next == nowhere {
		return false
	}
	spares := slices.Clone(p.spares)
	for i := range spares {
		if slices.Contains(spares[i], id) {
			spares[i] = []int32{next}
		}
	}
	p.spares = spares
	w.hosts[id].spares--
	w.hosts[next].spares++
	w.atLeast(next, w.obliged(id), w.hosts[id].budget) // It stands in for the same hosts.
	return w.evacuate(n, next)
}

// evacuate moves what a host carries in a pattern elsewhere.
func (w *Witness) evacuate(n, id int32) bool {
	of := func(mv move) bool { return mv.pattern == n }
	for _, i := range slices.Clone(w.movers) {
		v := &w.work[i]
		if m := slices.IndexFunc(v.moves, of); m >= 0 && v.moves[m].host == id {
			to := w.find(i, &w.patterns[n])
			if to == nowhere {
				return false
			}
			v.moves[m].host = to
			w.oblige(to, i)
		}
	}
	for _, i := range w.hosts[id].on {
		if slices.ContainsFunc(w.work[i].moves, of) {
			continue
		}
		to := w.find(i, &w.patterns[n])
		if to == nowhere {
			return false
		}
		w.move(i, move{n, to})
		w.oblige(to, i)
	}
	return true
}

// Certificate writes down what is kept, for the site as it is now.
func (w *Witness) Certificate() *guarantee.Certificate {
	c := &guarantee.Certificate{Scenarios: w.scenarios, Witness: make([]int32, len(w.workOrder))}
	number := make([]int32, len(w.hosts))
	for i, id := range w.hostOrder {
		number[id] = int32(i)
		c.Obligations = append(c.Obligations, w.obliged(id))
		c.Budgets = append(c.Budgets, w.hosts[id].budget)
	}
	for _, p := range w.patterns {
		q := guarantee.Pattern{Unit: p.unit}
		for _, spare := range p.spares {
			hosts := make([]int32, len(spare))
			for i, id := range spare {
				hosts[i] = number[id]
			}
			slices.Sort(hosts)
			q.Spares = append(q.Spares, hosts)
		}
		c.Patterns = append(c.Patterns, q)
	}
	for i, id := range w.workOrder {
		v := &w.work[id]
		c.Witness[i] = nowhere
		if v.at != nowhere {
			c.Witness[i] = number[v.at]
		}
		for _, m := range v.moves {
			if m.host != v.at {
				q := &c.Patterns[m.pattern]
				q.Moves = append(q.Moves, guarantee.Move{Workload: int32(i), Host: number[m.host]})
			}
		}
	}
	return c
}
