// Package repair keeps a witness of the guarantee while the site changes by one workload or one host at a time:
// what is in place stays, and only what the change touches is placed. It decides where that goes, or that it does
// not know: then a full proof has the word. In quiet times it moves workloads of the witness to where fewer leases would
// have to go for them (Spare).
//
// It never claims that something does not fit, and never that it fits: its certificates are audited like any
// other. Package standing calls it, with a certificate of everything that is asked. It is pure.
package repair

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// nowhere is the host of what no scenario runs.
const nowhere = guarantee.Nowhere

// memory is the number of the dimension by which the fullest host is told; every site has it.
const memory = 1

// Witness is a certificate that is kept. Hosts and workloads have numbers that stay; order lists them as the site
// has them.
type Witness struct {
	dims      int
	scenarios []guarantee.Scenario
	hosts     []host
	work      []work
	hostOrder []int32
	workOrder []int32
	patterns  []pattern
	classes   map[string]int
	// larger says of two classes whether the first has all that the second has, once that was asked.
	larger map[[2]int]bool
	// free is what each host has beside everything that it may have to carry, by host and dimension: what is looked at
	// most lies together.
	free []int64
	// movers are the workloads that some pattern moves, each once; some are gone, or moved no more.
	movers []int32
	// groups lists the members of each that keeps apart.
	groups map[guarantee.Apart][]int32
	// idle scenarios run nothing yet: there may be no pattern for their losses.
	idle []bool
	// together: some workloads keep together; spread: some are spread over failure domains; pinned: some run.
	together, spread, pinned bool
	// most is the largest number of hosts that a scenario is to survive; domains: some survive failure domains.
	most    int
	domains bool
}

// host is one host. Its obligation is at least what any pattern may put there, never less.
type host struct {
	guarantee.Host
	room   []int64
	budget time.Duration
	// class numbers hosts that stand in for each other, as far as nothing runs there.
	class int
	on    []int32
	// spares counts the patterns that lose it.
	spares int
	gone   bool
}

// work is one workload: where it is in the witness, and where else in some patterns.
type work struct {
	guarantee.Workload
	at    int32
	moves []move
	runs  uint64
	gone  bool
}

type move struct{ pattern, host int32 }

type pattern struct {
	unit   guarantee.Unit
	spares [][]int32
}

// New keeps a certificate of a site. The certificate must be one of that site.
func New(s *guarantee.Site, c *guarantee.Certificate) *Witness {
	w := &Witness{dims: len(s.Dimensions), scenarios: c.Scenarios, classes: map[string]int{}, larger: map[[2]int]bool{}, groups: map[guarantee.Apart][]int32{}, idle: make([]bool, len(c.Scenarios))}
	for n, sc := range c.Scenarios {
		w.most, w.domains, w.idle[n] = max(w.most, sc.Hosts), w.domains || sc.FailureDomains > 0, true
	}
	firm := firmOn(s)
	for i := range s.Workloads {
		w.spread = w.spread || slices.ContainsFunc(s.Workloads[i].Apart, func(g guarantee.Apart) bool { return g.Domain })
	}
	for i := range s.Hosts {
		h := w.newHost(&s.Hosts[i], firm[s.Hosts[i].Name])
		h.budget = c.Budgets[i]
		w.hosts, w.hostOrder = append(w.hosts, h), append(w.hostOrder, int32(i))
		for d := range w.dims {
			w.free = append(w.free, guarantee.Add(h.room[d], -c.Obligations[i].At(d)))
		}
	}
	for i := range s.Workloads {
		w.work, w.workOrder = append(w.work, w.newWork(&s.Workloads[i])), append(w.workOrder, int32(i))
		w.enter(int32(i))
		if at := c.Witness[i]; at != nowhere {
			w.put(int32(i), at)
		}
	}
	for n, p := range c.Patterns {
		w.patterns = append(w.patterns, pattern{p.Unit, slices.Clone(p.Spares)})
		for _, spare := range p.Spares {
			for _, h := range spare {
				w.hosts[h].spares++
			}
		}
		for _, m := range p.Moves {
			w.move(m.Workload, move{int32(n), m.Host})
		}
	}
	return w
}

// firmOn sums up the firm leases of each host.
func firmOn(s *guarantee.Site) map[string][]int64 {
	out := map[string][]int64{}
	for i := range s.Firm {
		v := out[s.Firm[i].Host]
		if v == nil {
			v = make([]int64, len(s.Dimensions))
			out[s.Firm[i].Host] = v
		}
		for d := range v {
			v[d] = guarantee.Add(v[d], s.Firm[i].Demand.At(d))
		}
	}
	return out
}

