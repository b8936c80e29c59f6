package demand

import (
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// lease reads the VMs of a lease, without their prices, and what those that have ended left on their host's disk. That
// counts where it counted before: of a firm one in what the proof leaves to others, of any other in the lending share.
func (d *Reader) lease(lent *Lent) *lentRow {
	l := lent.Lease
	out := &lentRow{lent: lent}
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST || len(l.GetInstances()) == 0 {
		return out
	}
	firm := l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM
	one := d.Instance(l.GetName(), l.GetClass(), l.GetSpec())
	disks := slices.Clone(one.Residue)
	for i, name := range d.more {
		if strings.HasPrefix(name, guarantee.DevicePrefix) {
			disks[more+i] = 0
		}
	}
	for _, i := range l.GetInstances() {
		o := d.s.Object(i.GetObject())
		vm := one
		vm.Object, vm.Host, vm.Held = i.GetObject(), i.GetHost(), !running(o)
		if o.GetBase().GetState() != pb.State_STATE_RUNNING && vm.Held { // It has ended.
			switch {
			case o == nil || none(disks):
				continue
			case !firm:
				out.kept = append(out.kept, guarantee.Kept{Host: vm.Host, Disks: disks})
				continue
			}
			vm = guarantee.Instance{Lease: vm.Lease, Object: vm.Object, Host: vm.Host, Demand: disks}
		}
		if firm {
			out.firm, out.firmSums = append(out.firm, vm), append(out.firmSums, vm.Sum())
		} else {
			out.preemptible = append(out.preemptible, vm)
		}
	}
	return out
}

func none(v guarantee.Vector) bool {
	return !slices.ContainsFunc(v, func(n int64) bool { return n != 0 })
}

// Instance is a VM that a lease asks for. What a preemption leaves on its host are its disks, its saved RAM,
// and its devices, which stay its own until it is back. A firm one is never preempted, but it is saved at its end,
// so that it needs the disk for that from the start.
func (d *Reader) Instance(lease string, class pb.LeaseClass, spec *pb.LeaseSpec) guarantee.Instance {
	vm := guarantee.Instance{Lease: lease, Demand: d.demand(spec.GetResources()), Reclaim: reclaim(spec)}
	layer := d.s.Resource("image/" + spec.GetImage()).GetImage().GetSpec().GetDiskSizeBytes()
	vm.Demand[disk] = guarantee.Add(vm.Demand[disk], amount(layer, 1))
	vm.Residue = slices.Clone(vm.Demand)
	vm.Residue[cpu], vm.Residue[memory] = 0, 0
	vm.Residue[disk] = guarantee.Add(vm.Residue[disk], vm.Reclaim.SaveBytes)
	if class == pb.LeaseClass_LEASE_CLASS_FIRM {
		vm.Demand[disk] = vm.Residue[disk]
	}
	return vm
}

// reclaim is what taking a VM back needs: its grace, and the time to write its memory.
func reclaim(spec *pb.LeaseSpec) guarantee.Reclaim {
	r := guarantee.Reclaim{Wait: spec.GetGrace().AsDuration()}
	if spec.GetOnPreempt() == pb.ReclaimAction_RECLAIM_ACTION_SAVE {
		r.SaveBytes = amount(spec.GetResources().GetMemoryBytes(), 1)
	}
	return r
}

func running(o *pb.Object) bool { return model.Effective(o).GetState() == pb.State_STATE_RUNNING }

// minutesPerPreemption weighs how often a lease was preempted before against its unsaved work.
const minutesPerPreemption = 60

// pricing says what it costs to take VMs back now.
type pricing struct {
	s State
	// weights of the projects that were asked for; saves is how fast each host was seen to save, in bytes per second.
	weights map[string]uint64
	saves   map[string]int64
}

// price sets the costs of the VMs of a lease.
func (p *pricing) price(l *pb.Lease, vms []guarantee.Instance) {
	begun := l.GetCreatedAt().AsTime()
	if back := l.GetReturnedAt(); back != nil {
		begun = back.AsTime() // What was done before was saved, or given up, when it was preempted.
	}
	minutes := uint64(max(p.s.Time().Sub(begun).Minutes(), 0)) + minutesPerPreemption*uint64(l.GetPreemptions())
	if back := l.GetReturnedAt(); back != nil {
		minutes += recently(p.s.Time().Sub(back.AsTime()))
	}
	weight, known := p.weights[l.GetProject()]
	if !known {
		weight = uint64(max(p.s.Resource("project/"+l.GetProject()).GetProject().GetSpec().GetWeight(), 1))
		p.weights[l.GetProject()] = weight
	}
	for i := range vms {
		each := minutes
		if rate := p.saves[vms[i].Host]; rate > 0 {
			each += 2 * uint64(vms[i].Reclaim.SaveBytes) / uint64(rate) / 60 // Written, and read again.
		}
		vms[i].Cost = weight * each
	}
}

// recently is what a preemption costs that follows another one so soon: an hour at once, nothing after a day.
func recently(since time.Duration) uint64 {
	const forgotten = 24 * time.Hour
	left := forgotten - min(max(since, 0), forgotten)
	return uint64(minutesPerPreemption * left / forgotten)
}
