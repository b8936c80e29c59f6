package proof_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// cases is the number of random sites; `make soak` asks for a million.
var cases = flag.Int("cases", 20_000, "random sites to compare with the oracle")

// firstSeed draws from the commit (tools/test.sh), else from the clock.
func firstSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("HOTSPARE_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("repeat with HOTSPARE_SEED=%d", seed)
	return seed
}

// The answers agree with an exhaustive search: no false "fits", no false "cannot fit", no wrong certificate.
func TestProveAgainstExhaustiveSearch(t *testing.T) {
	first := firstSeed(t)
	counts := map[string]int{}
	for i := range *cases {
		seed := first + uint64(i)
		if fault := compare(drawSite(seed), counts); fault != "" {
			t.Fatalf("HOTSPARE_SEED=%d -cases=1: %s", seed, fault)
		}
	}
	t.Log(counts)
	fits := counts["fits"] + counts["not proven, and fits"]
	if missed := counts["not proven, and fits"]; *cases > 1000 && missed*50 > fits {
		t.Errorf("%d of %d sites that fit were not proven: more than 2 %%", missed, fits)
	}
}

func compare(s *guarantee.Site, counts map[string]int) string {
	d := proof.Prove(s)
	asked := s.Asked()
	fits := oracleFits(s, asked)
	if d.Fault != nil {
		return d.Fault.Error()
	}
	switch d.Answer {
	case guarantee.Fits:
		counts["fits"]++
		if !fits || d.Proven != d.Asked || d.Missing != nil {
			return fmt.Sprintf("false fits: %+v\n%+v", d, s)
		}
	case guarantee.CannotFit:
		counts["cannot fit"]++
		if fits || d.Missing == nil || d.Missing.Amount <= 0 || d.Missing.Plan == "" {
			return fmt.Sprintf("false cannot fit: %+v %v\n%+v", d, d.Missing, s)
		}
	case guarantee.NotProven:
		counts["not proven"]++
		if fits {
			counts["not proven, and fits"]++
		}
	}
	if d.Answer != guarantee.Fits && d.Reason == "" {
		return fmt.Sprintf("no reason: %+v", d)
	}
	if !d.Lost() && !oracleFits(s, guarantee.Weaken(asked, d.Asked-d.Proven)) {
		return fmt.Sprintf("false %s", d.Word())
	}
	if again := proof.Prove(s); !reflect.DeepEqual(d, again) {
		return "two answers to one question"
	}
	return ""
}

// Something that joins what runs keeps apart from something else that runs on that host, which is joined too: neither of the
// two may be put there as if all of it ran there already.
func TestJoinsNobodyThatItKeepsApartFrom(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h0", 8), host("h1", 8)}, Scenarios: []guarantee.Scenario{{Name: "all"}},
		Workloads: []guarantee.Workload{workload("p/a", 1), workload("p/b", 1), workload("p/c", 1), workload("p/d", 1)},
	}
	apart := []guarantee.Apart{{Group: "g"}}
	for i, together := range []string{"t", "u", "u", "t"} {
		s.Workloads[i].Together = together
	}
	s.Workloads[0].Host, s.Workloads[2].Host = "h0", "h0"
	s.Workloads[2].Apart, s.Workloads[3].Apart = apart, apart
	if d := proof.Prove(s); d.Answer != guarantee.CannotFit {
		t.Errorf("%s: %s", d.Word(), d.Reason)
	}
	if fault := compare(s, map[string]int{}); fault != "" {
		t.Error(fault)
	}
}

// A workload of another scenario is in nobody's way in a loss that its scenario need not survive.
func TestOtherScenariosAreInNobodysWay(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h0", 8), host("h1", 9)},
		Workloads: []guarantee.Workload{workload("p/a", 1, "g"), workload("q/b", 1, "g")},
		Scenarios: []guarantee.Scenario{{Name: "p", Plans: []string{"p"}, Hosts: 1}, {Name: "q", Plans: []string{"q"}}},
	}
	s.Hosts[0].Capacity[0]++ // Neither host stands in for the other.
	s.Workloads[1].Plan = "q"
	if d := proof.Prove(s); d.Answer != guarantee.Fits {
		t.Errorf("%s: %s", d.Word(), d.Reason)
	}
	if fault := compare(s, map[string]int{}); fault != "" {
		t.Error(fault)
	}
}

// What a scenario does not run has no host when all of its own is packed afresh for a loss, and needs none.
func TestPacksOnlyWhatRuns(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Scenarios: []guarantee.Scenario{{Name: "p", Plans: []string{"p"}, Hosts: 1}, {Name: "q", Plans: []string{"q"}}},
	}
	for i, capacity := range []guarantee.Vector{{9, 10}, {7, 10}, {10, 9}, {8, 11}} {
		s.Hosts = append(s.Hosts, guarantee.Host{Name: fmt.Sprint("h", i), State: guarantee.Usable, Capacity: capacity})
	}
	for i, demand := range []guarantee.Vector{{6, 6}, {5, 2}, {3, 4}, {2, 6}, {5, 3}} {
		s.Workloads = append(s.Workloads, guarantee.Workload{Name: fmt.Sprint("p/w", i), Plan: "p", Demand: demand})
	}
	s.Hosts[0].Labels = []string{"only"}
	s.Workloads = append(s.Workloads, guarantee.Workload{Name: "q/b", Plan: "q", Demand: guarantee.Vector{1, 1}, Labels: []string{"only"}})
	if d := proof.Prove(s); d.Answer != guarantee.Fits {
		t.Errorf("%s: %s", d.Word(), d.Reason)
	}
	if fault := compare(s, map[string]int{}); fault != "" {
		t.Error(fault)
	}
}