// move notes where a pattern has a workload.
func (w *Witness) move(id int32, m move) {
	if len(w.work[id].moves) == 0 {
		w.movers = append(w.movers, id)
	}
	w.work[id].moves = append(w.work[id].moves, m)
}

// newHost is a host as the proof sees it: without its lending share and its firm leases.
func (w *Witness) newHost(s *guarantee.Host, firm []int64) host {
	h := host{Host: *s, room: make([]int64, w.dims)}
	for d := range h.room {
		h.room[d] = s.Capacity.At(d) - s.Lending.At(d)
		if firm != nil {
			h.room[d] = guarantee.Add(h.room[d], -firm[d])
		}
	}
	var b strings.Builder
	fmt.Fprint(&b, h.room)
	for _, names := range [][]string{s.Labels, s.Networks, s.Pools} {
		b.WriteString("\x00" + strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), "\x01"))
	}
	switch { // What is spread over failure domains moves within one; a host in none is one for itself.
	case w.spread && s.FailureDomain == "":
		b.WriteString("\x00\x00" + s.Name)
	case w.spread:
		b.WriteString("\x00" + s.FailureDomain)
	}
	number, known := w.classes[b.String()]
	if !known {
		number = len(w.classes)
		w.classes[b.String()] = number
	}
	h.class = number
	return h
}

func (w *Witness) newWork(s *guarantee.Workload) work {
	v := work{Workload: *s, at: nowhere}
	for n, sc := range w.scenarios {
		if sc.Covers(s.Plan) {
			v.runs |= 1 << n
		}
	}
	return v
}

// enter notes what a workload asks of others.
func (w *Witness) enter(id int32) {
	v := &w.work[id]
	for n := range w.idle {
		w.idle[n] = w.idle[n] && v.runs>>n&1 == 0
	}
	for _, g := range v.Apart {
		w.groups[g] = append(w.groups[g], id)
		w.spread = w.spread || g.Domain
	}
	w.together, w.pinned = w.together || v.Together != "", w.pinned || v.Host != ""
}

// put places a workload in the witness.
func (w *Witness) put(id, h int32) {
	v := &w.work[id]
	if v.at != nowhere {
		on := w.hosts[v.at].on
		on[slices.Index(on, id)] = on[len(on)-1]
		w.hosts[v.at].on = on[:len(on)-1]
	}
	v.at = h
	if h != nowhere {
		w.hosts[h].on = append(w.hosts[h].on, id)
	}
}

// oblige raises what a host may have to carry by a workload, and with it what the spares that may stand in for it
// carry.
func (w *Witness) oblige(h, id int32) {
	v, free := &w.work[id], w.freeOf(h)
	for d := range free {
		free[d] = guarantee.Add(free[d], -v.Demand.At(d))
	}
	w.hasten(h, v.Budget)
	w.standIn(h)
}

// freeOf is the part of free that is a host's.
func (w *Witness) freeOf(h int32) []int64 {
	return w.free[int(h)*w.dims : (int(h)+1)*w.dims : (int(h)+1)*w.dims]
}

// obliged is what a host may have to carry.
func (w *Witness) obliged(h int32) []int64 {
	out := slices.Clone(w.hosts[h].room)
	for d, free := range w.freeOf(h) {
		out[d] = guarantee.Add(out[d], -free)
	}
	return out
}

func (w *Witness) hasten(h int32, budget time.Duration) {
	if x := &w.hosts[h]; budget > 0 && (x.budget == 0 || budget < x.budget) {
		x.budget = budget
	}
}

// standIn obliges each spare that may stand in for a host to what that may carry: its load moves there as a block.
func (w *Witness) standIn(h int32) {
	obliged := w.obliged(h)
	for s := range w.standIns(h) {
		w.atLeast(s, obliged, w.hosts[h].budget)
	}
}

// standIns walks the spares that may stand in for a host, for each pattern anew.
func (w *Witness) standIns(h int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for _, p := range w.patterns {
			for _, spare := range p.spares {
				for _, s := range spare {
					if s != h && w.standsIn(s, h) && !yield(s) {
						return
					}
				}
			}
		}
	}
}

// standsIn says whether a host has all that another one has, so that its load may move there as a block. Whether
// something there is spread over failure domains, which would forbid it, is not asked: more is obliged then than need be.
func (w *Witness) standsIn(s, h int32) bool {
	a, b := &w.hosts[s], &w.hosts[h]
	if a.class == b.class {
		return true
	}
	key := [2]int{a.class, b.class}
	is, known := w.larger[key]
	if !known {
		is = has(b.Labels, a.Labels) && has(b.Networks, a.Networks) && has(b.Pools, a.Pools)
		for d := range a.room {
			is = is && b.room[d] <= a.room[d]
		}
		w.larger[key] = is
	}
	return is
}

