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
	"github.com/hotspare/hotspare/internal/placement/repair"
)

// expected is what victims cost under a certificate, scenario by scenario and plan by plan: of each host the part of
// its leases that is missing, in the dimension where most is.
func expected(s *guarantee.Site, c *guarantee.Certificate, lent []guarantee.Instance) (sum float64) {
	plans := map[string]bool{}
	for i, at := range c.Witness {
		if at != guarantee.Nowhere {
			plans[s.Workloads[i].Plan] = true
		}
	}
	if len(plans) == 0 {
		plans["none"] = true
	}
	event := func(weight float64, runs func(w *guarantee.Workload) bool) {
		for h := range s.Hosts {
			cost, part := 0.0, 0.0
			for d := range s.Dimensions {
				missing, gain := -s.Hosts[h].Capacity.At(d), int64(0)
				for i := range s.Firm {
					if s.Firm[i].Host == s.Hosts[h].Name {
						missing += s.Firm[i].Demand.At(d)
					}
				}
				for i, at := range c.Witness {
					if w := &s.Workloads[i]; int(at) == h && (w.Host != "" || runs(w)) { // What runs is there in any case.
						missing += s.Workloads[i].Demand.At(d)
					}
				}
				for i := range lent {
					if v := &lent[i]; v.Host == s.Hosts[h].Name && !v.Held {
						missing, gain = missing+v.Demand.At(d), gain+v.Demand.At(d)-v.Residue.At(d)
						if d == 0 {
							cost += float64(v.Cost) + 1
						}
					}
				}
				if missing > 0 {
					part = max(part, min(1, float64(missing)/max(float64(gain), 1)))
				}
			}
			sum += weight * part * cost
		}
	}
	for _, sc := range c.Scenarios {
		event(1/float64(2*len(c.Scenarios)), func(w *guarantee.Workload) bool { return sc.Covers(w.Plan) })
	}
	for plan := range plans { // Any order: a sum.
		event(1/float64(2*len(plans)), func(w *guarantee.Workload) bool { return w.Plan == plan })
	}
	return sum
}

// checkSpare spares leases, and says what is wrong with what comes of it.
func checkSpare(s *guarantee.Site, w *repair.Witness, lent []guarantee.Instance) (saved float64, err error) {
	was := w.Certificate()
	before, after := w.Spare(lent)
	is := w.Certificate()
	if err := audit.Check(s, is); err != nil {
		return 0, err
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-6*(1+math.Abs(b)) }
	if b, a := expected(s, was, lent), expected(s, is, lent); !near(before, b) || !near(after, a) || after > before+1e-9 {
		return 0, fmt.Errorf("victims cost %v, then %v; it says %v and %v", b, a, before, after)
	}
	for d := range s.Dimensions {
		sum := func(c *guarantee.Certificate) (n int64) {
			for _, o := range c.Obligations {
				n += o.At(d)
			}
			return n
		}
		if sum(is) > sum(was) {
			return 0, fmt.Errorf("hosts are obliged to %d %s, then to %d", sum(was), s.Dimensions[d], sum(is))
		}
	}
	for h := range s.Hosts {
		leases := slices.ContainsFunc(lent, func(v guarantee.Instance) bool { return v.Host == s.Hosts[h].Name && !v.Held })
		if a, b := was.Budgets[h], is.Budgets[h]; leases && a != b && (a == 0 || b < a) {
			return 0, fmt.Errorf("leases on %s had %v, and then %v", s.Hosts[h].Name, a, b)
		}
	}
	return before - after, nil
}

// draw lends at random.
func (r *drawer) lent(s *guarantee.Site) (out []guarantee.Instance) {
	for i := range r.IntN(6) {
		v := guarantee.Instance{Object: fmt.Sprint("vm", i), Host: r.oneOf(s), Demand: r.vector(s, 4), Cost: uint64(r.IntN(100)), Held: r.IntN(5) == 0}
		if r.IntN(3) == 0 {
			v.Residue = slices.Clone(v.Demand)
			v.Residue[0], v.Residue[1] = 0, 0
		}
		out = append(out, v)
	}
	return out
}

// On random sites with every kind of constraint: a witness by which leases are spared is one that the audit accepts, it
// asks hosts for no more, and victims cost what it says.
func TestSpare(t *testing.T) {
	first, spared := firstSeed(t), 0
	for i := range *cases {
		seed := first + uint64(i)
		s, r := drawSite(seed), &drawer{rand.New(rand.NewPCG(seed, 11))}
		d := proof.Prove(s)
		if d.Answer != guarantee.Fits {
			continue
		}
		w := repair.New(s, d.Certificate)
		for range 2 {
			saved, err := checkSpare(s, w, r.lent(s))
			if err != nil {
				t.Fatalf("HOTSPARE_SEED=%d: %v", seed, err)
			}
			if saved > 0 {
				spared++
			}
		}
	}
	t.Log("spared", spared, "times")
	if *cases >= 1000 && spared < *cases/500 {
		t.Error("hardly ever")
	}
}

