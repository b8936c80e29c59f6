package proof_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// ease makes a site easier in one way, and says in which; empty: not this time.
func (r *drawer) ease(s *guarantee.Site) (next guarantee.Site, what string) {
	next = *s
	next.Hosts = slices.Clone(s.Hosts)
	at := r.IntN(len(s.Hosts))
	switch k := r.IntN(5); {
	case k == 0 && len(s.Firm) > 0:
		at = r.IntN(len(s.Firm))
		next.Firm = slices.Delete(slices.Clone(s.Firm), at, at+1)
		return next, "a firm lease less"
	case k == 1 && len(s.Workloads) > 0:
		at = r.IntN(len(s.Workloads))
		if w := &s.Workloads[at]; w.Together != "" && w.Host != "" {
			return next, "" // Those that keep together may run apart now, and not without it: then they have to meet.
		}
		next.Workloads = slices.Delete(slices.Clone(s.Workloads), at, at+1)
		return next, "a workload less"
	case k == 2 && s.Hosts[at].State != guarantee.Usable && s.Hosts[at].State != guarantee.Lost:
		next.Hosts[at].State = guarantee.Usable
		return next, "a host more to use"
	case k == 3:
		h := s.Hosts[at]
		h.Name, h.State = fmt.Sprint("x", len(s.Hosts)), guarantee.Usable
		next.Hosts = slices.Insert(next.Hosts, r.IntN(len(s.Hosts)+1), h)
		return next, "a host more"
	case k == 4 && len(s.Dimensions) < 4:
		next.Dimensions = append(slices.Clip(s.Dimensions), "device/new")
		h := &next.Hosts[at]
		h.Capacity = append(slices.Clip(h.Capacity), make(guarantee.Vector, len(s.Dimensions)-len(h.Capacity)+1)...)
		h.Capacity[len(s.Dimensions)] = 1
		return next, "a device that nobody had"
	}
	return next, ""
}

// easier makes a site easier step by step: what is kept must go on to prove as much, by itself, whatever a search from the
// beginning finds. It returns how often that finds less.
func (r *drawer) easier(t *testing.T, seed uint64, s *guarantee.Site, steps int) (saved int) {
	d := proof.Prove(s)
	for range steps {
		next, what := r.ease(s)
		if what == "" || d.Lost() {
			continue
		}
		is := proof.GoOn(proof.Earlier{Site: s, Decision: d}, &next)
		if is.Proven < min(d.Proven, is.Asked) {
			t.Fatalf("HOTSPARE_SEED=%d -cases=1: after %s of %s it goes on with %s", seed, what, d.Word(), is.Word())
		}
		if err := audit.Check(&next, is.Certificate); err != nil || is.Fault != nil || (is.Answer == guarantee.Fits) != (is.Reason == "") {
			t.Fatalf("HOTSPARE_SEED=%d -cases=1: %v, %+v", seed, err, is)
		}
		if proof.Prove(&next).Worse(d) {
			saved++
		}
		if whole := proof.Renew(&next, proof.Earlier{Site: s, Decision: d}); whole.Worse(d) {
			t.Fatalf("HOTSPARE_SEED=%d -cases=1: %s made %s of %s: %s", seed, what, whole.Word(), d.Word(), whole.Reason)
		}
		s, d = &next, is // So that it goes on from what has gone on.
	}
	return saved
}

// Where nothing stands in for anything, there is a pattern for each loss: the one of before is found at once.
func TestRenewManyPatterns(t *testing.T) {
	s := &guarantee.Site{Dimensions: plain(), Scenarios: []guarantee.Scenario{{Name: "all", Hosts: 2}}}
	for i := range int64(60) {
		h := host(fmt.Sprintf("h%02d", i), 1060-i)
		h.Capacity[0] = 1000 + i
		s.Hosts = append(s.Hosts, h)
		w := workload(fmt.Sprintf("p/w%02d", i), 400)
		w.Demand[0] = 400
		s.Workloads = append(s.Workloads, w)
	}
	d := proof.Prove(s)
	if n := len(d.Certificate.Patterns); n != 60*59/2 {
		t.Fatalf("%d patterns", n)
	}
	is := proof.GoOn(proof.Earlier{Site: s, Decision: d}, s)
	if is.Answer != guarantee.Fits || is.Steps > 60*60*60 {
		t.Errorf("%s after %d steps", is.Word(), is.Steps)
	}
	e, few := proof.Earlier{Site: s, Decision: d}, 1000
	if all, n := proof.TakenOver(e, s, math.MaxInt), proof.TakenOver(e, s, few); all < 100*few || n > few+len(s.Workloads)+len(d.Certificate.Patterns) {
		t.Errorf("%d steps, and %d where %d are allowed", all, n, few)
	}
}

// A site with every kind of constraint that becomes easier is proven for no fewer losses than before.
func TestRenew(t *testing.T) {
	first := firstSeed(t)
	for i := range *cases {
		seed := first + uint64(i)
		s, r := drawSite(seed), &drawer{rand.New(rand.NewPCG(seed, 13))}
		for n := range r.IntN(4) {
			s.Firm = append(s.Firm, guarantee.Instance{Object: fmt.Sprint("f", n), Host: r.oneOf(s), Demand: r.vector(s, 3)})
		}
		r.easier(t, seed, s, 4)
	}
}

