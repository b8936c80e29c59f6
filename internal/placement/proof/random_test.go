package proof_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// drawSite makes a small site with every kind of constraint: few sizes and few names, so that tight
// fits and clashes are frequent.
func drawSite(seed uint64) *guarantee.Site {
	r := &drawer{rand.New(rand.NewPCG(seed, 1))}
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "device/gpu"}[:2+r.IntN(2)]}
	hosts, equal := 1+r.IntN(5), r.IntN(3)
	for i := range hosts {
		h := r.host(s, i)
		if i > 0 && equal > 0 && r.IntN(3) > 0 {
			was := s.Hosts[r.IntN(i)]
			h.Capacity, h.Lending, h.Labels, h.Networks, h.Pools = was.Capacity, was.Lending, was.Labels, was.Networks, was.Pools
		}
		s.Hosts = append(s.Hosts, h)
	}
	running := r.IntN(3) == 0
	constrained := r.IntN(4) > 0
	for i := range r.IntN(7) {
		s.Workloads = append(s.Workloads, r.workload(s, i, running, constrained))
	}
	for range max(r.IntN(4)-2, 0) {
		s.Firm = append(s.Firm, guarantee.Instance{Host: r.oneOf(s), Demand: r.vector(s, 2<<r.IntN(3))})
	}
	switch r.IntN(7) {
	case 0:
		s.Scenarios = []guarantee.Scenario{{Name: "two", Hosts: 2}}
	case 1:
		s.Scenarios = []guarantee.Scenario{{Name: "domain", FailureDomains: 1, Hosts: r.IntN(2)}}
	case 2:
		s.Scenarios = []guarantee.Scenario{{Name: "a", Plans: []string{"p0", "p1"}, Hosts: r.IntN(3)}, {Name: "b", Plans: []string{"p1", "p2"}, Hosts: r.IntN(2), FailureDomains: r.IntN(2)}}
	case 3: // Each by itself, with a loss or none.
		for _, plan := range []string{"p0", "p1", "p2"} {
			s.Scenarios = append(s.Scenarios, guarantee.Scenario{Name: plan, Plans: []string{plan}, Hosts: r.IntN(2)})
		}
	}
	return s
}

type drawer struct{ *rand.Rand }

func (r *drawer) oneOf(s *guarantee.Site) string { return s.Hosts[r.IntN(len(s.Hosts))].Name }

func (r *drawer) vector(s *guarantee.Site, most int) guarantee.Vector {
	v := make(guarantee.Vector, len(s.Dimensions))
	for d := range v {
		v[d] = int64(r.IntN(most + 1))
	}
	return v
}

func (r *drawer) some(prefix string, n, odds int) (out []string) {
	for i := range n {
		if r.IntN(odds) > 0 {
			out = append(out, fmt.Sprint(prefix, i))
		}
	}
	return out
}

func (r *drawer) host(s *guarantee.Site, i int) guarantee.Host {
	h := guarantee.Host{
		Name: fmt.Sprintf("h%d", i), State: guarantee.Usable, Capacity: r.vector(s, 8), FailureDomain: fmt.Sprintf("d%d", r.IntN(3)),
		Labels: r.some("l", 1, 4), Networks: r.some("n", 2, 5), Pools: r.some("p", 1, 4),
	}
	for d := range h.Capacity {
		h.Capacity[d] += 2
	}
	if r.IntN(4) == 0 {
		h.FailureDomain = ""
	}
	if r.IntN(6) == 0 {
		h.State = guarantee.State(2 + r.IntN(3))
	}
	if r.IntN(5) == 0 {
		h.Lending = r.vector(s, 1)
	}
	return h
}

func (r *drawer) workload(s *guarantee.Site, i int, running, constrained bool) guarantee.Workload {
	plan := fmt.Sprintf("p%d", r.IntN(3))
	w := guarantee.Workload{Name: fmt.Sprintf("%s/w%d", plan, i), Plan: plan, Demand: r.vector(s, 4)}
	if running && r.IntN(2) == 0 {
		w.Host = r.oneOf(s)
	}
	if r.IntN(5) == 0 {
		w.Budget = time.Duration(1+r.IntN(60)) * time.Second
	}
	if !constrained {
		return w
	}
	if r.IntN(5) == 0 {
		w.Labels = []string{"l0"}
	}
	if r.IntN(3) == 0 {
		w.Networks = []string{fmt.Sprintf("n%d", r.IntN(2))}
	}
	if r.IntN(6) == 0 {
		w.Pools = []string{"p0"}
	}
	for g := range 3 {
		if r.IntN(6) == 0 {
			w.Apart = append(w.Apart, guarantee.Apart{Group: fmt.Sprintf("g%d", g), Domain: g == 2})
		}
	}
	if r.IntN(6) == 0 {
		w.Together = fmt.Sprintf("t%d", r.IntN(2))
	}
	return w
}
