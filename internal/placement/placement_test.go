package placement_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement"
)

// drawSite makes a small site: few hosts, few sizes, so that ties and tight fits are frequent.
func drawSite(t *rapid.T) placement.Site {
	var s placement.Site
	for i := range rapid.IntRange(1, 4).Draw(t, "hosts") {
		h := placement.Host{
			Name: fmt.Sprintf("h%d", i), VCPUs: uint64(rapid.IntRange(1, 8).Draw(t, "cpu")), MemoryBytes: uint64(rapid.IntRange(1, 12).Draw(t, "memory")),
			OverheadBytes: uint64(rapid.IntRange(0, 1).Draw(t, "overhead")), Usable: rapid.IntRange(0, 5).Draw(t, "usable") > 0, Networks: []string{"a"},
		}
		if rapid.Bool().Draw(t, "reaches b") {
			h.Networks = append(h.Networks, "b")
		}
		s.Hosts = append(s.Hosts, h)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "protected") {
		v := drawVM(t, fmt.Sprintf("p/w%d", i))
		v.Group = rapid.SampledFrom([]string{"", "", "g"}).Draw(t, "group")
		v.Networks = rapid.SampledFrom([][]string{nil, {"a"}, {"b"}}).Draw(t, "networks")
		v.Rank = uint32(rapid.IntRange(0, 2).Draw(t, "rank"))
		s.Protected = append(s.Protected, v)
	}
	host := func() string {
		return s.Hosts[rapid.IntRange(0, len(s.Hosts)-1).Draw(t, "host")].Name
	}
	if rapid.Bool().Draw(t, "firm") {
		v := drawVM(t, "firm-1")
		v.Host = host()
		s.Firm = append(s.Firm, v)
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "lent") {
		v := drawVM(t, fmt.Sprintf("l%d", rapid.IntRange(0, 3).Draw(t, "lease")))
		v.Object, v.Host, v.Cost = fmt.Sprintf("instance/%d", i), host(), uint64(rapid.IntRange(0, 3).Draw(t, "cost"))
		v.Held = rapid.IntRange(0, 4).Draw(t, "held") == 0
		s.Preemptible = append(s.Preemptible, v)
	}
	return s
}

func drawVM(t *rapid.T, name string) placement.VM {
	return placement.VM{
		Name: name, VCPUs: uint64(rapid.IntRange(1, 4).Draw(t, "vcpus")), MemoryBytes: uint64(rapid.IntRange(1, 6).Draw(t, "bytes")),
	}
}

// fault says what is wrong with a placement, by arithmetic that shares nothing with the search.
func fault(s placement.Site, lost string, residents, vms []placement.VM, hosts map[string]string) string {
	for _, h := range s.Hosts {
		var cpu, memory uint64
		groups := map[string]bool{}
		for _, v := range residents {
			if v.Host == h.Name {
				cpu, memory = cpu+v.VCPUs, memory+v.MemoryBytes+h.OverheadBytes
			}
		}
		for _, v := range vms {
			if hosts[v.Name] != h.Name {
				continue
			}
			cpu, memory = cpu+v.VCPUs, memory+v.MemoryBytes+h.OverheadBytes
			if !h.Usable || h.Name == lost {
				return v.Name + " is on a host that is not there"
			}
			if f := misplaced(h, v, groups); f != "" {
				return f
			}
			groups[v.Group] = true
		}
		if h.Usable && h.Name != lost && (cpu > h.VCPUs || memory > h.MemoryBytes) {
			return h.Name + " is overfull"
		}
	}
	return ""
}

// misplaced says why a VM may not be on a host whatever room there is.
func misplaced(h placement.Host, v placement.VM, groups map[string]bool) string {
	if v.Group != "" && groups[v.Group] {
		return "two of a group on " + h.Name
	}
	for _, n := range v.Networks {
		if !slices.Contains(h.Networks, n) {
			return v.Name + " does not reach " + n
		}
	}
	return ""
}

// possible tries every placement.
func possible(s placement.Site, lost string) bool {
	hosts := map[string]string{}
	var try func(i int) bool
	try = func(i int) bool {
		if i == len(s.Protected) {
			return fault(s, lost, s.Firm, s.Protected, hosts) == ""
		}
		for _, h := range s.Hosts {
			hosts[s.Protected[i].Name] = h.Name
			if try(i + 1) {
				return true
			}
		}
		return false
	}
	return try(0)
}

func TestProveAgainstExhaustiveSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		before := fmt.Sprintf("%+v", s)
		d := placement.Prove(s)
		if after := fmt.Sprintf("%+v", s); before != after {
			t.Fatalf("the site was changed:\n%s", cmp.Diff(before, after))
		}
		if again := placement.Prove(s); !cmp.Equal(d, again) {
			t.Fatalf("two answers: %+v, %+v", d, again)
		}
		switch d.Answer {
		case placement.Fits:
			if f := fault(s, "", s.Firm, s.Protected, d.Certificate.Witness); f != "" || len(d.Certificate.Witness) != len(s.Protected) {
				t.Fatalf("the certificate is wrong: %s: %v", f, d.Certificate.Witness)
			}
			for _, h := range s.Hosts {
				if d.Certificate.Losses > 0 && h.Usable && !possible(s, h.Name) {
					t.Fatalf("says that it survives the loss of %s", h.Name)
				}
			}
		case placement.CannotFit:
			if possible(s, "") {
				t.Fatalf("says that it cannot fit: %s", d.Reason)
			}
		case placement.NotProven:
			if d.Reason == "" {
				t.Fatal("not proven, and no reason")
			}
		default:
			t.Fatalf("answer %d", d.Answer)
		}
	})
}

// TestAssign: nothing is overfull, who goes was needed, and what is proven finds its place.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		proof := placement.Prove(s)
		run := s.Protected
		if n := rapid.IntRange(0, len(run)).Draw(t, "run"); n > 0 {
			run = run[:n]
		}
		before := fmt.Sprintf("%+v", s)
		a := placement.Assign(s, proof, run)
		if before != fmt.Sprintf("%+v", s) {
			t.Fatal("the site was changed")
		}
		if len(a.Hosts)+len(a.Unplaced) != len(run) {
			t.Fatalf("%d placed and %d not, of %d", len(a.Hosts), len(a.Unplaced), len(run))
		}
		if proof.Answer == placement.Fits && len(a.Unplaced) > 0 {
			t.Fatalf("proven, and no place for %v", a.Unplaced)
		}
		if f := wrong(s, run, a, a.Victims); f != "" && !strings.Contains(f, "overfull") {
			t.Fatal(f)
		} else if f != "" && proof.Answer == placement.Fits {
			t.Fatal(f)
		}
		checkVictims(t, s, run, a)
	})
}

// checkVictims: leases go as units, and none for nothing.
func checkVictims(t *rapid.T, s placement.Site, run []placement.VM, a placement.Assignment) {
	leases := map[string]bool{}
	for _, v := range a.Victims {
		leases[v.Name] = true
	}
	for _, v := range s.Preemptible {
		if in := slices.ContainsFunc(a.Victims, func(o placement.VM) bool { return o.Object == v.Object }); in != leases[v.Name] {
			t.Fatalf("lease %s is not taken as a unit", v.Name)
		}
	}
	if wrong(s, run, a, a.Victims) != "" {
		return // A host that was overfull before: no set of victims mends that.
	}
	for name := range leases { // Any order: each lease is tried by itself.
		without := slices.DeleteFunc(slices.Clone(a.Victims), func(v placement.VM) bool { return v.Name == name })
		if wrong(s, run, a, without) == "" {
			t.Fatalf("lease %s was taken for nothing: %v", name, a.Victims)
		}
	}
}

// wrong looks only at the hosts that the run uses: on the others nothing is asked of anybody.
func wrong(s placement.Site, run []placement.VM, a placement.Assignment, victims []placement.VM) string {
	used := s
	used.Hosts = slices.DeleteFunc(slices.Clone(s.Hosts), func(h placement.Host) bool {
		for _, at := range a.Hosts { // Any order: only whether one matches counts.
			if at == h.Name {
				return false
			}
		}
		return true
	})
	stay := slices.DeleteFunc(slices.Concat(s.Firm, s.Preemptible), func(v placement.VM) bool {
		return slices.ContainsFunc(victims, func(o placement.VM) bool { return o.Object == v.Object && v.Object != "" })
	})
	placed := slices.DeleteFunc(slices.Clone(run), func(v placement.VM) bool { return a.Hosts[v.Name] == "" })
	return fault(used, "", stay, placed, a.Hosts)
}