// Two hosts have become the largest, since firm leases have ended. Their loss was covered by that of two others, whose
// workloads make room for theirs. One by one they would not fit there, largest first, and neither without that room.
func TestRenewHandsOverBlocks(t *testing.T) {
	here := []string{"here"}
	was := &guarantee.Site{
		Dimensions: plain(), Scenarios: []guarantee.Scenario{{Name: "all", Hosts: 2}},
		Hosts: []guarantee.Host{host("a1", 10), host("a2", 10), host("b1", 12), host("b2", 12), host("c1", 9), host("c2", 9)},
		Firm: []guarantee.Instance{
			{Object: "f1", Host: "b1", Demand: guarantee.Vector{0, 2}}, {Object: "f2", Host: "b2", Demand: guarantee.Vector{0, 2}},
		},
	}
	for i := range 4 {
		was.Hosts[i].Labels = here
	}
	cert := &guarantee.Certificate{
		Scenarios: was.Asked(), Budgets: make([]time.Duration, 6), Obligations: []guarantee.Vector{{3, 10}, {3, 10}, {3, 10}, {3, 10}, {3, 9}, {3, 9}},
		Patterns: []guarantee.Pattern{{Unit: guarantee.UnitHost, Spares: [][]int32{{0}, {1}}}},
	}
	for at, sizes := range [][]int64{{3, 3, 3}, {3, 3, 3}, {5, 3, 2}, {4, 4, 2}} {
		for _, size := range sizes {
			w := workload(fmt.Sprint("p/w", len(was.Workloads)), size)
			if at < 2 {
				cert.Patterns[0].Moves = append(cert.Patterns[0].Moves, guarantee.Move{Workload: int32(len(was.Workloads)), Host: int32(4 + at)})
			} else {
				w.Labels = here
			}
			was.Workloads, cert.Witness = append(was.Workloads, w), append(cert.Witness, int32(at))
		}
	}
	if err := audit.Check(was, cert); err != nil {
		t.Fatal(err)
	}
	is := *was
	is.Firm = nil
	d := proof.GoOn(proof.Earlier{Site: was, Decision: guarantee.Decision{Answer: guarantee.Fits, Asked: 2, Proven: 2, Certificate: cert}}, &is)
	if d.Answer != guarantee.Fits || len(d.Certificate.Patterns) != 1 || d.Certificate.Patterns[0].Spares[0][0]+d.Certificate.Patterns[0].Spares[1][0] != 2+3 {
		t.Errorf("%s: %+v", d.Word(), d.Certificate)
	}
}

// tightSite is full nearly to the brim: hosts are cut at random, with one left over, and a few of the pieces are missing.
// It is too large for every placement to be tried.
func (r *drawer) tightSite() *guarantee.Site {
	s := &guarantee.Site{Dimensions: plain(), Scenarios: []guarantee.Scenario{{Name: "all", Hosts: 1}}}
	hosts := 17 + r.IntN(6)
	for h := range hosts {
		s.Hosts = append(s.Hosts, guarantee.Host{Name: fmt.Sprintf("h%02d", h), State: guarantee.Usable, Capacity: guarantee.Vector{100, 100}})
		left := guarantee.Vector{100, 100}
		for h < hosts-1 && left[0]+left[1] > 0 {
			w := guarantee.Workload{Name: fmt.Sprintf("p/w%03d", len(s.Workloads)), Plan: "p", Demand: make(guarantee.Vector, 2)}
			for d := range left {
				w.Demand[d] = min(left[d], int64(1+r.IntN(60)))
				left[d] -= w.Demand[d]
			}
			s.Workloads = append(s.Workloads, w)
		}
	}
	s.Workloads = s.Workloads[1+r.IntN(3):]
	for n := range 3 {
		s.Firm = append(s.Firm, guarantee.Instance{Object: fmt.Sprint("f", n), Host: r.oneOf(s), Demand: r.vector(s, 8)})
	}
	return s
}

// Where a search from the beginning does find less, what is kept is carried over.
func TestRenewTightSites(t *testing.T) {
	first, saved := firstSeed(t), 0
	for i := range *cases / 100 {
		seed := first + uint64(i)
		r := &drawer{rand.New(rand.NewPCG(seed, 13))}
		saved += r.easier(t, seed, r.tightSite(), 6)
	}
	t.Log("a search from the beginning found less", saved, "times")
	if saved == 0 && *cases >= 100_000 {
		t.Error("what is kept was of no use")
	}
}

// A site that a search from the beginning finds to be degraded without one of its workloads, and that is not.
func TestRenewKeepsWhatASearchLoses(t *testing.T) {
	r := &drawer{rand.New(rand.NewPCG(300, 13))}
	s := r.tightSite()
	d := proof.Prove(s)
	next, what := r.ease(s)
	if anew := proof.Prove(&next); d.Word() != "Proven(1)" || anew.Word() != "Degraded(0)" {
		t.Fatalf("%s, and %s with %s: draw another site for this test", d.Word(), anew.Word(), what)
	}
	is := proof.Renew(&next, proof.Earlier{Site: s, Decision: d})
	if err := audit.Check(&next, is.Certificate); err != nil || is.Word() != "Proven(1)" || is.Reason != "" {
		t.Errorf("with %s: %s: %s, %v", what, is.Word(), is.Reason, err)
	}
	if is := proof.Renew(&next); is.Word() != "Degraded(0)" {
		t.Errorf("of nothing: %s", is.Word())
	}
}
