package proof_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// lend adds instances of a few leases wherever there is room or not.
func lend(s *guarantee.Site, seed uint64) {
	r := &drawer{rand.New(rand.NewPCG(seed, 2))}
	for i := range r.IntN(7) {
		v := guarantee.Instance{
			Lease: fmt.Sprintf("l%d", r.IntN(4)), Object: fmt.Sprintf("instance/%d", i), Host: r.oneOf(s), Demand: r.vector(s, 3),
			Cost: uint64(r.IntN(4)), Held: r.IntN(5) == 0,
		}
		s.Preemptible = append(s.Preemptible, v)
	}
}

// overfull names a host, of those that the run uses, on which more is than it has of what the run needs there: it may have
// had less than nothing of a device before.
func overfull(s *guarantee.Site, a proof.Assignment, gone []guarantee.Instance) string {
	for _, h := range s.Hosts {
		sum, needed := make(guarantee.Vector, len(s.Dimensions)), make(guarantee.Vector, len(s.Dimensions))
		add := func(v guarantee.Vector) {
			for d := range sum {
				sum[d] += v.At(d)
			}
		}
		for _, w := range s.Workloads {
			placed, of := a.Hosts[w.Name]
			if of && placed == h.Name {
				for d := range needed {
					needed[d] += w.Demand.At(d)
				}
			}
			if of && placed == h.Name || !of && w.Host == h.Name {
				add(w.Demand)
			}
		}
		for _, f := range s.Firm {
			if f.Host == h.Name {
				add(f.Demand)
			}
		}
		for _, p := range s.Preemptible {
			if p.Host == h.Name && !slices.ContainsFunc(gone, func(g guarantee.Instance) bool { return g.Object == p.Object }) {
				add(p.Demand)
			}
		}
		for d := range sum {
			if needed[d] > 0 && sum[d] > h.Capacity.At(d) {
				return h.Name
			}
		}
	}
	return ""
}

// A failover finds a place for all that is proven, takes leases as units, and none for nothing.
func TestAssign(t *testing.T) {
	first := firstSeed(t)
	for i := range *cases / 10 {
		seed := first + uint64(i)
		s := drawSite(seed)
		lend(s, seed)
		var run []guarantee.Workload
		for _, w := range s.Workloads {
			if w.Host == "" && (w.Plan != "p2" || seed%2 == 0) {
				run = append(run, w)
			}
		}
		before := fmt.Sprintf("%+v", s)
		d := proof.Prove(s)
		a := proof.Assign(s, d, run)
		if before != fmt.Sprintf("%+v", s) {
			t.Fatalf("HOTSPARE_SEED=%d: the site was changed", seed)
		}
		if fault := checkAssignment(s, d, run, a); fault != "" {
			t.Fatalf("HOTSPARE_SEED=%d -cases=10: %s\n%+v\n%+v", seed, fault, a, s)
		}
	}
}

func checkAssignment(s *guarantee.Site, d guarantee.Decision, run []guarantee.Workload, a proof.Assignment) string {
	if len(a.Hosts)+len(a.Unplaced) != len(run) {
		return fmt.Sprintf("%d placed and %d not, of %d", len(a.Hosts), len(a.Unplaced), len(run))
	}
	if len(a.Unplaced) > 0 && !d.Lost() && len(s.Scenarios) == 0 {
		return "proven, and no place"
	}
	leases := map[string]bool{}
	for _, v := range a.Victims {
		leases[v.Lease] = true
	}
	for _, v := range s.Preemptible {
		if slices.ContainsFunc(a.Victims, func(o guarantee.Instance) bool { return o.Object == v.Object }) != leases[v.Lease] {
			return "lease " + v.Lease + " is not taken as a unit"
		}
	}
	if h := overfull(s, a, s.Preemptible); h != "" {
		if d.Lost() {
			return "" // It was overfull before.
		}
		return h + " is overfull though every lease were taken"
	}
	if h := overfull(s, a, a.Victims); h != "" {
		return h + " is overfull"
	}
	for name := range leases {
		fewer := slices.DeleteFunc(slices.Clone(a.Victims), func(v guarantee.Instance) bool { return v.Lease == name })
		if overfull(s, a, fewer) == "" {
			return "lease " + name + " was taken for nothing"
		}
	}
	return ""
}

func plain() []string { return []string{guarantee.VCPUs, guarantee.Memory} }

func host(name string, memory int64) guarantee.Host {
	return guarantee.Host{Name: name, State: guarantee.Usable, Capacity: guarantee.Vector{8, memory}}
}

func workload(name string, memory int64, groups ...string) guarantee.Workload {
	w := guarantee.Workload{Name: name, Plan: "p", Demand: guarantee.Vector{1, memory}}
	for _, g := range groups {
		w.Apart = append(w.Apart, guarantee.Apart{Group: g})
	}
	return w
}

func lent(lease, object, host string, memory int64, cost uint64) guarantee.Instance {
	return guarantee.Instance{Lease: lease, Object: object, Host: host, Demand: guarantee.Vector{1, memory}, Cost: cost}
}

