// Package audit checks certificates of the guarantee: that the witness and every pattern is a correct
// placement, that the patterns cover every loss, and that the obligations are large enough. It takes
// nothing from the search that made them, and shares no code with it, so that a fault of one is seen
// by the other. Time is linear in the site and the certificate, but for the classes of hosts.
//
// It never mends and never searches. Whoever accepts a certificate calls it.
package audit

import (
	"fmt"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// maxScenarios is the width of the sets of scenarios.
const maxScenarios = 64

// Check says what is wrong with a certificate for the site; nil: nothing is.
func Check(s *guarantee.Site, c *guarantee.Certificate) error {
	a, err := newAuditor(s, c)
	if err != nil {
		return err
	}
	if err := a.witness(); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	a.classify()
	for i := range c.Patterns {
		if err := a.pattern(&c.Patterns[i]); err != nil {
			return fmt.Errorf("pattern %d: %w", i, err)
		}
	}
	for _, unit := range []guarantee.Unit{guarantee.UnitHost, guarantee.UnitDomain} {
		if err := a.coverage(unit); err != nil {
			return err
		}
	}
	return nil
}

type auditor struct {
	s *guarantee.Site
	c *guarantee.Certificate
	// room of each host without its lending share and firm leases.
	room []guarantee.Vector
	// stays is where a workload runs and stays; -1: it is free.
	stays []int32
	// in is the set of scenarios that run a workload.
	in []uint64
	// groups of workloads that keep apart, by group and by reach; bound ones keep together.
	apart map[guarantee.Apart][]int32
	bound map[string][]int32
	// on lists the workloads of each host in the witness, load what they need by scenario.
	on   [][]int32
	load [][]guarantee.Vector
	// kinds of the hosts, the units of each sort, and the unit of each host: see cover.go.
	kinds  []kind
	shapes []shape
	units  map[guarantee.Unit][]unit
	unitAt map[guarantee.Unit][]int32
}

func newAuditor(s *guarantee.Site, c *guarantee.Certificate) (*auditor, error) {
	switch {
	case c == nil:
		return nil, fmt.Errorf("there is no certificate")
	case len(c.Scenarios) == 0 || len(c.Scenarios) > maxScenarios:
		return nil, fmt.Errorf("it is for %d scenarios", len(c.Scenarios))
	case len(c.Witness) != len(s.Workloads):
		return nil, fmt.Errorf("it places %d of %d workloads", len(c.Witness), len(s.Workloads))
	case len(c.Obligations) != len(s.Hosts) || len(c.Budgets) != len(s.Hosts):
		return nil, fmt.Errorf("it obliges %d of %d hosts", len(c.Obligations), len(s.Hosts))
	}
	a := &auditor{
		s: s, c: c, stays: make([]int32, len(s.Workloads)), in: make([]uint64, len(s.Workloads)),
		apart: map[guarantee.Apart][]int32{}, bound: map[string][]int32{},
		on: make([][]int32, len(s.Hosts)), load: make([][]guarantee.Vector, len(s.Hosts)), units: map[guarantee.Unit][]unit{}, unitAt: map[guarantee.Unit][]int32{},
	}
	names := make(map[string]int32, len(s.Hosts))
	for i, h := range s.Hosts {
		names[h.Name] = int32(i)
		room := make(guarantee.Vector, len(s.Dimensions))
		for d := range room {
			room[d] = h.Capacity.At(d) - h.Lending.At(d)
		}
		a.room = append(a.room, room)
		a.load[i] = a.zero()
	}
	for _, f := range s.Firm {
		if h, ok := names[f.Host]; ok {
			for d := range a.room[h] {
				a.room[h][d] = guarantee.Add(a.room[h][d], -f.Demand.At(d))
			}
		}
	}
	a.workloads(names)
	return a, nil
}

func (a *auditor) zero() []guarantee.Vector {
	out := make([]guarantee.Vector, len(a.c.Scenarios))
	for i := range out {
		out[i] = make(guarantee.Vector, len(a.s.Dimensions))
	}
	return out
}

// workloads notes where each runs, which scenarios run it, and the groups.
func (a *auditor) workloads(names map[string]int32) {
	home := map[string]int32{}
	for i := range a.s.Workloads {
		w := &a.s.Workloads[i]
		a.stays[i] = -1
		if h, ok := names[w.Host]; ok && a.s.Hosts[h].State != guarantee.Lost {
			a.stays[i] = h
			a.in[i] = 1<<len(a.c.Scenarios) - 1
		}
		for n, sc := range a.c.Scenarios {
			if sc.Covers(w.Plan) {
				a.in[i] |= 1 << n
			}
		}
		for _, g := range w.Apart {
			a.apart[g] = append(a.apart[g], int32(i))
		}
		if w.Together == "" {
			continue
		}
		a.bound[w.Together] = append(a.bound[w.Together], int32(i))
		if h := a.stays[i]; h >= 0 {
			if other, ok := home[w.Together]; ok && other != h {
				home[w.Together] = -1 // They run apart: it binds no more.
			} else {
				home[w.Together] = h
			}
		}
	}
	// Any order: each group is looked at by itself.
	for name, h := range home {
		if h < 0 {
			delete(a.bound, name)
		}
	}
}

// witness checks the placement without losses.
func (a *auditor) witness() error {
	for i, h := range a.c.Witness {
		switch {
		case h == guarantee.Nowhere && a.in[i] == 0:
			continue
		case h < 0 || int(h) >= len(a.s.Hosts):
			return fmt.Errorf("%s has no host", a.s.Workloads[i].Name)
		}
		a.on[h] = append(a.on[h], int32(i))
		a.carry(a.load[h], int32(i), 1)
	}
	everyone := ^uint64(0)
	for i, h := range a.c.Witness {
		if h >= 0 {
			if err := a.allowed(int32(i), h, nil); err != nil {
				return err
			}
		}
	}
	if err := a.groups(); err != nil {
		return err
	}
	for h := range a.s.Hosts {
		if err := a.within(int32(h), a.load[h], everyone); err != nil {
			return err
		}
	}
	return nil
}

// carry adds a workload to the loads of a host, or takes it off.
func (a *auditor) carry(load []guarantee.Vector, w int32, sign int64) {
	for n := range load {
		if a.in[w]>>n&1 == 0 {
			continue
		}
		for d := range load[n] {
			load[n][d] = guarantee.Add(load[n][d], sign*a.s.Workloads[w].Demand.At(d))
		}
	}
}

// within says whether a load of a host is within its room and its obligation.
func (a *auditor) within(h int32, load []guarantee.Vector, scenarios uint64) error {
	for n := range load {
		if scenarios>>n&1 == 0 {
			continue
		}
		for d, amount := range load[n] {
			if amount > 0 && amount > a.room[h][d] {
				return fmt.Errorf("host %s carries %s of %s", a.s.Hosts[h].Name,
					guarantee.Quantity(a.s.Dimensions[d], amount), guarantee.Quantity(a.s.Dimensions[d], a.room[h][d]))
			}
			if amount > a.c.Obligations[h].At(d) {
				return fmt.Errorf("host %s is obliged to %s and may carry %s", a.s.Hosts[h].Name,
					guarantee.Quantity(a.s.Dimensions[d], a.c.Obligations[h].At(d)), guarantee.Quantity(a.s.Dimensions[d], amount))
			}
		}
	}
	return nil
}

// allowed says whether a workload may be on a host by itself.
func (a *auditor) allowed(w, h int32, lost map[int32]bool) error {
	wl, host := &a.s.Workloads[w], &a.s.Hosts[h]
	if err := a.budget(w, h); err != nil {
		return err
	}
	switch home := a.stays[w]; {
	case lost[h]:
		return fmt.Errorf("%s is on %s, which is lost", wl.Name, host.Name)
	case home == h:
		return nil
	case home >= 0 && !lost[home]:
		return fmt.Errorf("%s runs on %s and is moved", wl.Name, a.s.Hosts[home].Name)
	case host.State != guarantee.Usable:
		return fmt.Errorf("%s is on %s, which takes nothing new", wl.Name, host.Name)
	case !a.reaches(wl, host):
		return fmt.Errorf("%s needs what %s does not have", wl.Name, host.Name)
	}
	return nil
}

// budget says whether a host that may carry a workload gives its room back in time.
func (a *auditor) budget(w, h int32) error {
	wl := &a.s.Workloads[w]
	if b := a.c.Budgets[h]; wl.Budget > 0 && (b == 0 || b > wl.Budget) {
		return fmt.Errorf("host %s has a budget of %v, %s has %v", a.s.Hosts[h].Name, b, wl.Name, wl.Budget)
	}
	return nil
}

func (a *auditor) reaches(w *guarantee.Workload, h *guarantee.Host) bool {
	return subset(w.Labels, h.Labels) && subset(w.Networks, h.Networks) && subset(w.Pools, h.Pools)
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(x string) bool { return !slices.Contains(all, x) })
}