func TestAdmitPreemptibleNeverOverfills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSite(t)
		var want []placement.VM
		for range rapid.IntRange(1, 3).Draw(t, "count") {
			want = append(want, drawVM(t, "new"))
		}
		proof := placement.Prove(s)
		adm, err := placement.AdmitPreemptible(s, proof, want)
		if (err == nil) != (len(adm.Hosts) == len(want)) || err != nil && (model.FaultOf(err) != model.FaultNoFit || !strings.Contains(err.Error(), "(")) {
			t.Fatalf("%v, %v", adm, err)
		}
		if err != nil {
			return
		}
		hosts := map[string]string{}
		for i := range want {
			want[i].Name = fmt.Sprintf("new-%d", i)
			hosts[want[i].Name] = adm.Hosts[i]
		}
		used := s
		used.Hosts = slices.DeleteFunc(slices.Clone(s.Hosts), func(h placement.Host) bool { return !slices.Contains(adm.Hosts, h.Name) })
		if f := fault(used, "", slices.Concat(s.Firm, s.Preemptible), want, hosts); f != "" {
			t.Fatal(f)
		}
		s.Firm = nil
		if firm, err := placement.AdmitFirm(s, want[:1]); err == nil {
			want[0].Host = firm.Hosts[0]
			s.Firm = want[:1]
			for _, h := range s.Hosts {
				if h.Usable && !possible(s, h.Name) {
					t.Fatalf("firm on %s, and the loss of %s is not survived", firm.Hosts[0], h.Name)
				}
			}
		}
	})
}

func TestAbsurdDemandsNeverFit(t *testing.T) {
	s := placement.Site{
		Hosts:     []placement.Host{{Name: "h1", VCPUs: 8, MemoryBytes: 1 << 30, OverheadBytes: 1 << 20, Usable: true}},
		Protected: []placement.VM{{Name: "p/w", VCPUs: 1, MemoryBytes: math.MaxUint64}},
	}
	if d := placement.Prove(s); d.Answer != placement.CannotFit {
		t.Errorf("%+v", d)
	}
	if _, err := placement.AdmitPreemptible(placement.Site{Hosts: s.Hosts}, placement.Prove(placement.Site{Hosts: s.Hosts}), s.Protected); err == nil {
		t.Error("a VM of 16 EiB was admitted")
	}
}

// A sister taken for one host may make another victim superfluous.
func TestVictimsAreMinimalOverAllHosts(t *testing.T) {
	host := func(name string) placement.Host {
		return placement.Host{Name: name, VCPUs: 8, MemoryBytes: 4, Usable: true}
	}
	s := placement.Site{
		Hosts:     []placement.Host{host("h1"), host("h2")},
		Protected: []placement.VM{{Name: "p/a", VCPUs: 1, MemoryBytes: 2, Group: "g"}, {Name: "p/b", VCPUs: 1, MemoryBytes: 4, Group: "g"}},
		Preemptible: []placement.VM{
			{Name: "x", Object: "x0", VCPUs: 1, MemoryBytes: 2, Host: "h1", Cost: 1},
			{Name: "y", Object: "y0", VCPUs: 1, MemoryBytes: 2, Host: "h1", Cost: 5},
			{Name: "y", Object: "y1", VCPUs: 1, MemoryBytes: 4, Host: "h2", Cost: 5},
		},
	}
	a := placement.Assign(s, placement.Decision{Certificate: placement.Certificate{Witness: map[string]string{"p/a": "h1", "p/b": "h2"}}}, s.Protected)
	if len(a.Unplaced) > 0 || len(a.Victims) == 0 || slices.ContainsFunc(a.Victims, func(v placement.VM) bool { return v.Name == "x" }) && a.Hosts["p/a"] == "h1" {
		t.Errorf("%+v", a)
	}
}

