package model

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Use is what may run on a host at the same time, against what it has.
type Use struct {
	VCPUs, MemoryBytes           uint64
	TotalVCPUs, TotalMemoryBytes uint64
	// LocalDisks are the empty disks of all VMs that exist there, whether they run or not, in bytes by local pool.
	LocalDisks, TotalLocalDisks map[string]uint64
	Devices, TotalDevices       map[string]uint32
}

// Add counts one more VM that runs.
func (u *Use) Add(h *pb.Host, is *pb.InstanceSpec) {
	u.VCPUs += uint64(is.GetVcpus())
	u.MemoryBytes += is.GetMemoryBytes() + h.GetCapacity().GetOverheadBytes()
	for name, n := range is.GetDevices() { // Any order: a sum for each name.
		if u.Devices == nil {
			u.Devices = map[string]uint32{}
		}
		u.Devices[name] += n
	}
}

// Fits says whether the host has all of it.
func (u *Use) Fits() bool {
	for name, n := range u.Devices { // Any order: all must be there.
		if n > u.TotalDevices[name] {
			return false
		}
	}
	for pool, n := range u.LocalDisks { // Any order: all must have room.
		if n > u.TotalLocalDisks[pool] {
			return false
		}
	}
	return u.VCPUs <= u.TotalVCPUs && u.MemoryBytes <= u.TotalMemoryBytes
}

// HostUse sums up what the objects of a host may occupy: every instance whose effective spec runs,
// and every instance that comes back once the override that holds it down is gone (its base runs).
func HostUse(h *pb.Host, objects iter.Seq[*pb.Object]) Use {
	u := HostTotal(h)
	for o := range objects {
		if o.GetKind() != pb.Kind_KIND_INSTANCE {
			continue
		}
		spec := Effective(o)
		if o.GetBase().GetState() != pb.State_STATE_ABSENT || spec.GetState() != pb.State_STATE_ABSENT {
			for pool, n := range LocalDisksOf(spec.GetInstance()) { // Any order: a sum for each pool.
				u.addDisk(pool, n)
			}
		}
		if spec.GetState() != pb.State_STATE_RUNNING {
			spec = o.GetBase()
		}
		if spec.GetState() == pb.State_STATE_RUNNING {
			u.Add(h, spec.GetInstance())
		}
	}
	return u
}

// LocalDisk names the host's own disk, the local pool that every host has, and a VM's empty disk there.
const LocalDisk = "local"

// AnyDiskBytes stands for a disk whose size the agent does not say: 1 PiB.
const AnyDiskBytes = 1 << 50

func (u *Use) addDisk(pool string, bytes uint64) {
	if u.LocalDisks == nil {
		u.LocalDisks = map[string]uint64{}
	}
	u.LocalDisks[pool] += bytes
}

// LocalDisksOf are the sizes of a VM's empty disks, in bytes by local pool.
func LocalDisksOf(is *pb.InstanceSpec) map[string]uint64 {
	var u Use
	for _, d := range is.GetDisks() {
		if n := d.GetBlankBytes(); n > 0 {
			u.addDisk(cmp.Or(d.GetLocalPool(), LocalDisk), n)
		}
	}
	return u.LocalDisks
}

// ValidLocalPool says whether a name may be that of a local pool beside the host's own disk: a name of at most 32
// characters, as disks are named after it.
func ValidLocalPool(name string) bool { return ValidName(name) && len(name) <= 32 && name != LocalDisk }

// LocalDiskName names the empty disk that a VM has in a local pool.
func LocalDiskName(pool string) string {
	if pool == LocalDisk {
		return LocalDisk
	}
	return LocalDisk + "-" + pool
}

// GiveLocal gives an instance the disks and the devices of its host that were asked for.
func GiveLocal(is *pb.InstanceSpec, r *pb.Resources) {
	if n := r.GetLocalDiskBytes(); n > 0 {
		is.Disks = append(is.Disks, &pb.Disk{Name: LocalDisk, Source: &pb.Disk_BlankBytes{BlankBytes: n}})
	}
	for _, pool := range slices.Sorted(maps.Keys(r.GetLocalDisksBytes())) {
		is.Disks = append(is.Disks, &pb.Disk{
			Name: LocalDiskName(pool), LocalPool: pool, Source: &pb.Disk_BlankBytes{BlankBytes: r.GetLocalDisksBytes()[pool]},
		})
	}
	is.Devices = maps.Clone(r.GetDevices())
}

// WholeLease is why a VM of a lease is preempted whose own room is not needed.
const WholeLease = "a lease is preempted as a whole"

