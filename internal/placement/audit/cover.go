package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// maxLosses bounds how many units a certificate may lose, maxMultisets how many patterns of classes
// are looked at: a site for which that is not enough is not proven.
const (
	maxLosses    = 8
	maxMultisets = 200_000
)

// kind is what a host is like when it is lost, or when it stands in for one that is.
type kind struct {
	// shape numbers hosts with equal room, labels, networks and pools.
	shape int
	// spare: usable, and nothing runs here that stays.
	spare bool
	// clean: what runs here and stays might be placed like this, so that it may move as a block.
	clean bool
	// spread: something that is spread over failure domains may be here.
	spread bool
}

// unit is what is lost at one time.
type unit struct {
	hosts []int32
	// shapes of the hosts, sorted: a block per host moves to a spare of equal shape. Domains only.
	shapes []int
	spare  bool
	clean  bool
}

// shape is a number of hosts that are equal but for what runs there and their failure domain.
type shape struct {
	room   guarantee.Vector
	offers [3][]string
	spread bool
}

// classify finds the shapes of the hosts and the units.
func (a *auditor) classify() {
	a.kinds = make([]kind, len(a.s.Hosts))
	var shapes []shape
	numbers := map[string]int{}
	runs := a.runs()
	for i := range a.s.Hosts {
		h := &a.s.Hosts[i]
		sh := shape{room: a.room[i], offers: [3][]string{sorted(h.Labels), sorted(h.Networks), sorted(h.Pools)}}
		key := fmt.Sprint(sh.room, "\x00", strings.Join(sh.offers[0], "\x01"), "\x00", strings.Join(sh.offers[1], "\x01"), "\x00", strings.Join(sh.offers[2], "\x01"))
		n, known := numbers[key]
		if !known {
			n = len(shapes)
			numbers[key] = n
			sh.spread = a.maySpread(int32(i))
			shapes = append(shapes, sh)
		}
		k := kind{shape: n, spare: h.State == guarantee.Usable && len(runs[i]) == 0, clean: true, spread: shapes[n].spread}
		for _, w := range runs[i] {
			k.clean = k.clean && a.reaches(&a.s.Workloads[w], h)
			k.spread = k.spread || slices.ContainsFunc(a.s.Workloads[w].Apart, func(g guarantee.Apart) bool { return g.Domain })
		}
		a.kinds[i] = k
	}
	a.shapes = shapes
	a.unclean()
	a.findUnits(runs)
}

func sorted(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return slices.Compact(out)
}

// runs lists for each host what runs there and stays.
func (a *auditor) runs() [][]int32 {
	out := make([][]int32, len(a.s.Hosts))
	for w, h := range a.stays {
		if h >= 0 {
			out[h] = append(out[h], int32(w))
		}
	}
	return out
}

// maySpread says whether a host with this room might be given something spread over failure domains.
func (a *auditor) maySpread(h int32) bool {
	for g, members := range a.apart { // Any order: whether there is one.
		if !g.Domain {
			continue
		}
		for _, w := range members {
			if a.in[w] != 0 && a.reaches(&a.s.Workloads[w], &a.s.Hosts[h]) && holds(a.room[h], a.s.Workloads[w].Demand) {
				return true
			}
		}
	}
	return false
}

// holds says whether an empty host has room for a demand. What asks for nothing fits where there is less than nothing.
func holds(room, demand guarantee.Vector) bool {
	for d, n := range demand {
		if n > 0 && n > room.At(d) {
			return false
		}
	}
	return true
}

// unclean marks the hosts of workloads that run where their groups forbid it.
func (a *auditor) unclean() {
	for g, members := range a.apart { // Any order: marks only add up.
		first := map[place]int32{}
		for _, w := range members {
			h := a.stays[w]
			if h < 0 {
				continue
			}
			p := a.place(g, h)
			if other, taken := first[p]; taken {
				a.kinds[h].clean, a.kinds[a.stays[other]].clean = false, false
			} else {
				first[p] = w
			}
		}
	}
}