// What is in the way of sparing a lease, one by one.
func TestSpareKeeps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *guarantee.Site, at, other string)
		lent   func(at, other string) []guarantee.Instance
		moves  bool
	}{
		"nothing": {moves: true},
		"it runs": {change: func(s *guarantee.Site, at, _ string) { s.Workloads[0].Host = at }},
		"it keeps apart from who is there": {change: func(s *guarantee.Site, _, other string) {
			b := workload("q/b", 1)
			b.Host = other
			s.Workloads[0].Apart, b.Apart = []guarantee.Apart{{Group: "g"}}, []guarantee.Apart{{Group: "g"}}
			s.Workloads = append(s.Workloads, b)
		}},
		"leases are in the way there, too": {lent: func(_, other string) []guarantee.Instance {
			return []guarantee.Instance{{Host: other, Demand: guarantee.Vector{6, 6}}}
		}},
		"leases there are promised more time": {
			change: func(s *guarantee.Site, _, _ string) { s.Workloads[0].Budget = time.Second },
			lent: func(_, other string) []guarantee.Instance {
				return []guarantee.Instance{{Host: other, Demand: guarantee.Vector{1, 1}}}
			},
		},
		"nobody is lent anything there": {change: func(s *guarantee.Site, _, _ string) { s.Workloads[0].Budget = time.Second }, moves: true},
		"the other one is closed": {change: func(s *guarantee.Site, _, other string) {
			s.Hosts[slices.IndexFunc(s.Hosts, func(h guarantee.Host) bool { return h.Name == other })].State = guarantee.Closed
		}},
	} {
		s := &guarantee.Site{
			Dimensions: plain(), Hosts: []guarantee.Host{host("h0", 8), host("h1", 8)}, Scenarios: []guarantee.Scenario{{Name: "all"}},
			Workloads: []guarantee.Workload{workload("p/a", 4)},
		}
		at := proof.Prove(s).Certificate.Witness[0]
		if c.change != nil {
			c.change(s, s.Hosts[at].Name, s.Hosts[1-at].Name)
		}
		d := proof.Prove(s)
		if d.Answer != guarantee.Fits || d.Certificate.Witness[0] != at {
			t.Fatalf("%s: %v %+v", name, d.Answer, d.Certificate)
		}
		lent := []guarantee.Instance{{Host: s.Hosts[at].Name, Demand: guarantee.Vector{6, 6}, Cost: 10}}
		if c.lent != nil {
			lent = append(lent, c.lent(s.Hosts[at].Name, s.Hosts[1-at].Name)...)
		}
		w := repair.New(s, d.Certificate)
		if saved, err := checkSpare(s, w, lent); err != nil || saved > 0 != c.moves {
			t.Errorf("%s: saved %v, %v", name, saved, err)
		}
		if is := w.Certificate().Witness[0]; (is != at) != c.moves {
			t.Errorf("%s: it goes to %d of %d", name, is, at)
		}
	}
}

// Leases on a spare are promised as much time as before, although it carries enough already for who stands behind it.
func TestSpareHastensNoSpare(t *testing.T) {
	wide, tall := guarantee.Vector{16, 8}, guarantee.Vector{10, 16}
	s := &guarantee.Site{Dimensions: plain()}
	for i, capacity := range []guarantee.Vector{wide, wide, tall, tall, tall} {
		h := guarantee.Host{Name: fmt.Sprint("h", i), State: guarantee.Usable, Capacity: capacity}
		if i >= 2 {
			h.Labels = []string{"tall"}
		}
		s.Hosts = append(s.Hosts, h)
	}
	w, u := workload("p/w", 4), workload("p/u", 12)
	u.Demand[0], w.Budget, u.Labels = 9, time.Second, []string{"tall"}
	s.Workloads = []guarantee.Workload{u, w}
	d := proof.Prove(s)
	if d.Answer != guarantee.Fits || !slices.Equal(d.Certificate.Witness, []int32{2, 0}) || d.Certificate.Patterns[0].Spares[0][0] != 4 {
		t.Fatalf("%v %+v", d.Answer, d.Certificate)
	}
	on := func(h string) guarantee.Instance {
		return guarantee.Instance{Host: h, Demand: guarantee.Vector{1, 6}, Cost: 5}
	}
	for _, lent := range [][]guarantee.Instance{{on("h0")}, {on("h0"), on("h4")}} {
		w := repair.New(s, d.Certificate)
		if saved, err := checkSpare(s, w, lent); err != nil || saved > 0 != (len(lent) == 1) {
			t.Errorf("%d leases: saved %v, %v", len(lent), saved, err)
		}
	}
}

// BenchmarkSpare looks for a witness that spares leases, which lie at random on the large site. Then plans fail over one by
// one: what their victims cost under either witness is reported.
func BenchmarkSpare(b *testing.B) {
	for _, share := range []int{2, 5, 8} {
		b.Run(fmt.Sprintf("lent=%d", benchInstances*share/10), func(b *testing.B) {
			s := largeSite(benchHosts, benchWorkloads, benchInstances*share/10)
			d := proof.Prove(s)
			r := rand.New(rand.NewPCG(5, 5))
			for i := range s.Preemptible {
				s.Preemptible[i].Host = s.Hosts[r.IntN(benchHosts)].Name
			}
			var before, after float64
			var w *repair.Witness
			for b.Loop() {
				b.StopTimer()
				w = repair.New(s, d.Certificate)
				b.StartTimer()
				before, after = w.Spare(s.Preemptible)
			}
			b.ReportMetric(100*(1-after/before), "saved-percent")
			for i := 0; after < before && i < 100; i++ {
				was := after
				if _, after = w.Spare(s.Preemptible); after == was {
					break
				}
			}
			b.ReportMetric(100*(1-after/before), "saved-in-the-end-percent")
			better := d
			better.Certificate = w.Certificate()
			var strict, spared float64
			for range 20 {
				plan := s.Workloads[r.IntN(benchWorkloads)].Plan
				var run []guarantee.Workload
				for _, w := range s.Workloads {
					if w.Plan == plan {
						run = append(run, w)
					}
				}
				price := func(d guarantee.Decision) (sum float64) {
					for _, v := range proof.Assign(s, d, run).Victims {
						sum += float64(v.Cost) + 1
					}
					return sum
				}
				strict, spared = strict+price(d), spared+price(better)
			}
			b.ReportMetric(100*(1-spared/max(strict, 1)), "plan-saved-percent")
		})
	}
}
