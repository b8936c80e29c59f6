package proof_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// What was admitted fits now, and a firm instance keeps every scenario.
func TestAdmission(t *testing.T) {
	first := firstSeed(t)
	admitted, firm := 0, 0
	for i := range *cases / 10 {
		seed := first + uint64(i)
		s := drawSite(seed)
		lend(s, seed)
		d := proof.Prove(s)
		v := guarantee.Instance{Lease: "new", Object: "instance/new", Demand: guarantee.Vector{2, 2, 1}[:len(s.Dimensions)], Networks: []string{"n1"}}
		hosts, err := admission.NewDesk(s, d).Preemptible([]guarantee.Instance{v, v})
		if err != nil && (model.FaultOf(err) != model.FaultNoFit || !strings.Contains(err.Error(), "(")) {
			t.Fatalf("HOTSPARE_SEED=%d: %v", seed, err)
		}
		if err == nil {
			admitted++
			checkAdmitted(t, s, v, hosts)
		}
		hosts, err = admission.NewDesk(s, d).Firm([]guarantee.Instance{v})
		if err != nil {
			continue
		}
		firm++
		v.Host = hosts[0]
		s.Firm = append(s.Firm, v)
		if !oracleFits(s, s.Asked()) {
			t.Fatalf("HOTSPARE_SEED=%d: firm on %s, and the plans do not fit any more", seed, v.Host)
		}
	}
	t.Logf("admitted %d preemptible and %d firm", admitted, firm)
	if *cases > 1000 && (admitted == 0 || firm == 0) {
		t.Error("nothing was admitted")
	}
}

func checkAdmitted(t *testing.T, s *guarantee.Site, v guarantee.Instance, hosts []string) {
	after := *s
	for _, h := range hosts {
		v.Host = h
		after.Preemptible = append(slices.Clip(after.Preemptible), v)
	}
	for _, name := range hosts {
		h := hostOf(s, name)
		sum := make(guarantee.Vector, len(s.Dimensions))
		for d := range sum {
			for _, w := range s.Workloads {
				if w.Host == name {
					sum[d] += w.Demand[d]
				}
			}
			for _, list := range [][]guarantee.Instance{s.Firm, after.Preemptible} {
				for _, i := range list {
					if i.Host == name {
						sum[d] += i.Demand[d]
					}
				}
			}
		}
		if !sum.Fits(h.Capacity) || h.State != guarantee.Usable || !strings.Contains(strings.Join(h.Networks, " "), "n1") {
			t.Fatalf("admitted on %+v, which then carries %v", h, sum)
		}
	}
}

func TestAbsurdDemandsNeverFit(t *testing.T) {
	s := &guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 1<<30)}, Workloads: []guarantee.Workload{workload("p/w", math.MaxInt64), workload("p/v", math.MaxInt64)}}
	if d := proof.Prove(s); d.Answer != guarantee.CannotFit {
		t.Errorf("%+v", d)
	}
	s.Workloads = nil
	if _, err := admission.NewDesk(s, proof.Prove(s)).Preemptible([]guarantee.Instance{{Demand: guarantee.Vector{1, math.MaxInt64}}}); err == nil {
		t.Error("a VM of 8 EiB was admitted")
	}
}

func TestRefusalsSayWhatWouldBeAccepted(t *testing.T) {
	const gib = int64(1) << 30
	h1 := guarantee.Host{Name: "h1", State: guarantee.Usable, Capacity: guarantee.Vector{4 * guarantee.Milli, 8 * gib}, Networks: []string{"lent"}}
	h2 := guarantee.Host{Name: "h2", State: guarantee.Usable, Capacity: guarantee.Vector{64 * guarantee.Milli, 64 * gib}}
	both := &guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{h1, h2}}
	big := guarantee.Instance{Demand: guarantee.Vector{2 * guarantee.Milli, 16 * gib}, Networks: []string{"lent"}}
	slow := &guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{h2, h2, h2}, Workloads: []guarantee.Workload{
		{Name: "p/w", Plan: "p", Demand: guarantee.Vector{1, 1}, Budget: 30 * time.Second},
	}}
	for i := range slow.Hosts {
		slow.Hosts[i].Name, slow.Hosts[i].SaveBandwidth = string(rune('a'+i)), gib/4
	}
	slow.Hosts = slow.Hosts[:2] // Each may have to carry the workload.
	unmeasured := &guarantee.Site{Dimensions: plain(), Hosts: slices.Clone(slow.Hosts), Workloads: slow.Workloads}
	for i := range unmeasured.Hosts {
		unmeasured.Hosts[i].SaveBandwidth = 0
	}
	devices := &guarantee.Site{Dimensions: append(plain(), "device/gpu"), Hosts: []guarantee.Host{h1}}
	devices.Hosts[0].Capacity = append(slices.Clone(h1.Capacity), 1)
	saved := guarantee.Instance{Demand: big.Demand, Reclaim: guarantee.Reclaim{Wait: 10 * time.Second, SaveBytes: 16 * gib}}
	for _, c := range []struct {
		name string
		site *guarantee.Site
		want guarantee.Instance
		text string
	}{
		{"too large", both, big, "the most free on one host is 4 vcpus, 8GiB"},
		{"no network", both, guarantee.Instance{Demand: guarantee.Vector{1, 1}, Networks: []string{"other"}}, "no usable host reaches"},
		{"nothing usable", &guarantee.Site{Dimensions: plain()}, big, "no usable host"},
		{"full", &guarantee.Site{
			Dimensions: plain(), Hosts: both.Hosts[:1],
			Preemptible: []guarantee.Instance{{Lease: "x", Object: "x", Demand: guarantee.Vector{4 * guarantee.Milli, 1}, Host: "h1"}},
		}, big, "no host has room"},
		{"not proven", &guarantee.Site{Dimensions: plain(), Workloads: []guarantee.Workload{workload("p/w", 1)}}, big, "plan p lacks 1 host:"},
		{"too slow", slow, saved, "taken back in 1m14s on the best host with room, and the recovery plans leave 30s (with --on-preempt=shutdown it fits)"},
		{"not measured", unmeasured, saved, "how fast hosts with room save RAM is not measured (with --on-preempt=shutdown it fits)"},
		{"no such device", devices, guarantee.Instance{Demand: guarantee.Vector{1, 1, 2}}, "the most free on one host is 1 gpu"},
		{"leaves too much", both, guarantee.Instance{Demand: guarantee.Vector{1, 1}, Residue: guarantee.Vector{0, 1}}, "the most that a host with room has left for leases is 0B memory, it needs 1B memory"},
	} {
		_, err := admission.NewDesk(c.site, proof.Prove(c.site)).Preemptible([]guarantee.Instance{c.want})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
	}
}