// findUnits makes the units of each sort. A host that carries nothing and takes nothing is in none.
func (a *auditor) findUnits(runs [][]int32) {
	domains := map[string][]int32{}
	for _, u := range []guarantee.Unit{guarantee.UnitHost, guarantee.UnitDomain} {
		a.unitAt[u] = slices.Repeat([]int32{-1}, len(a.s.Hosts))
	}
	for i := range a.s.Hosts {
		h, k := &a.s.Hosts[i], a.kinds[i]
		if h.State == guarantee.Lost || h.State != guarantee.Usable && len(runs[i]) == 0 {
			continue
		}
		a.addUnit(guarantee.UnitHost, unit{hosts: []int32{int32(i)}, spare: k.spare, clean: k.clean})
		name := h.FailureDomain
		if name == "" {
			name = "\x00" + h.Name
		}
		domains[name] = append(domains[name], int32(i))
	}
	for _, hosts := range ordered(domains) {
		d := unit{hosts: hosts, spare: true, clean: true}
		for _, h := range hosts {
			k := a.kinds[h]
			d.shapes = append(d.shapes, k.shape)
			d.spare, d.clean = d.spare && k.spare, d.clean && k.clean
		}
		slices.Sort(d.shapes)
		a.addUnit(guarantee.UnitDomain, d)
	}
}

