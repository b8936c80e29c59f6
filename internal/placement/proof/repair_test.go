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
	"github.com/hotspare/hotspare/internal/placement/repair"
)

// changed is a site with a kept witness that is changed step by step.
type changed struct {
	r *drawer
	s *guarantee.Site
	w *repair.Witness
	n int
}

// step makes one random change.
func (c *changed) step(seed uint64) string {
	s, r := *c.s, c.r
	s.Hosts, s.Workloads = slices.Clone(s.Hosts), slices.Clone(s.Workloads)
	c.s, c.n = &s, c.n+1
	switch k := r.IntN(5); {
	case k == 0 || len(s.Workloads) == 0:
		v := r.workload(&s, c.n, false, r.IntN(2) == 0)
		v.Name += fmt.Sprint("x", seed)
		s.Workloads = slices.Insert(s.Workloads, r.IntN(len(s.Workloads)+1), v)
		return "add workload " + v.Name
	case k == 1:
		at := r.IntN(len(s.Workloads))
		name := s.Workloads[at].Name
		s.Workloads = slices.Delete(s.Workloads, at, at+1)
		return "remove workload " + name
	case k == 2:
		at := r.IntN(len(s.Hosts))
		s.Hosts[at].State = guarantee.State(1 + r.IntN(4))
		return fmt.Sprintf("close host %s as %d", s.Hosts[at].Name, s.Hosts[at].State)
	case k == 3:
		h := s.Hosts[r.IntN(len(s.Hosts))]
		h.Name, h.State = fmt.Sprintf("n%d", c.n), guarantee.Usable
		s.Hosts = slices.Insert(s.Hosts, r.IntN(len(s.Hosts)+1), h)
		return "add host " + h.Name
	default:
		at := r.IntN(len(s.Hosts))
		name := s.Hosts[at].Name
		s.Hosts = slices.Delete(s.Hosts, at, at+1)
		return "remove host " + name
	}
}

// Whatever is repaired is a certificate that the audit accepts for the site as it is then, with every kind of
// constraint, through histories of changes.
func TestRepair(t *testing.T) {
	first := firstSeed(t)
	done, asked := map[string]int{}, map[string]int{}
	for i := range *cases {
		seed := first + uint64(i)
		c := &changed{r: &drawer{rand.New(rand.NewPCG(seed, 9))}, s: drawSite(seed)}
		d := proof.Prove(c.s)
		if d.Answer != guarantee.Fits {
			continue
		}
		c.w = repair.New(c.s, d.Certificate)
		var story []string
		for range 6 {
			if len(c.s.Hosts) == 0 {
				break
			}
			before := c.s
			what := c.step(seed)
			verb := strings.Join(strings.Fields(what)[:2], " ")
			if c.r.IntN(4) == 0 && len(c.s.Hosts) > 0 { // Two at once.
				what, verb = what+" and "+c.step(seed), "both"
			}
			story = append(story, what)
			asked[verb]++
			if !c.w.Follow(before, c.s) {
				if d = proof.Prove(c.s); d.Answer != guarantee.Fits {
					break
				}
				c.w = repair.New(c.s, d.Certificate)
				continue
			}
			done[verb]++
			if err := audit.Check(c.s, c.w.Certificate()); err != nil {
				t.Fatalf("HOTSPARE_SEED=%d: after %q: %v", seed, story, err)
			}
		}
	}
	t.Log("repaired", done, "of", asked)
	if *cases >= 1000 && len(done) < 6 {
		t.Errorf("only these were ever repaired: %v", done)
	}
}