func TestRefusalsSayWhatWouldBeAccepted(t *testing.T) {
	s := placement.Site{Hosts: []placement.Host{
		{Name: "h1", VCPUs: 4, MemoryBytes: 8 << 30, Usable: true, Networks: []string{"lent"}},
		{Name: "h2", VCPUs: 64, MemoryBytes: 64 << 30, Usable: true},
	}}
	big := placement.VM{Name: "l", VCPUs: 2, MemoryBytes: 16 << 30, Networks: []string{"lent"}}
	for _, c := range []struct {
		name string
		site placement.Site
		want placement.VM
		text string
	}{
		{"too large", s, big, "the most free on one host is 4 vcpus, 8GiB"},
		{"no network", s, placement.VM{Name: "l", VCPUs: 1, MemoryBytes: 1, Networks: []string{"other"}}, "no usable host reaches"},
		{"nothing usable", placement.Site{}, big, "no usable host"},
		{"full", placement.Site{Hosts: s.Hosts[:1], Preemptible: []placement.VM{{Name: "x", Object: "x", VCPUs: 4, MemoryBytes: 1, Host: "h1"}}}, big, "no host has room"},
		{"not proven", placement.Site{Protected: []placement.VM{{Name: "p/w", VCPUs: 1, MemoryBytes: 1}}}, big, "p/w (1 vcpus, 1B) fits on no host"},
	} {
		if _, err := placement.AdmitPreemptible(c.site, placement.Prove(c.site), []placement.VM{c.want}); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
	}
}

// Sparing a victim must not cost a proven workload its place.
func TestWitnessIsTheFallback(t *testing.T) {
	s := placement.Site{
		Hosts:       []placement.Host{{Name: "h1", VCPUs: 8, MemoryBytes: 4, Usable: true}, {Name: "h2", VCPUs: 8, MemoryBytes: 2, Usable: true}},
		Protected:   []placement.VM{{Name: "p/a", VCPUs: 1, MemoryBytes: 2}, {Name: "p/b", VCPUs: 1, MemoryBytes: 4, Rank: 1}},
		Preemptible: []placement.VM{{Name: "l", Object: "l0", VCPUs: 1, MemoryBytes: 2, Host: "h2"}},
	}
	a := placement.Assign(s, placement.Prove(s), s.Protected)
	if want := map[string]string{"p/a": "h2", "p/b": "h1"}; !cmp.Equal(a.Hosts, want) || len(a.Unplaced) > 0 || len(a.Victims) != 1 {
		t.Errorf("%+v, want %v", a, want)
	}
}

// What runs stays where it is, but not on a host that is lost, and what a host runs counts.
// TestSilentHostCanBeLost: a host that takes nothing new carries what runs on it, and can be lost.
func TestSilentHostCanBeLost(t *testing.T) {
	d := placement.Prove(placement.Site{
		Hosts: []placement.Host{
			{Name: "h1", VCPUs: 8, MemoryBytes: 4, Usable: true},
			{Name: "h2", VCPUs: 8, MemoryBytes: 8},
		},
		Protected: []placement.VM{{Name: "p/a", VCPUs: 1, MemoryBytes: 6, Host: "h2"}},
	})
	if d.Answer != placement.Fits || d.Certificate.Losses != 0 {
		t.Errorf("nothing holds the workload when its silent host is lost: %+v", d)
	}
}

func TestRunningWorkloads(t *testing.T) {
	host := func(name string) placement.Host {
		return placement.Host{Name: name, VCPUs: 8, MemoryBytes: 4, Usable: true}
	}
	on := func(name, host string, memory uint64) placement.VM {
		return placement.VM{Name: name, VCPUs: 1, MemoryBytes: memory, Host: host}
	}
	for _, c := range []struct {
		name   string
		vms    []placement.VM
		answer placement.Answer
		losses int
	}{
		{"room on the other", []placement.VM{on("p/a", "h1", 2), on("p/b", "h2", 2)}, placement.Fits, 1},
		{"no room on the other", []placement.VM{on("p/a", "h1", 4), on("p/b", "h2", 4)}, placement.Fits, 0},
		{"more than it has", []placement.VM{on("p/a", "h1", 3), on("p/b", "h1", 3)}, placement.NotProven, 0},
	} {
		d := placement.Prove(placement.Site{Hosts: []placement.Host{host("h1"), host("h2")}, Protected: c.vms})
		if d.Answer != c.answer || d.Certificate.Losses != c.losses {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}
