package demand

import (
	"maps"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// budget is how long taking lent VMs back may hold up a workload; zero: nobody says.
func (d *Reader) budget(p *pb.Plan, workload string) time.Duration {
	known := d.budgets[p]
	if known == nil {
		known = budgets(p, d.took[p.GetMetadata().GetName()])
		d.budgets[p] = known
	}
	return known[workload]
}

// pinned lists each workload that an open run has placed, with its host and what its instance was made
// with: an edit of the plan changes neither until after the failback.
func (d *Reader) pinned() map[string]guarantee.Workload {
	out := map[string]guarantee.Workload{}
	for f := range d.s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			is := d.s.Object(p.GetObject()).GetBase().GetInstance()
			plan := d.s.Plan(p.GetPlan())
			vm := guarantee.Workload{
				Name: p.GetPlan() + "/" + p.GetWorkload(), Plan: p.GetPlan(), Rank: plan.GetSpec().GetRank(), Host: p.GetHost(),
				Demand: d.demand(made(is)), Budget: unpredicted(plan),
			}
			if w := workloadOf(plan, p.GetWorkload()); w != nil {
				vm.Apart, vm.Labels, vm.Together = apart(p.GetPlan(), w), labels(w.GetRequires()), w.GetTogether()
				vm.Pools, vm.Budget = d.volumePools(w), d.budget(plan, w.GetName())
			}
			for _, n := range is.GetNics() {
				vm.Networks = append(vm.Networks, n.GetNetwork())
			}
			out[vm.Name] = vm
		}
	}
	return out
}

// workloadOf is the workload of a replica; nil if the plan was edited since and has it no more.
func workloadOf(p *pb.Plan, replica string) (found *pb.Workload) {
	for _, w := range p.GetSpec().GetWorkloads() {
		if w.GetName() == replica {
			return w // And not replica 1 of "web" for the workload "web-1".
		}
		if model.IsReplicaOf(replica, w.GetName()) {
			found = w
		}
	}
	return found
}

// apart are the groups whose members share no host.
func apart(plan string, w *pb.Workload) (out []guarantee.Apart) {
	if a := w.GetAntiAffinity(); a != "" && w.GetReplicas() > 1 {
		out = append(out, guarantee.Apart{Group: plan + "/" + w.GetName(), Domain: a == model.AntiAffinityDomain})
	}
	for _, g := range w.GetApart() {
		out = append(out, guarantee.Apart{Group: g}) // A plan's own groups have a slash in their names.
	}
	return out
}

// volumePools are those that hold a workload's volumes. One that is not declared is missing for other reasons.
func (d *Reader) volumePools(w *pb.Workload) (out []string) {
	for _, v := range w.GetVolumes() {
		if d.s.Resource("pool/"+v.GetPool()) != nil && !slices.Contains(out, v.GetPool()) {
			out = append(out, v.GetPool())
		}
	}
	return out
}

// labels writes labels as placement compares them.
func labels(l map[string]string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(l)) {
		out = append(out, k+"="+l[k])
	}
	return out
}

// Workload is one replica as this revision of its plan has it.
func (d *Reader) Workload(p *pb.Plan, r model.Replica) guarantee.Workload {
	vm := guarantee.Workload{
		Name: r.Key(), Plan: r.Plan, Rank: p.GetSpec().GetRank(), Apart: apart(r.Plan, r.Workload),
		Demand: d.demand(r.Workload.GetResources()), Budget: d.budget(p, r.Workload.GetName()),
	}
	vm.Labels, vm.Together = labels(r.Workload.GetRequires()), r.Workload.GetTogether()
	vm.Pools = d.volumePools(r.Workload)
	for _, n := range r.Workload.GetNics() {
		vm.Networks = append(vm.Networks, n.GetNetwork())
	}
	return vm
}