// place is a host, or its failure domain if that is what a group is spread over.
type place struct {
	domain string
	host   int32
}

func (a *auditor) place(g guarantee.Apart, h int32) place {
	if d := a.s.Hosts[h].FailureDomain; g.Domain && d != "" {
		return place{domain: d, host: -1}
	}
	return place{host: h}
}

// groups checks those that keep apart and those that keep together in the witness.
func (a *auditor) groups() error {
	for g, members := range a.apart { // Any order: each group by itself, and any fault will do.
		first := map[place]int32{}
		for _, w := range members {
			h := a.c.Witness[w]
			if h < 0 {
				continue
			}
			p := a.place(g, h)
			other, taken := first[p]
			if taken && (a.stays[w] != h || a.stays[other] != a.c.Witness[other]) {
				return fmt.Errorf("%s and %s keep apart and are on %s", a.s.Workloads[w].Name, a.s.Workloads[other].Name, a.s.Hosts[h].Name)
			}
			if !taken || a.stays[w] != h {
				first[p] = w
			}
		}
	}
	for name, members := range a.bound { // Any order: as above.
		at := int32(guarantee.Nowhere)
		for _, w := range members {
			h := a.c.Witness[w]
			if h >= 0 && at >= 0 && h != at {
				return fmt.Errorf("%s keep together and are on two hosts", name)
			}
			if h >= 0 {
				at = h
			}
		}
	}
	return nil
}
