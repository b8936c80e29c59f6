// Package demand turns the replicated state into the plain data that package placement decides on.
// It decides nothing itself and changes nothing. The RPC handlers and the controllers call it.
package demand

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement"
)

// Site describes the site for a decision. Leases that are preempted now keep their claim: they count
// as preemptible instances of their host when claims is true (for admission), and are left out when
// it is false (for the choice of victims: they hold no memory).
func Site(s *state.State, v live.View, claims bool) placement.Site {
	out := placement.Site{Hosts: Hosts(s, v)}
	where := pinned(s)
	for p := range s.Plans() {
		for _, r := range model.Replicas(p) {
			vm := VM(p, r)
			vm.Host = where[vm.Name]
			out.Protected = append(out.Protected, vm)
		}
	}
	for l := range s.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST {
			continue
		}
		for _, i := range l.GetInstances() {
			o := s.Object(i.GetObject())
			held := len(o.GetOverrides()) > 0
			if o.GetBase().GetState() != pb.State_STATE_RUNNING && !running(o) || held && !claims {
				continue
			}
			vm := lent(l, i, s)
			if l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM {
				out.Firm = append(out.Firm, vm)
			} else {
				out.Preemptible = append(out.Preemptible, vm)
			}
		}
	}
	return out
}

func running(o *pb.Object) bool { return model.Effective(o).GetState() == pb.State_STATE_RUNNING }

// Hosts lists the hypervisor hosts with what hotspare may use of them.
func Hosts(s *state.State, v live.View) []placement.Host {
	var out []placement.Host
	for h := range s.Hosts() {
		if !h.GetOffer().GetHypervisor() || h.GetOffer().GetProtectedSite() {
			continue
		}
		t := model.HostTotal(h)
		ph := placement.Host{
			Name: h.GetName(), FailureDomain: h.GetPolicy().GetFailureDomain(), VCPUs: t.TotalVCPUs, MemoryBytes: t.TotalMemoryBytes,
			OverheadBytes: h.GetCapacity().GetOverheadBytes(), Usable: !h.GetCordoned() && !h.GetQuarantined() && Reachable(v, h.GetName()),
		}
		for r := range s.Resources("network") {
			if only := r.GetNetwork().GetSpec().GetHosts(); len(only) == 0 || slices.Contains(only, h.GetName()) {
				ph.Networks = append(ph.Networks, r.GetNetwork().GetMetadata().GetName())
			}
		}
		out = append(out, ph)
	}
	return out
}

// Reachable says whether a host may get new work: its agent is connected and not held, or nothing is
// known of it yet since the leader began (R5: unknown is not gone).
func Reachable(v live.View, host string) bool {
	a := v.Agent(host)
	return a.Name == "" || a.Connected && a.Held == ""
}

// pinned maps each workload that an open run has placed to its host.
func pinned(s *state.State) map[string]string {
	out := map[string]string{}
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			out[p.GetPlan()+"/"+p.GetWorkload()] = p.GetHost()
		}
	}
	return out
}

// VM returns the demand of one replica of a workload.
func VM(p *pb.Plan, r model.Replica) placement.VM {
	vm := placement.VM{
		Name: r.Key(), VCPUs: uint64(r.Workload.GetResources().GetVcpus()), MemoryBytes: r.Workload.GetResources().GetMemoryBytes(),
		Rank: p.GetSpec().GetRank(),
	}
	if r.Workload.GetAntiAffinity() == "host" {
		vm.Group = r.Plan + "/" + r.Workload.GetName()
	}
	for _, n := range r.Workload.GetNics() {
		vm.Networks = append(vm.Networks, n.GetNetwork())
	}
	return vm
}

// minutesPerPreemption weighs how often a lease was preempted before against its unsaved work.
const minutesPerPreemption = 60

func lent(l *pb.Lease, i *pb.LeaseInstance, s *state.State) placement.VM {
	unsaved := s.Time().Sub(l.GetCreatedAt().AsTime()).Minutes()
	return placement.VM{
		Name: l.GetName(), Object: i.GetObject(), Host: i.GetHost(),
		VCPUs: uint64(l.GetSpec().GetResources().GetVcpus()), MemoryBytes: l.GetSpec().GetResources().GetMemoryBytes(),
		Cost: uint64(max(unsaved, 0)) + minutesPerPreemption*uint64(l.GetPreemptions()),
	}
}