// What runs stays, also where its going would make room.
func TestRepairMovesNothingThatRuns(t *testing.T) {
	for _, running := range []bool{false, true} {
		s := &guarantee.Site{
			Dimensions: plain(), Hosts: []guarantee.Host{host("h0", 8), host("h1", 8)}, Scenarios: []guarantee.Scenario{{Name: "all"}},
			Workloads: []guarantee.Workload{workload("p/a", 4), workload("p/b", 3)},
		}
		s.Workloads[0].Host, s.Workloads[1].Host = "h0", "h1"
		d := proof.Prove(s)
		if !running { // Where they would be, and not where they are.
			s.Workloads[0].Host, s.Workloads[1].Host = "", ""
		}
		after := *s
		after.Workloads = append(slices.Clone(s.Workloads), workload("p/c", 8))
		w := repair.New(s, d.Certificate)
		if ok := w.Follow(s, &after); ok == running {
			t.Errorf("running %v: room is made: %v", running, ok)
		} else if ok {
			if err := audit.Check(&after, w.Certificate()); err != nil {
				t.Error(err)
			}
		}
	}
}

// BenchmarkRepair repairs the witness of the large site after one change, the certificate not yet written down.
func BenchmarkRepair(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, 0)
	d := proof.Prove(s)
	extra := largeSite(benchHosts, benchWorkloads+4000, 0).Workloads[benchWorkloads:]
	r := rand.New(rand.NewPCG(3, 3))
	lost := r.Perm(benchHosts)
	for _, p := range d.Certificate.Patterns { // Their loss is a case of its own.
		lost = slices.DeleteFunc(lost, func(h int) bool { return h == int(p.Spares[0][0]) })
	}
	for _, c := range []struct {
		name   string
		rounds int
		change func(w *repair.Witness, i int) bool
	}{
		{"add", 1000, func(w *repair.Witness, i int) bool { return w.Add(r.IntN(benchWorkloads), &extra[i]) }},
		{"remove", 1000, func(w *repair.Witness, _ int) bool { return w.Remove(r.IntN(benchWorkloads - 1000)) }},
		{"lose", 200, func(w *repair.Witness, i int) bool { return w.Close(lost[i], guarantee.Lost) }},
		{"spare", len(d.Certificate.Patterns), func(w *repair.Witness, i int) bool {
			return w.Close(int(d.Certificate.Patterns[i].Spares[0][0]), guarantee.Lost)
		}},
		{"host", 1000, func(w *repair.Witness, i int) bool {
			h := s.Hosts[r.IntN(benchHosts)]
			h.Name = fmt.Sprint("new", i)
			return w.AddHost(r.IntN(benchHosts), &h)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			failed := 0
			for b.Loop() {
				b.StopTimer()
				w := repair.New(s, d.Certificate)
				b.StartTimer()
				for i := range c.rounds {
					start := time.Now()
					ok := c.change(w, i)
					took = append(took, time.Since(start))
					if !ok {
						failed++
						break // Its witness is not kept any more.
					}
				}
			}
			b.ReportMetric(float64(failed)/float64(len(took)), "full-proofs/op")
			reportTimes(b, took)
		})
	}
}

// What comes keeps apart from others also where these are only in some pattern.
func TestRepairKeepsApartInEveryPattern(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("top", 9), host("wide", 8), host("c", 7), host("d", 7)},
		Workloads: []guarantee.Workload{workload("p/y", 2, "g")},
	}
	s.Hosts[1].Capacity[0] = 9 // Neither of the first two stands in for the other, and each for the last two.
	c := &guarantee.Certificate{
		Scenarios: s.Asked(), Witness: []int32{0}, Budgets: make([]time.Duration, 4), Obligations: []guarantee.Vector{{1, 2}, {1, 2}, {1, 2}, {0, 0}},
		Patterns: []guarantee.Pattern{
			{Unit: guarantee.UnitHost, Spares: [][]int32{{0}}, Moves: []guarantee.Move{{Workload: 0, Host: 2}}}, {Unit: guarantee.UnitHost, Spares: [][]int32{{1}}},
		},
	}
	if err := audit.Check(s, c); err != nil {
		t.Fatal(err)
	}
	after := *s
	after.Workloads = append(slices.Clone(s.Workloads), workload("p/z", 2, "g"))
	w := repair.New(s, c)
	if !w.Follow(s, &after) {
		t.Fatal("it is not repaired")
	}
	if is := w.Certificate(); is.Witness[1] != 3 {
		t.Errorf("it goes to %s: %v", s.Hosts[is.Witness[1]].Name, audit.Check(&after, is))
	}
}
