// Package demand turns the replicated state into the plain data that package placement decides on.
// It decides nothing itself and changes nothing. The RPC handlers and the controllers call it, and apply,
// which may see nothing that is not replicated: who is silent comes in as a fact.
package demand

import (
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// The order of the dimensions that every site has; its devices and its other local pools follow.
const (
	cpu = iota
	memory
	disk
	more
)

// dimensions are the names of a site's dimensions.
func (c *common) dimensions() []string {
	return append([]string{guarantee.VCPUs, guarantee.Memory, guarantee.LocalDisk}, c.more...)
}

// local is what a VM has of its host beside processors and memory, or a host has: disk in bytes by local pool, and devices.
type local struct {
	disks   map[string]uint64
	devices map[string]uint32
}

// asked is what resources ask for, less the host's own disk.
func asked(r *pb.Resources) local { return local{r.GetLocalDisksBytes(), r.GetDevices()} }

// each walks the dimensions of what is there beside the host's own disk, in any order.
func (l local) each(note func(dimension string, amount int64)) {
	for pool, n := range l.disks { // Any order: so is promised.
		if model.ValidLocalPool(pool) {
			note(guarantee.DiskPrefix+pool, amount(n, 1))
		}
	}
	for name, n := range l.devices { // Any order: so is promised.
		note(guarantee.DevicePrefix+name, int64(n))
	}
}

// vector is a demand or a capacity in the site's dimensions.
func (d *Reader) vector(vcpus, memoryBytes, diskBytes uint64, l local) guarantee.Vector {
	v := make(guarantee.Vector, more+len(d.more))
	v[cpu], v[memory], v[disk] = amount(vcpus, guarantee.Milli), amount(memoryBytes, 1), amount(diskBytes, 1)
	l.each(func(dimension string, n int64) {
		if at, known := slices.BinarySearch(d.more, dimension); known {
			v[more+at] = n
		}
	})
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
	// Lents walks the leases, each with the address of what it and the objects of its VMs are now.
	Lents() iter.Seq[*Lent]
	Failovers() iter.Seq[*pb.Failover]
	OpenFailovers() iter.Seq[*pb.Failover]
	Object(id string) *pb.Object
	Plan(name string) *pb.Plan
	Resource(key string) *pb.Resource
	Resources(kind string) iter.Seq[*pb.Resource]
	// Memo is the one of all versions of this state.
	Memo() *Memo
	Roots() Roots
}

// Site describes the site for a decision; silent hosts are those whose agents do not answer. Leases that are preempted
// now keep their claim: they count as preemptible instances of their host, marked as held. What the slices hold is
// shared with other sites and must not be changed.
func Site(s State, silent []string) *guarantee.Site {
	r := s.Memo().read(s)
	out, _ := r.base(silent)
	out.Preemptible, out.Kept = r.lent(s)
	return out
}

// Base describes what a proof is about: the site without what can be taken back. The fingerprint is the site's.
func Base(s State, silent []string) (site *guarantee.Site, fingerprint []byte) {
	return s.Memo().read(s).base(silent)
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

// Reader states the demands of one version of the state. It is not for concurrent use.
type Reader struct {
	s State
	*common
	took    starts
	budgets map[*pb.Plan]map[string]time.Duration
}

// NewReader looks up what all demands have in common.
func NewReader(s State) *Reader {
	r := s.Memo().read(s)
	return newReader(s, &r.common, r.took)
}

func newReader(s State, c *common, took starts) *Reader {
	return &Reader{s, c, took, map[*pb.Plan]map[string]time.Duration{}}
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

// demand of a guest with what it costs beyond its own memory.
func (d *Reader) demand(r *pb.Resources) guarantee.Vector {
	v := d.vector(uint64(r.GetVcpus()), r.GetMemoryBytes(), r.GetLocalDiskBytes(), asked(r))
	v[memory] = guarantee.Add(v[memory], amount(d.overhead, 1))
	return v
}

// made is what an instance was made with.
func made(is *pb.InstanceSpec) *pb.Resources {
	disks := model.LocalDisksOf(is)
	own := disks[model.LocalDisk]
	delete(disks, model.LocalDisk)
	return &pb.Resources{Vcpus: is.GetVcpus(), MemoryBytes: is.GetMemoryBytes(), LocalDiskBytes: own, LocalDisksBytes: disks, Devices: is.GetDevices()}
}

// Lacks names a device or a local pool that nobody has or asked for before ("device a100"); empty: all are known.
func (d *Reader) Lacks(r *pb.Resources) string {
	var lacking []string
	asked(r).each(func(dimension string, _ int64) {
		if !slices.Contains(d.more, dimension) {
			lacking = append(lacking, dimension)
		}
	})
	if len(lacking) == 0 {
		return ""
	}
	slices.Sort(lacking)
	if pool, is := strings.CutPrefix(lacking[0], guarantee.DiskPrefix); is {
		return "local pool " + pool
	}
	return "device " + strings.TrimPrefix(lacking[0], guarantee.DevicePrefix)
}
