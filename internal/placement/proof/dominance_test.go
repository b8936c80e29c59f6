package proof_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// clause is a site where one clause of the dominance rule decides: the first host, or its domain, would
// stand in for the second but for that clause. Without the clause only the loss of the first is looked
// at, which the site survives; it does not survive the loss of the second.
type clause struct {
	name string
	site guarantee.Site
	// at is where the workloads are, moves what changes when the first is lost.
	at    []int32
	moves []guarantee.Move
	// mend changes the site so that the first does dominate, and one pattern is enough.
	mend func(s *guarantee.Site)
}

func clauseHost(name string, v ...int64) guarantee.Host {
	return guarantee.Host{Name: name, State: guarantee.Usable, Capacity: v}
}

func clauseWorkload(name string, v ...int64) guarantee.Workload {
	return guarantee.Workload{Name: "p/" + name, Plan: "p", Demand: v}
}

// oneOfTwo is a workload that only the second host holds, after change.
func oneOfTwo(change func(s *guarantee.Site)) guarantee.Site {
	s := guarantee.Site{
		Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "device/gpu"},
		Hosts:      []guarantee.Host{clauseHost("top", 9, 9, 1), clauseHost("low", 4, 4, 1)},
		Workloads:  []guarantee.Workload{clauseWorkload("w", 4, 4, 1)},
	}
	change(&s)
	return s
}

func clauses() []clause {
	have := []string{"it"}
	second := []int32{1}
	return slices.Concat([]clause{
		{
			"labels", oneOfTwo(func(s *guarantee.Site) { s.Hosts[1].Labels, s.Workloads[0].Labels = have, have }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Labels = have },
		},
		{
			"networks", oneOfTwo(func(s *guarantee.Site) { s.Hosts[1].Networks, s.Workloads[0].Networks = have, have }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Networks = have },
		},
		{
			"pools", oneOfTwo(func(s *guarantee.Site) { s.Hosts[1].Pools, s.Workloads[0].Pools = have, have }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Pools = have },
		},
		{
			"devices", oneOfTwo(func(s *guarantee.Site) { s.Hosts[0].Capacity[2] = 0 }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Capacity = guarantee.Vector{9, 9, 1} },
		},
		{
			"capacity in every dimension", oneOfTwo(func(s *guarantee.Site) { s.Hosts[0].Capacity[0] = 3 }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Capacity = guarantee.Vector{4, 9, 1} },
		},
		{
			"net of firm leases", oneOfTwo(func(s *guarantee.Site) {
				s.Firm = []guarantee.Instance{{Host: "top", Demand: guarantee.Vector{6, 0, 0}}}
			}),
			second, nil, func(s *guarantee.Site) { s.Firm = nil },
		},
		{
			"net of the lending share", oneOfTwo(func(s *guarantee.Site) { s.Hosts[0].Lending = guarantee.Vector{0, 0, 1} }),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Lending = nil },
		},
		{
			"a block that may move: its host has no more what it needs", oneOfTwo(func(s *guarantee.Site) {
				s.Workloads[0].Labels, s.Workloads[0].Host = have, "low"
			}),
			second, nil, func(s *guarantee.Site) { s.Hosts[0].Labels, s.Hosts[1].Labels = have, have },
		},
	}, groupClauses(), unitClauses())
}

// groupClauses are those about groups.
func groupClauses() []clause {
	apart := func(g guarantee.Apart, on string) []guarantee.Workload {
		out := []guarantee.Workload{clauseWorkload("v", 2), clauseWorkload("w", 2)}
		for i := range out {
			out[i].Apart, out[i].Host = []guarantee.Apart{g}, on
		}
		return out
	}
	domains := []guarantee.Host{clauseHost("top", 9), clauseHost("low", 4), clauseHost("other", 4)}
	domains[0].FailureDomain, domains[1].FailureDomain, domains[2].FailureDomain = "a", "b", "a"
	return []clause{
		{
			"the failure domain, when a workload has a rule for it",
			guarantee.Site{Dimensions: []string{guarantee.VCPUs}, Hosts: domains, Workloads: apart(guarantee.Apart{Group: "g", Domain: true}, "")},
			[]int32{1, 2},
			nil, func(s *guarantee.Site) { s.Workloads = apart(guarantee.Apart{Group: "g"}, "") },
		},
		{
			"a block that may move: it keeps apart and runs on one host",
			guarantee.Site{Dimensions: []string{guarantee.VCPUs}, Hosts: []guarantee.Host{clauseHost("top", 9), clauseHost("low", 4)}, Workloads: apart(guarantee.Apart{Group: "g"}, "low")},
			[]int32{1, 1},
			nil, func(s *guarantee.Site) { s.Workloads[0].Apart = nil },
		},
	}
}