// ordered lists the domains by their first hosts.
func ordered(domains map[string][]int32) [][]int32 {
	var out [][]int32
	for _, hosts := range domains { // Any order: sorted below.
		out = append(out, hosts)
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func (a *auditor) addUnit(sort guarantee.Unit, u unit) {
	for _, h := range u.hosts {
		a.unitAt[sort][h] = int32(len(a.units[sort]))
	}
	a.units[sort] = append(a.units[sort], u)
}

// dominates says whether the load of b may move to a, which is empty, as one block for each host.
func (a *auditor) dominates(top, b *unit) bool {
	if !top.spare || !b.clean {
		return false
	}
	if top.shapes != nil { // A whole domain moves into an empty one, host by host of equal shape.
		return includes(top.shapes, b.shapes)
	}
	t, low := top.hosts[0], b.hosts[0]
	if a.kinds[low].spread {
		d := a.s.Hosts[low].FailureDomain
		if d != a.s.Hosts[t].FailureDomain || d == "" && t != low {
			return false
		}
	}
	small, large := &a.shapes[a.kinds[low].shape], &a.shapes[a.kinds[t].shape]
	return small == large || small.room.Fits(large.room) && subset(small.offers[0], large.offers[0]) &&
		subset(small.offers[1], large.offers[1]) && subset(small.offers[2], large.offers[2])
}

// includes says whether every number of b is in a, as often. Both are sorted.
func includes(a, b []int) bool {
	i := 0
	for _, n := range b {
		for i < len(a) && a[i] < n {
			i++
		}
		if i == len(a) || a[i] != n {
			return false
		}
		i++
	}
	return true
}

// coverage checks that the patterns cover every loss of as many units as the scenarios survive.
func (a *auditor) coverage(sort guarantee.Unit) error {
	done := map[int]bool{0: true}
	for _, sc := range a.c.Scenarios {
		k := sc.Hosts
		if sort == guarantee.UnitDomain {
			k = sc.FailureDomains
		}
		if done[k] {
			continue
		}
		done[k] = true
		switch {
		case k < 0 || k > maxLosses:
			return fmt.Errorf("scenario %s loses %d at one time; the most is %d", sc.Name, k, maxLosses)
		case a.idle(a.survivors(sort, k)):
			continue // Nothing has to run.
		case len(a.units[sort]) < k:
			return fmt.Errorf("scenario %s loses %d at one time and the site has %d", sc.Name, k, len(a.units[sort]))
		}
		c := &cover{auditor: a, sort: sort, losses: k}
		if err := c.check(); err != nil {
			return fmt.Errorf("scenario %s: %w", sc.Name, err)
		}
	}
	return nil
}

// idle says whether the scenarios run nothing.
func (a *auditor) idle(scenarios uint64) bool {
	return !slices.ContainsFunc(a.in, func(in uint64) bool { return in&scenarios != 0 })
}

// cover looks for losses that no pattern covers.
type cover struct {
	*auditor
	sort   guarantee.Unit
	losses int
	// patterns by the numbers of their spare units.
	patterns [][]int
	left     int
}

func (c *cover) check() error {
	whole := map[int]bool{}
	for i := range c.c.Patterns {
		p := &c.c.Patterns[i]
		if p.Unit != c.sort || len(p.Spares) != c.losses {
			continue
		}
		var spares []int
		for _, hosts := range p.Spares {
			spares = append(spares, int(c.unitAt[c.sort][hosts[0]]))
		}
		c.patterns = append(c.patterns, spares)
		if c.losses == 1 {
			whole[spares[0]] = true
		}
	}
	wide, wideKeys := c.wide()
	classes := map[string]int{}
	var rest []group
	for u := range c.units[c.sort] {
		key := c.key(u)
		// With more losses than one the wide classes are lost too, beside the others.
		if whole[u] || (c.losses == 1 || !wideKeys[key]) &&
			slices.ContainsFunc(wide, func(t int) bool { return c.dominates(&c.units[c.sort][t], &c.units[c.sort][u]) }) {
			continue
		}
		n, known := classes[key]
		if !known {
			n = len(rest)
			classes[key] = n
			rest = append(rest, group{unit: u})
		}
		rest[n].count++
	}
	c.left = maxMultisets
	return c.multisets(rest, nil)
}

// group is a number of units that are equal when they are lost.
type group struct{ unit, count int }

// wide are spares with so many equals that one is left to stand in, whatever else is lost.
func (c *cover) wide() (out []int, keys map[string]bool) {
	equals := map[string]int{}
	for u := range c.units[c.sort] {
		equals[c.key(u)]++
	}
	keys = map[string]bool{}
	for _, spares := range c.patterns {
		for _, u := range spares {
			if k := c.key(u); !keys[k] && c.units[c.sort][u].spare && equals[k] >= c.losses {
				keys[k] = true
				out = append(out, u)
			}
		}
	}
	return out, keys
}

// key is the same for units that may stand in for each other.
func (c *cover) key(u int) string {
	x := &c.units[c.sort][u]
	switch {
	case !x.spare:
		return fmt.Sprint("unit ", u)
	case x.shapes != nil:
		return fmt.Sprint("shapes ", x.shapes)
	}
	k, h := c.kinds[x.hosts[0]], &c.s.Hosts[x.hosts[0]]
	switch {
	case !k.spread:
		return fmt.Sprint("shape ", k.shape)
	case h.FailureDomain == "":
		return fmt.Sprint("unit ", u)
	default:
		return fmt.Sprint("shape ", k.shape, " in ", h.FailureDomain)
	}
}

// multisets tries every way to lose units of the classes, and wants a pattern for each.
func (c *cover) multisets(rest []group, taken []int) error {
	if len(taken) == c.losses {
		if c.left--; c.left < 0 {
			return fmt.Errorf("more than %d patterns to look at", maxMultisets)
		}
		for _, p := range c.patterns {
			if c.matches(taken, p, 0, make([]bool, len(p))) {
				return nil
			}
		}
		var names []string
		for _, u := range taken {
			names = append(names, c.s.Hosts[c.units[c.sort][u].hosts[0]].Name)
		}
		return fmt.Errorf("no pattern covers the loss of %s", strings.Join(names, ", "))
	}
	for i, g := range rest {
		// The others of the class count on; classes before it are done with.
		next := slices.Clone(rest[i:])
		next[0].count--
		if next[0].count == 0 {
			next = next[1:]
		}
		if err := c.multisets(next, append(taken, g.unit)); err != nil {
			return err
		}
	}
	return nil
}

// matches says whether each lost unit has a spare of its own that stands in for it, or is one.
func (c *cover) matches(lost, spares []int, i int, used []bool) bool {
	if i == len(lost) {
		return true
	}
	for j, s := range spares {
		if used[j] || s != lost[i] && !c.dominates(&c.units[c.sort][s], &c.units[c.sort][lost[i]]) {
			continue
		}
		used[j] = true
		if c.matches(lost, spares, i+1, used) {
			return true
		}
		used[j] = false
	}
	return false
}