// atLeast raises what a host may have to carry to so much.
func (w *Witness) atLeast(h int32, obliged []int64, budget time.Duration) {
	free := w.freeOf(h)
	for d := range free {
		free[d] = min(free[d], guarantee.Add(w.hosts[h].room[d], -obliged[d]))
	}
	w.hasten(h, budget)
}

func fits(v, room []int64) bool {
	for d := range v {
		if v[d] > 0 && v[d] > room[d] {
			return false
		}
	}
	return true
}

func has(want, have []string) bool {
	return !slices.ContainsFunc(want, func(n string) bool { return !slices.Contains(have, n) })
}

// may says whether a host could ever take a workload.
func (w *Witness) may(v *work, h *host) bool {
	return !h.gone && h.State == guarantee.Usable && has(v.Labels, h.Labels) && has(v.Networks, h.Networks) && has(v.Pools, h.Pools)
}

// spaceFor says whether a workload fits beside everything that a host may have to carry, less what leaves it.
func (w *Witness) spaceFor(v, less *work, free []int64) bool {
	for d, want := range v.Demand {
		if want > 0 && want > free[d] && (less == nil || want > free[d]+less.Demand.At(d)) {
			return false
		}
	}
	return true
}

// clash says whether somebody that keeps apart from a workload is on a host in any pattern.
func (w *Witness) clash(id, at int32) bool {
	h := &w.hosts[at]
	for _, g := range w.work[id].Apart {
		near := func(x int32) bool {
			return x != nowhere && (x == at || g.Domain && h.FailureDomain != "" && w.hosts[x].FailureDomain == h.FailureDomain)
		}
		for _, m := range w.groups[g] {
			if o := &w.work[m]; m != id && !o.gone && (near(o.at) || slices.ContainsFunc(o.moves, func(mv move) bool { return near(mv.host) })) {
				return true
			}
		}
	}
	return false
}

// find returns the host that a workload fills most, of those that take it in every pattern; nowhere if none does.
// Hosts that a pattern loses take nothing in the witness; with a pattern, only what that one loses is closed.
func (w *Witness) find(id int32, p *pattern) int32 {
	v := &w.work[id]
	want := v.Demand.At(memory)
	best, bestFree := int32(nowhere), int64(math.MaxInt64)
	for i, at := int32(0), memory; at < len(w.free); i, at = i+1, at+w.dims {
		if free := w.free[at]; free < want && want > 0 || free >= bestFree || !w.spaceFor(v, nil, w.freeOf(i)) {
			continue
		}
		if h := &w.hosts[i]; p == nil && h.spares > 0 || p != nil && p.loses(i) || !w.may(v, h) || w.clash(id, i) {
			continue
		}
		best, bestFree = i, w.free[at]
	}
	return best
}

func (p *pattern) loses(h int32) bool {
	return slices.ContainsFunc(p.spares, func(spare []int32) bool { return slices.Contains(spare, h) })
}

// ejections bounds how many workloads are tried to be moved for another one.
const ejections = 400

// place puts a workload where it fits in every pattern, if need be by moving one other.
func (w *Witness) place(id int32) bool {
	if h := w.find(id, nil); h != nowhere {
		w.put(id, h)
		w.oblige(h, id)
		return true
	}
	v, tries := &w.work[id], 0
	for i := range w.hosts {
		h := &w.hosts[i]
		if h.spares > 0 || !w.may(v, h) || w.clash(id, int32(i)) {
			continue
		}
		for _, other := range slices.Clone(h.on) {
			if tries++; tries > ejections {
				return false
			}
			o := &w.work[other]
			if o.Host != "" || o.Together != "" || !w.sole(o) || !w.spaceFor(v, o, w.freeOf(int32(i))) {
				continue
			}
			if to := w.find(other, nil); to != nowhere && to != int32(i) {
				w.relieve(int32(i), o)
				w.put(other, to)
				w.oblige(to, other)
				w.put(id, int32(i))
				w.oblige(int32(i), id)
				return true
			}
		}
	}
	return false
}

// sole says whether a workload counts in full in the largest load of its host: it is there in every pattern, and
// every scenario runs it. On a host that stands in for others nothing is: some pattern moves it.
func (w *Witness) sole(o *work) bool {
	return len(o.moves) == 0 && o.runs == 1<<len(w.scenarios)-1
}

func (w *Witness) relieve(h int32, o *work) {
	free := w.freeOf(h)
	for d := range free {
		free[d] += o.Demand.At(d)
	}
}