// unitClauses are those about what is lost at one time.
func unitClauses() []clause {
	runs, w := clauseWorkload("v", 4, 1), clauseWorkload("w", 1, 4)
	runs.Host = "top"
	small := []guarantee.Host{clauseHost("one", 9), clauseHost("two-a", 4), clauseHost("two-b", 4)}
	small[0].FailureDomain, small[1].FailureDomain, small[2].FailureDomain = "one", "two", "two"
	pair := []guarantee.Workload{clauseWorkload("v", 2), clauseWorkload("w", 2)}
	pair[0].Apart, pair[1].Apart = []guarantee.Apart{{Group: "g"}}, []guarantee.Apart{{Group: "g"}}
	return []clause{
		{
			"what stands in is empty",
			guarantee.Site{
				Dimensions: []string{guarantee.VCPUs, guarantee.Memory}, Workloads: []guarantee.Workload{runs, w},
				Hosts: []guarantee.Host{clauseHost("top", 5, 4), clauseHost("low", 5, 4), clauseHost("other", 4, 1)},
			},
			[]int32{0, 1},
			[]guarantee.Move{{Workload: 0, Host: 2}},
			func(s *guarantee.Site) { s.Workloads[0].Host = "" },
		},
		{
			"a domain holds another host by host",
			guarantee.Site{
				Dimensions: []string{guarantee.VCPUs}, Hosts: small, Workloads: pair, Scenarios: []guarantee.Scenario{{Name: "all", FailureDomains: 1}},
			},
			[]int32{1, 2},
			nil, nil,
		},
	}
}

// byHand is a certificate that leaves out every loss but the first.
func (c *clause) byHand(s *guarantee.Site) *guarantee.Certificate {
	out := &guarantee.Certificate{Scenarios: s.Asked(), Witness: c.at, Patterns: []guarantee.Pattern{{Unit: guarantee.UnitHost, Spares: [][]int32{{0}}, Moves: c.moves}}}
	if s.Asked()[0].FailureDomains > 0 {
		out.Patterns[0].Unit = guarantee.UnitDomain
	}
	for i := range s.Hosts {
		out.Obligations, out.Budgets = append(out.Obligations, s.Hosts[i].Capacity), append(out.Budgets, 0)
	}
	return out
}

// Each clause of the dominance rule is needed: without it the search would say "fits" where a loss is
// not survived, and the audit would believe a certificate that leaves that loss out.
func TestEachClauseOfDominance(t *testing.T) {
	for _, c := range clauses() {
		t.Run(c.name, func(t *testing.T) {
			s := c.site
			if oracleFits(&s, s.Asked()) {
				t.Fatal("the site of this case is wrong: it survives every loss")
			}
			if d := proof.Prove(&s); d.Answer != guarantee.CannotFit || d.Proven != 0 || strings.Contains(d.Reason, "wrong certificate") {
				t.Errorf("search: %s, answer %d: %s", d.Word(), d.Answer, d.Reason)
			}
			if err := audit.Check(&s, c.byHand(&s)); err == nil || !strings.Contains(err.Error(), "no pattern covers the loss of") {
				t.Errorf("audit of a certificate without the second loss: %v", err)
			}
			if c.mend == nil {
				return
			}
			c.mend(&s)
			if d := proof.Prove(&s); d.Answer != guarantee.Fits || len(d.Certificate.Patterns) != 1 {
				t.Errorf("where the clause holds one pattern is enough; search: %s, %s, %+v", d.Word(), d.Reason, d.Certificate)
			}
			if err := audit.Check(&s, c.byHand(&s)); err != nil {
				t.Errorf("where the clause holds one pattern is enough; audit: %v", err)
			}
		})
	}
}

