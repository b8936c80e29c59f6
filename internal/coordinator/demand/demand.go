// Package demand turns the replicated state into the plain data that package placement decides on.
// It decides nothing itself and changes nothing. The RPC handlers and the controllers call it.
package demand

import (
	"maps"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement"
)

// Site describes the site for a decision. Leases that are preempted now keep their claim: they count
// as preemptible instances of their host, marked as held.
func Site(s *state.State, v live.View) placement.Site {
	out := placement.Site{Hosts: Hosts(s, v)}
	runs := pinned(s)
	for p := range s.Plans() {
		for _, r := range model.Replicas(p) {
			vm, ok := runs[r.Key()]
			if !ok {
				vm = VM(p, r)
			}
			delete(runs, r.Key())
			out.Protected = append(out.Protected, vm)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		out.Protected = append(out.Protected, runs[key]) // Its plan was edited since; it runs all the same.
	}
	for l := range s.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST {
			continue
		}
		for _, i := range l.GetInstances() {
			o := s.Object(i.GetObject())
			if o.GetBase().GetState() != pb.State_STATE_RUNNING && !running(o) {
				continue
			}
			vm := lent(l, i, s)
			vm.Held = !running(o)
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
			OverheadBytes: h.GetCapacity().GetOverheadBytes(), Usable: !h.GetCordoned() && h.GetLostAt() == nil && !h.GetQuarantined() && Reachable(v, h.GetName()),
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

// pinned lists each workload that an open run has placed, with its host and what its instance was made
// with: an edit of the plan changes neither until after the failback.
func pinned(s *state.State) map[string]placement.VM {
	out := map[string]placement.VM{}
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			is := s.Object(p.GetObject()).GetBase().GetInstance()
			vm := placement.VM{
				Name: p.GetPlan() + "/" + p.GetWorkload(), Host: p.GetHost(), VCPUs: uint64(is.GetVcpus()), MemoryBytes: is.GetMemoryBytes(),
			}
			plan := s.Plan(p.GetPlan())
			vm.Rank = plan.GetSpec().GetRank()
			for _, w := range plan.GetSpec().GetWorkloads() {
				if model.IsReplicaOf(p.GetWorkload(), w.GetName()) {
					vm.Group = group(p.GetPlan(), w)
				}
			}
			for _, n := range is.GetNics() {
				vm.Networks = append(vm.Networks, n.GetNetwork())
			}
			out[vm.Name] = vm
		}
	}
	return out
}

// group names what must not share a host; empty: nothing.
func group(plan string, w *pb.Workload) string {
	if w.GetAntiAffinity() != "host" {
		return ""
	}
	return plan + "/" + w.GetName()
}

// VM returns the demand of one replica of a workload.
func VM(p *pb.Plan, r model.Replica) placement.VM {
	vm := placement.VM{
		Name: r.Key(), VCPUs: uint64(r.Workload.GetResources().GetVcpus()), MemoryBytes: r.Workload.GetResources().GetMemoryBytes(),
		Rank: p.GetSpec().GetRank(), Group: group(r.Plan, r.Workload),
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