// The lending share is kept out of the proof, and is all that residue may take.
func TestLendingShare(t *testing.T) {
	s := &guarantee.Site{
		Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "disk/local"},
		Hosts:      []guarantee.Host{{Name: "h1", State: guarantee.Usable, Capacity: guarantee.Vector{9, 9, 10}, Lending: guarantee.Vector{0, 0, 4}}},
		Workloads:  []guarantee.Workload{{Name: "p/w", Plan: "p", Demand: guarantee.Vector{1, 1, 6}}},
		Scenarios:  []guarantee.Scenario{{Name: "all"}},
	}
	d := proof.Prove(s)
	v := guarantee.Instance{Lease: "l", Object: "l0", Demand: guarantee.Vector{1, 1, 2}, Residue: guarantee.Vector{0, 0, 2}}
	if hosts, err := admission.NewDesk(s, d).Preemptible([]guarantee.Instance{v, v}); err != nil || len(hosts) != 2 {
		t.Errorf("%v, %v", hosts, err)
	}
	if _, err := admission.NewDesk(s, d).Preemptible([]guarantee.Instance{v, v, v}); err == nil {
		t.Error("the residue of three takes 6 of a share of 4")
	}
	one := guarantee.Instance{Lease: "f", Object: "f0", Demand: guarantee.Vector{1, 1, 3}}
	empty := *s
	empty.Workloads = nil
	if _, err := admission.NewDesk(&empty, proof.Prove(&empty)).Firm([]guarantee.Instance{one, one}); err != nil {
		t.Errorf("two firm ones take 6 of 6: %v", err)
	}
	if _, err := admission.NewDesk(&empty, proof.Prove(&empty)).Firm([]guarantee.Instance{one, one, one}); err == nil {
		t.Error("a firm one took the lending share")
	}
	s.Workloads[0].Demand[2] = 7
	if d := proof.Prove(s); d.Answer != guarantee.CannotFit {
		t.Errorf("a workload took the lending share: %+v", d)
	}
}

func TestRunningWorkloads(t *testing.T) {
	on := func(name, host string, memory int64) guarantee.Workload {
		w := workload(name, memory)
		w.Host = host
		return w
	}
	for _, c := range []struct {
		name string
		vms  []guarantee.Workload
		word string
	}{
		{"room on the other", []guarantee.Workload{on("p/a", "h1", 2), on("p/b", "h2", 2)}, "Proven(1)"},
		{"no room on the other", []guarantee.Workload{on("p/a", "h1", 4), on("p/b", "h2", 4)}, "Degraded(0)"},
		{"more than it has", []guarantee.Workload{on("p/a", "h1", 3), on("p/b", "h1", 3)}, "GuaranteeLost"},
	} {
		d := proof.Prove(&guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), host("h2", 4)}, Workloads: c.vms})
		if d.Word() != c.word || (d.Reason == "") != (c.word == "Proven(1)") {
			t.Errorf("%s: %s: %s", c.name, d.Word(), d.Reason)
		}
	}
}

// A host that takes nothing new carries what runs on it, and can be lost.
func TestSilentHostCanBeLost(t *testing.T) {
	silent := host("h2", 8)
	silent.State = guarantee.Unknown
	w := workload("p/a", 6)
	w.Host = "h2"
	s := &guarantee.Site{Dimensions: plain(), Hosts: []guarantee.Host{host("h1", 4), silent}, Workloads: []guarantee.Workload{w}}
	if d := proof.Prove(s); d.Word() != "Degraded(0)" {
		t.Errorf("nothing holds the workload when its silent host is lost: %s", d.Word())
	}
}