// Two hosts are lost at one time and there is one of the class that dominates: the patterns are
// enumerated by classes, one of each is one.
func TestPatternsByClasses(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: []string{guarantee.VCPUs}, Hosts: []guarantee.Host{clauseHost("top", 6), clauseHost("low-a", 4), clauseHost("low-b", 4)},
		Workloads: []guarantee.Workload{clauseWorkload("w", 5)}, Scenarios: []guarantee.Scenario{{Name: "two", Hosts: 2}},
	}
	if d := proof.Prove(s); d.Answer != guarantee.CannotFit || strings.Contains(d.Reason, "wrong certificate") {
		t.Errorf("nothing holds 5 without the host of 6: %s, %s", d.Word(), d.Reason)
	}
	s.Workloads[0].Demand[0] = 4
	d := proof.Prove(s)
	if d.Answer != guarantee.Fits || len(d.Certificate.Patterns) != 1 || !slices.Contains(slices.Concat(d.Certificate.Patterns[0].Spares...), 0) {
		t.Fatalf("%s, %s, %+v", d.Word(), d.Reason, d.Certificate)
	}
	// Two of the lower class instead: then the loss of the upper one is not covered.
	p := &d.Certificate.Patterns[0]
	*p = guarantee.Pattern{Unit: guarantee.UnitHost, Spares: [][]int32{{1}, {2}}}
	if d.Certificate.Witness[0] != 0 {
		p.Moves = []guarantee.Move{{Workload: 0, Host: 0}}
	}
	d.Certificate.Obligations[0] = s.Hosts[0].Capacity
	if err := audit.Check(s, d.Certificate); err == nil || !strings.Contains(err.Error(), "no pattern covers the loss of") {
		t.Errorf("audit: %v", err)
	}
}

// Hosts of several sizes that were cut into pieces without waste: the greedy packs fail on some of them,
// the exact search on none.
func TestPiecesWithoutWasteFit(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	for n := range 200 {
		s := &guarantee.Site{Dimensions: plain(), Scenarios: []guarantee.Scenario{{Name: "all"}}}
		for h := range 3 {
			left := guarantee.Vector{int64(20 + r.IntN(20)), int64(20 + r.IntN(20))}
			s.Hosts = append(s.Hosts, clauseHost(fmt.Sprint("h", h), left...))
			left = slices.Clone(left)
			for piece := range 3 {
				v := slices.Clone(left)
				for d := range v {
					if piece < 2 {
						v[d] = 1 + r.Int64N(left[d]-2+int64(piece))
					}
					left[d] -= v[d]
				}
				s.Workloads = append(s.Workloads, clauseWorkload(fmt.Sprint(h, "-", piece), v...))
			}
		}
		if d := proof.Prove(s); d.Answer != guarantee.Fits {
			t.Errorf("site %d: %s: %s\n%+v", n, d.Word(), d.Reason, s)
		}
	}
}

// A host may have less than nothing of a device: a firm lease holds one that is gone. What asks for none fits there all the
// same, so that its failure domain counts: no host of another one stands in for it.
func TestDominanceWithLessThanNothing(t *testing.T) {
	s := guarantee.Site{
		Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "device/gpu"},
		Hosts:      []guarantee.Host{clauseHost("a", 4, 4, 0), clauseHost("b", 4, 4, 0), clauseHost("low", 4, 4, 0)},
		Workloads:  []guarantee.Workload{clauseWorkload("v", 1, 1, 0), clauseWorkload("w", 1, 1, 0)},
		Firm:       []guarantee.Instance{{Host: "low", Demand: guarantee.Vector{0, 0, 1}}},
	}
	for i, domain := range []string{"d1", "d1", "d2"} {
		s.Hosts[i].FailureDomain = domain
	}
	for i := range s.Workloads {
		s.Workloads[i].Apart = []guarantee.Apart{{Group: "g", Domain: true}}
	}
	if fault := compare(&s, map[string]int{}); fault != "" {
		t.Error(fault)
	}
	each := guarantee.Vector{1, 1, 0}
	err := audit.Check(&s, &guarantee.Certificate{
		Scenarios: s.Asked(), Witness: []int32{0, 2}, Obligations: []guarantee.Vector{each, each, each}, Budgets: make([]time.Duration, 3),
		Patterns: []guarantee.Pattern{{Unit: guarantee.UnitHost, Spares: [][]int32{{0}}, Moves: []guarantee.Move{{Workload: 0, Host: 1}}}},
	})
	if err == nil || !strings.Contains(err.Error(), "no pattern covers the loss of low") {
		t.Errorf("the audit says %v", err)
	}
}