// A sister taken for one host may make another victim superfluous.
func TestVictimsAreMinimalOverAllHosts(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), host("h2", 4)},
		Workloads:   []guarantee.Workload{workload("p/a", 2, "g"), workload("p/b", 4, "g")},
		Preemptible: []guarantee.Instance{lent("x", "x0", "h1", 2, 1), lent("y", "y0", "h1", 2, 5), lent("y", "y1", "h2", 4, 5)},
	}
	a := proof.Assign(s, proof.Prove(s), s.Workloads)
	if len(a.Unplaced) > 0 || len(a.Victims) == 0 || a.Hosts["p/a"] == "h1" && slices.ContainsFunc(a.Victims, func(v guarantee.Instance) bool { return v.Lease == "x" }) {
		t.Errorf("%+v", a)
	}
}

// Sparing a victim must not cost a proven workload its place.
func TestWitnessIsTheFallback(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), host("h2", 2)},
		Workloads:   []guarantee.Workload{workload("p/a", 2), workload("p/b", 4)},
		Preemptible: []guarantee.Instance{lent("l", "l0", "h2", 2, 0)},
	}
	s.Workloads[1].Rank = 1
	a := proof.Assign(s, proof.Prove(s), s.Workloads)
	if want := map[string]string{"p/a": "h2", "p/b": "h1"}; !cmp.Equal(a.Hosts, want) || len(a.Unplaced) > 0 || len(a.Victims) != 1 {
		t.Errorf("%+v, want %v", a, want)
	}
}

// Sparing a victim must not cost the other plans their proof.
func TestSparingAVictimKeepsTheProof(t *testing.T) {
	gpu := host("h2", 4)
	gpu.Labels = []string{"gpu=yes"}
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), gpu},
		Workloads:   []guarantee.Workload{workload("p/a", 4), workload("q/b", 4)},
		Preemptible: []guarantee.Instance{lent("l", "l0", "h1", 4, 9)},
		Scenarios:   []guarantee.Scenario{{Name: "all"}},
	}
	s.Workloads[1].Plan, s.Workloads[1].Labels = "q", []string{"gpu=yes"}
	d := proof.Prove(s)
	a := proof.Assign(s, d, s.Workloads[:1])
	if d.Answer != guarantee.Fits || a.Hosts["p/a"] != "h1" || len(a.Victims) != 1 {
		t.Errorf("%s: %+v: p/a may not take the only host for q/b", d.Word(), a)
	}
}

// A small failover takes a free host before it takes a lease.
func TestFreeRoomBeforeVictims(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), host("h2", 4), host("h3", 4)},
		Workloads:   []guarantee.Workload{workload("p/a", 4)},
		Preemptible: []guarantee.Instance{lent("l", "l0", "h1", 4, 9), lent("l", "l1", "h2", 4, 9)},
	}
	if a := proof.Assign(s, proof.Prove(s), s.Workloads[:1]); a.Hosts["p/a"] != "h3" || len(a.Victims) > 0 {
		t.Errorf("%+v", a)
	}
}

// What keeps together with a VM that runs where it cannot be finds no place; that VM counts where it runs all the same.
func TestAssignStranded(t *testing.T) {
	s := &guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{host("h0", 8), host("h1", 8)}}
	s.Hosts[1].Networks = []string{"n"}
	runs, wants, other := workload("runs", 4), workload("wants", 1), workload("other", 3)
	runs.Together, runs.Host = "pair", "h0"
	wants.Together, wants.Networks = "pair", []string{"n"}
	other.Labels = []string{"fast=yes"}
	s.Hosts[0].Labels = other.Labels
	s.Workloads = []guarantee.Workload{other, runs, wants}
	s.Preemptible = []guarantee.Instance{{Lease: "l", Object: "instance/l", Host: "h0", Demand: guarantee.Vector{1, 2}}}
	a := proof.Assign(s, proof.Prove(s), []guarantee.Workload{other, wants})
	if len(a.Unplaced) != 1 || a.Unplaced[0].Name != "wants" || a.Hosts["other"] != "h0" || len(a.Victims) != 1 {
		t.Errorf("%+v", a)
	}
}

// What runs takes its room also when what has to join it finds none there.
func TestAssignCountsWhatRunsAlone(t *testing.T) {
	runs, joins := workload("p/runs", 2), workload("p/joins", 4)
	runs.Host, runs.Together, joins.Together = "h1", "t", "t"
	s := &guarantee.Site{
		Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 5)}, Workloads: []guarantee.Workload{runs, joins, workload("p/w", 3)},
		Preemptible: []guarantee.Instance{lent("l", "l0", "h1", 1, 1)},
	}
	a := proof.Assign(s, proof.Prove(s), s.Workloads[1:])
	if a.Hosts["p/w"] != "h1" || len(a.Victims) != 1 || len(a.Unplaced) != 1 || a.Unplaced[0].Name != "p/joins" {
		t.Errorf("%+v", a)
	}
}
