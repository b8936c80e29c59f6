// Package demand turns the replicated state into the plain data that package placement decides on.
// It decides nothing itself and changes nothing. The RPC handlers and the controllers call it, and apply,
// which may see nothing that is not replicated: who is silent comes in as a fact.
package demand

import (
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// The order of the dimensions that every site has; its devices follow.
const (
	cpu = iota
	memory
	disk
	devices
)

// deviceNames lists the names of all devices that somebody has, asks for or holds. Each is a dimension.
func deviceNames(s State) []string {
	names := map[string]bool{}
	note := func(d map[string]uint32) {
		for name := range d { // Any order: sorted below.
			names[name] = true
		}
	}
	plan := func(p *pb.Plan) {
		for _, w := range p.GetSpec().GetWorkloads() {
			note(w.GetResources().GetDevices())
		}
	}
	for h := range s.Hosts() {
		note(h.GetCapacity().GetDevices())
	}
	for p := range s.Plans() {
		plan(p)
	}
	for l := range s.Leases() {
		note(l.GetSpec().GetResources().GetDevices())
	}
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			note(s.Object(p.GetObject()).GetBase().GetInstance().GetDevices())
		}
		for _, p := range f.GetWaiting() {
			plan(p)
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// dimensions are the names of a site's dimensions.
func (d *Reader) dimensions() []string {
	out := []string{guarantee.VCPUs, guarantee.Memory, guarantee.LocalDisk}
	for _, name := range d.devices {
		out = append(out, guarantee.DevicePrefix+name)
	}
	return out
}

// vector is a demand or a capacity in the site's dimensions.
func (d *Reader) vector(vcpus, memoryBytes, diskBytes uint64, has map[string]uint32) guarantee.Vector {
	v := guarantee.Vector{amount(vcpus, guarantee.Milli), amount(memoryBytes, 1), amount(diskBytes, 1)}
	for _, name := range d.devices {
		v = append(v, int64(has[name]))
	}
	return v
}

// amount stops at the largest number, so that absurd demands never look small.
func amount(n uint64, unit int64) int64 {
	if n > math.MaxInt64/uint64(unit) {
		return math.MaxInt64
	}
	return int64(n) * unit
}

// State is what is read of the replicated state: of a version of it, or while an entry is applied.
type State interface {
	Time() time.Time
	Hosts() iter.Seq[*pb.Host]
	Plans() iter.Seq[*pb.Plan]
	Leases() iter.Seq[*pb.Lease]
	OpenFailovers() iter.Seq[*pb.Failover]
	Object(id string) *pb.Object
	Plan(name string) *pb.Plan
	Resource(key string) *pb.Resource
	Resources(kind string) iter.Seq[*pb.Resource]
}

// Site describes the site for a decision. Leases that are preempted now keep their claim: they count
// as preemptible instances of their host, marked as held.
func Site(s State, reachable func(host string) bool) *guarantee.Site {
	d := NewReader(s)
	out := &guarantee.Site{Dimensions: d.dimensions(), Hosts: d.hosts(reachable)}
	runs := d.pinned()
	for p := range s.Plans() {
		for _, r := range model.Replicas(p) {
			w, ok := runs[r.Key()]
			if !ok {
				w = d.Workload(p, r)
			}
			delete(runs, r.Key())
			out.Workloads = append(out.Workloads, w)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		out.Workloads = append(out.Workloads, runs[key]) // Its plan was edited since; it runs all the same.
	}
	d.leases(out)
	out.Scenarios = scenarios(s)
	return out
}

// scenarios lists those that were declared, with their plans.
func scenarios(s State) (out []guarantee.Scenario) {
	for r := range s.Resources("scenario") {
		sc := r.GetScenario()
		spec := sc.GetSpec()
		g := guarantee.Scenario{
			Name: sc.GetMetadata().GetName(), Hosts: int(spec.GetTolerate().GetHosts()), FailureDomains: int(spec.GetTolerate().GetFailureDomains()),
		}
		if len(spec.GetPlans())+len(spec.GetSelector()) > 0 {
			g.Plans = append([]string{}, spec.GetPlans()...) // Never nil: that would be all plans.
		}
		for p := range s.Plans() {
			name := p.GetMetadata().GetName()
			if len(spec.GetSelector()) > 0 && !slices.Contains(g.Plans, name) && selects(spec.GetSelector(), p.GetMetadata().GetLabels()) {
				g.Plans = append(g.Plans, name)
			}
		}
		out = append(out, g)
	}
	return out
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector { // Any order: all must match.
		if labels[k] != v {
			return false
		}
	}
	return true
}

// Reader states the demands of one version of the state.
type Reader struct {
	s        State
	overhead uint64
	devices  []string
	// saves is the rate at which each host was seen to save RAM, in bytes per second.
	saves map[string]uint64
}

// NewReader looks up what all demands have in common.
func NewReader(s State) *Reader {
	d := &Reader{s: s, overhead: overhead(s), devices: deviceNames(s), saves: map[string]uint64{}}
	for h := range s.Hosts() {
		d.saves[h.GetName()] = h.GetCapacity().GetSaveBytesPerSecond()
	}
	return d
}

func (d *Reader) leases(out *guarantee.Site) {
	for l := range d.s.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST {
			continue
		}
		for _, i := range l.GetInstances() {
			o := d.s.Object(i.GetObject())
			if o.GetBase().GetState() != pb.State_STATE_RUNNING && !running(o) {
				if o != nil {
					d.kept(out, l, i)
				}
				continue
			}
			vm := d.lent(l, i)
			vm.Held = !running(o)
			if l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM {
				out.Firm = append(out.Firm, vm)
			} else {
				out.Preemptible = append(out.Preemptible, vm)
			}
		}
	}
}

// kept counts what an instance that has ended left on its host's disk, where it counted before: a firm one in what
// the proof leaves to others, any other in the lending share.
func (d *Reader) kept(out *guarantee.Site, l *pb.Lease, i *pb.LeaseInstance) {
	bytes := d.Instance(l.GetName(), l.GetClass(), l.GetSpec()).Residue[disk]
	disks := d.vector(0, 0, uint64(bytes), nil)
	switch {
	case bytes == 0:
	case l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM:
		out.Firm = append(out.Firm, guarantee.Instance{Lease: l.GetName(), Object: i.GetObject(), Host: i.GetHost(), Demand: disks})
	default:
		out.Kept = append(out.Kept, guarantee.Kept{Host: i.GetHost(), Disks: disks})
	}
}

// overhead is the memory that a guest costs beyond its own: that of the host on which it costs most,
// so that a placement does not depend on it.
func overhead(s State) (most uint64) {
	for h := range s.Hosts() {
		if hypervisor(h) {
			most = max(most, h.GetCapacity().GetOverheadBytes())
		}
	}
	return most
}

func hypervisor(h *pb.Host) bool {
	return h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite()
}

// demand of a guest with what it costs beyond its own memory.
func (d *Reader) demand(r *pb.Resources) guarantee.Vector {
	v := d.vector(uint64(r.GetVcpus()), r.GetMemoryBytes(), r.GetLocalDiskBytes(), r.GetDevices())
	v[memory] = guarantee.Add(v[memory], amount(d.overhead, 1))
	return v
}

// made is what an instance was made with.
func made(is *pb.InstanceSpec) *pb.Resources {
	return &pb.Resources{Vcpus: is.GetVcpus(), MemoryBytes: is.GetMemoryBytes(), LocalDiskBytes: model.LocalDiskOf(is), Devices: is.GetDevices()}
}

// Lacks names a device that nobody has; empty: all that are asked for are known.
func (d *Reader) Lacks(r *pb.Resources) string {
	for _, name := range slices.Sorted(maps.Keys(r.GetDevices())) {
		if !slices.Contains(d.devices, name) {
			return name
		}
	}
	return ""
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

// hosts lists the hypervisor hosts with what hotspare may use of them.
func (d *Reader) hosts(reachable func(string) bool) []guarantee.Host {
	var out []guarantee.Host
	s := d.s
	for h := range s.Hosts() {
		if !hypervisor(h) {
			continue
		}
		gh := guarantee.Host{
			Name: h.GetName(), FailureDomain: h.GetPolicy().GetFailureDomain(), State: hostState(h, reachable),
			SaveBandwidth: amount(h.GetCapacity().GetSaveBytesPerSecond(), 1),
		}
		gh.Capacity, gh.Lending = d.room(h)
		gh.Labels = labels(s.Resource("host/" + h.GetName()).GetHost().GetMetadata().GetLabels())
		for r := range s.Resources("network") {
			if only := r.GetNetwork().GetSpec().GetHosts(); len(only) == 0 || slices.Contains(only, h.GetName()) {
				gh.Networks = append(gh.Networks, r.GetNetwork().GetMetadata().GetName())
			}
		}
		for r := range s.Resources("pool") {
			if only := r.GetPool().GetSpec().GetHosts(); len(only) == 0 || slices.Contains(only, h.GetName()) {
				gh.Pools = append(gh.Pools, r.GetPool().GetMetadata().GetName())
			}
		}
		out = append(out, gh)
	}
	return out
}

// room is what hotspare may use of a host, and the share of it that is for what preempted leases leave there.
// Half of the disk is, where nobody says otherwise: a share that followed the plans would be too small for the
// leases that are there when the first plan asks for disk.
func (d *Reader) room(h *pb.Host) (capacity, lending guarantee.Vector) {
	t, p := model.HostTotal(h), h.GetPolicy()
	size := t.TotalLocalDiskBytes
	lent := size / 2
	if p.GetLending() != nil && p.GetLending().LocalDiskBytes != nil {
		lent = min(size, p.GetLending().GetLocalDiskBytes())
	}
	capacity = d.vector(t.TotalVCPUs, t.TotalMemoryBytes, size, t.TotalDevices)
	lending = d.vector(0, 0, lent, p.GetLending().GetDevices())
	for i := range lending {
		lending[i] = min(lending[i], capacity[i])
	}
	return capacity, lending
}

// budget is how long taking lent VMs back may hold up a plan; zero: nobody says. Half of its time is left to
// everything else, until that is predicted.
func budget(p *pb.Plan) time.Duration {
	if b := p.GetSpec().GetReclaimBudget(); b != nil {
		return b.AsDuration()
	}
	return p.GetSpec().GetRtoTarget().AsDuration() / 2
}

func hostState(h *pb.Host, reachable func(string) bool) guarantee.State {
	switch {
	case h.GetLostAt() != nil:
		return guarantee.Lost
	case h.GetCordoned() || h.GetQuarantined():
		return guarantee.Closed
	case !reachable(h.GetName()):
		return guarantee.Unknown
	default:
		return guarantee.Usable
	}
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
				Demand: d.demand(made(is)), Budget: budget(plan),
			}
			for _, w := range plan.GetSpec().GetWorkloads() {
				if model.IsReplicaOf(p.GetWorkload(), w.GetName()) {
					vm.Apart, vm.Labels, vm.Together = apart(p.GetPlan(), w), labels(w.GetRequires()), w.GetTogether()
					vm.Pools = d.pools(w)
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

// pools are those that hold a workload's volumes. One that is not declared is missing for other reasons.
func (d *Reader) pools(w *pb.Workload) (out []string) {
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
		Demand: d.demand(r.Workload.GetResources()), Budget: budget(p),
	}
	vm.Labels, vm.Together = labels(r.Workload.GetRequires()), r.Workload.GetTogether()
	vm.Pools = d.pools(r.Workload)
	for _, n := range r.Workload.GetNics() {
		vm.Networks = append(vm.Networks, n.GetNetwork())
	}
	return vm
}

// minutesPerPreemption weighs how often a lease was preempted before against its unsaved work.
const minutesPerPreemption = 60

func (d *Reader) lent(l *pb.Lease, i *pb.LeaseInstance) guarantee.Instance {
	vm := d.Instance(l.GetName(), l.GetClass(), l.GetSpec())
	vm.Object, vm.Host = i.GetObject(), i.GetHost()
	begun := l.GetCreatedAt().AsTime()
	if back := l.GetReturnedAt(); back != nil {
		begun = back.AsTime() // What was done before was saved, or given up, when it was preempted.
	}
	unsaved := d.s.Time().Sub(begun).Minutes()
	weight := max(d.s.Resource("project/"+l.GetProject()).GetProject().GetSpec().GetWeight(), 1)
	minutes := uint64(max(unsaved, 0)) + minutesPerPreemption*uint64(l.GetPreemptions())
	if back := l.GetReturnedAt(); back != nil {
		minutes += recently(d.s.Time().Sub(back.AsTime()))
	}
	if rate := d.saves[i.GetHost()]; rate > 0 {
		minutes += 2 * uint64(vm.Reclaim.SaveBytes) / rate / 60 // Written, and read again.
	}
	vm.Cost = uint64(weight) * minutes
	return vm
}

// recently is what a preemption costs that follows another one so soon: an hour at once, nothing after a day.
func recently(since time.Duration) uint64 {
	const forgotten = 24 * time.Hour
	left := forgotten - min(max(since, 0), forgotten)
	return uint64(minutesPerPreemption * left / forgotten)
}