// HostTotal returns what of a host hotspare may use: less the reserve and what foreign domains hold.
func HostTotal(h *pb.Host) Use {
	c := h.GetCapacity()
	ratio := h.GetPolicy().GetOvercommit()
	if ratio <= 0 {
		ratio = 1
	}
	disk := c.GetDiskBytes()
	if disk == 0 {
		disk = AnyDiskBytes
	}
	disks := map[string]uint64{LocalDisk: less(disk, h.GetPolicy().GetReserveLocalDiskBytes())}
	for pool, size := range c.GetLocalDisksBytes() { // Any order: each by itself.
		if !ValidLocalPool(pool) {
			continue // Of an agent that knows no better.
		}
		disks[pool] = less(size, h.GetPolicy().GetReserveLocalDisksBytes()[pool])
	}
	return Use{
		TotalLocalDisks: disks, TotalDevices: c.GetDevices(),
		TotalVCPUs:       less(uint64(float64(c.GetVcpus())*ratio), uint64(c.GetForeignVcpus())),
		TotalMemoryBytes: less(less(c.GetMemoryBytes(), h.GetPolicy().GetReserveMemoryBytes()), c.GetForeignMemoryBytes()),
	}
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// Bounds of the queue.
const (
	maxQueuedOfProject = 100
	maxQueued          = 1000
)

// CheckQueue says whether one more lease of the project may wait.
func CheckQueue(p *pb.Project, leases iter.Seq[*pb.Lease]) error {
	mine, all := 0, 0
	for l := range leases {
		if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_QUEUED {
			continue
		}
		all++
		if l.GetProject() == p.GetMetadata().GetName() {
			mine++
		}
	}
	switch {
	case mine >= maxQueuedOfProject:
		return Errorf(FaultTooMany, "project/"+p.GetMetadata().GetName(), "%d of its leases wait already", mine).WithRemedy("release one that is not needed any more")
	case all >= maxQueued:
		return Errorf(FaultTooMany, "", "%d leases wait already", all).WithRemedy("try again later")
	}
	return nil
}

// CheckQuota says whether a project may hold what the spec asks for beside its other leases.
// Preempted and ended leases cost nothing.
func CheckQuota(p *pb.Project, leases iter.Seq[*pb.Lease], want *pb.LeaseSpec) error {
	n := uint64(max(want.GetCount(), 1))
	instances, vcpus, memory := n, n*uint64(want.GetResources().GetVcpus()), n*want.GetResources().GetMemoryBytes()
	for l := range leases {
		if l.GetProject() != p.GetMetadata().GetName() || l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE &&
			l.GetPhase() != pb.LeasePhase_LEASE_PHASE_RETURNING {
			continue
		}
		n := uint64(len(l.GetInstances()))
		instances += n
		vcpus += n * uint64(l.GetSpec().GetResources().GetVcpus())
		memory += n * l.GetSpec().GetResources().GetMemoryBytes()
	}
	q, key := p.GetSpec().GetQuota(), "project/"+p.GetMetadata().GetName()
	switch {
	case q.GetInstances() > 0 && instances > uint64(q.GetInstances()):
		return Errorf(FaultQuota, key, "would hold %d VMs, its quota is %d", instances, q.GetInstances()).WithRemedy("release a lease first")
	case q.GetVcpus() > 0 && vcpus > uint64(q.GetVcpus()):
		return Errorf(FaultQuota, key, "would hold %d vcpus, its quota is %d", vcpus, q.GetVcpus()).WithRemedy("release a lease first")
	case q.GetMemoryBytes() > 0 && memory > q.GetMemoryBytes():
		return Errorf(FaultQuota, key, "would hold %s of memory, its quota is %s", Bytes(memory), Bytes(q.GetMemoryBytes())).
			WithRemedy("release a lease first")
	default:
		return nil
	}
}

// defaultGrace is the warning before a preemption when nobody chose another.
const defaultGrace = 10 * time.Second

// Grace returns the warning that a lease gets, bounded by what its project allows.
func Grace(p *pb.Project, s *pb.LeaseSpec) *durationpb.Duration {
	g := defaultGrace
	if s.GetGrace() != nil {
		g = s.GetGrace().AsDuration()
	}
	if longest := p.GetSpec().GetLongestGrace(); longest != nil {
		g = min(g, longest.AsDuration())
	}
	return durationpb.New(max(g, 0))
}

// References lists the keys of the resources that a resource names.
func References(r *pb.Resource) []string {
	var out []string
	add := func(kind, name string) {
		if key := kind + "/" + name; name != "" && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	for _, w := range r.GetPlan().GetSpec().GetWorkloads() {
		add("image", w.GetImage())
		for _, d := range w.GetDependsOn() {
			if plan, _, other := strings.Cut(d, "/"); other {
				add("plan", plan)
			}
		}
		for _, n := range w.GetNics() {
			add("network", n.GetNetwork())
		}
		for _, v := range w.GetVolumes() {
			add("pool", v.GetPool())
			add("pool", v.GetSource().GetPool())
		}
	}
	for _, f := range r.GetPlan().GetSpec().GetFencing() {
		add("fencetarget", f.GetPower().GetTarget())
	}
	add("network", r.GetProject().GetSpec().GetNetwork())
	for _, p := range slices.Concat(r.GetTrigger().GetSpec().GetPlans(), r.GetScenario().GetSpec().GetPlans()) {
		add("plan", p)
	}
	return out
}
