// Package guarantee is the plain data of the guarantee: what a site has and must be able to carry,
// and the certificate that it can. It decides nothing; packages proof, audit and victim do, and the
// coordinator's demand package fills it in.
package guarantee

import (
	"math"
	"slices"
	"time"
)

// The dimensions that every site has. Devices follow.
const (
	// VCPUs are counted in thousandths.
	VCPUs = "vcpus"
	// Memory is counted in bytes.
	Memory = "memory"
	// LocalDisk is the hosts' own disk, in bytes.
	LocalDisk = DiskPrefix + "local"
)

// What the names of other dimensions begin with: disks in bytes, devices in pieces.
const (
	DiskPrefix   = "disk/"
	DevicePrefix = "device/"
)

// Milli is how much of dimension VCPUs one virtual CPU is.
const Milli = 1000

// Vector is an amount in each dimension of the site. A missing dimension is zero.
type Vector []int64

// At is the amount in one dimension.
func (v Vector) At(d int) int64 {
	if d >= len(v) {
		return 0
	}
	return v[d]
}

// Fits says whether v is within room in every dimension.
func (v Vector) Fits(room Vector) bool {
	for d, n := range v {
		if n > room.At(d) {
			return false
		}
	}
	return true
}

// Add adds without overflow: absurd amounts stay absurd and never look small.
func Add(a, b int64) int64 {
	switch s := a + b; {
	case a > 0 && b > 0 && s < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && s >= 0:
		return math.MinInt64
	default:
		return s
	}
}

// Site is everything that a decision looks at. Its slices are in a fixed order, that of the names.
type Site struct {
	Dimensions []string
	Hosts      []Host
	Workloads  []Workload
	// Firm instances survive every scenario; Preemptible ones can all be taken back.
	Firm, Preemptible []Instance
	// Kept is what leases that have ended left for a while, for an undelete.
	Kept []Kept
	// Scenarios that must fit. Empty: one with all plans and one host lost.
	Scenarios []Scenario
}

// State of a host.
type State int

// The states. Only a Usable host takes anything new. A Closed one (cordoned, draining) and one that
// is Unknown (silent) carry on with what runs there, and can be lost with it. On a Lost one nothing runs.
const (
	Usable State = iota + 1
	Closed
	Unknown
	Lost
)

// Host is room for VMs.
type Host struct {
	Name string
	// FailureDomain: hosts that can be lost together. Empty: this host alone.
	FailureDomain string
	State         State
	// Capacity after overcommit, reserve and what is not ours.
	Capacity Vector
	// Lending is the share of disk and devices that the proof leaves to the residue of preempted
	// instances. It is the same for equal hosts, so that leases never make them unequal.
	Lending Vector
	// Labels ("key=value"), networks and pools that a VM here has.
	Labels, Networks, Pools []string
	// SaveBandwidth is the measured rate in bytes per second at which RAM is saved; 0: not measured.
	SaveBandwidth int64
}

// Workload is a protected VM.
type Workload struct {
	// Name is "plan/replica".
	Name, Plan string
	Rank       uint32
	Demand     Vector
	// What its host must have.
	Labels, Networks, Pools []string
	// Apart are the groups of which no two share a host or a failure domain.
	Apart []Apart
	// Together names those that share one host; empty: none. Once they run apart it binds no more.
	Together string
	// Host is where it runs in an open run and stays, unless that host is lost. Empty: nowhere yet.
	Host string
	// Budget is how long reclaiming room for it may take; 0: not known.
	Budget time.Duration
}

// Apart is a group that is spread over hosts, or over failure domains.
type Apart struct {
	Group  string
	Domain bool
}

// Instance is one VM of a lease. The VMs of a lease are taken and returned as a unit.
type Instance struct {
	Lease, Object string
	Host          string
	Demand        Vector
	// Residue is what a preemption does not give back: disk for saved RAM and disks, devices.
	Residue  Vector
	Networks []string
	Pools    []string
	Reclaim  Reclaim
	// Cost of preempting it; smaller goes first.
	Cost uint64
	// Held: preempted already. It holds no room now, but comes back to it.
	Held bool
}

// Kept is what is left on a host of an instance that will not run there again unless somebody asks for it.
type Kept struct {
	Host  string
	Disks Vector
}

// Reclaim is how an instance gives its room back.
type Reclaim struct {
	// Wait is notice and grace.
	Wait time.Duration
	// SaveBytes are written before the room is free; 0 for shutdown and discard.
	SaveBytes int64
}

// Bound is the longest time that taking all of them from one host can take: they wait side by side,
// and share the bandwidth. Without a measured bandwidth a save has no bound.
func Bound(bandwidth int64, rs ...Reclaim) time.Duration {
	var wait time.Duration
	var bytes int64
	for _, r := range rs {
		wait, bytes = max(wait, r.Wait), Add(bytes, r.SaveBytes)
	}
	return after(wait, bytes, bandwidth)
}

func after(wait time.Duration, bytes, bandwidth int64) time.Duration {
	if bytes == 0 {
		return wait
	}
	if bandwidth <= 0 {
		return math.MaxInt64
	}
	seconds := (bytes-1)/bandwidth + 1
	if seconds > math.MaxInt64/2/int64(time.Second) {
		return math.MaxInt64
	}
	return wait + time.Duration(seconds)*time.Second
}

// Scenario is a set of plans that may have to run at the same time, with the losses to survive.
type Scenario struct {
	Name string
	// Plans by name; nil: all.
	Plans []string
	// Losses to survive: so many hosts, and so many failure domains.
	Hosts, FailureDomains int
}

// Covers says whether the scenario runs a plan.
func (s Scenario) Covers(plan string) bool {
	return s.Plans == nil || slices.Contains(s.Plans, plan)
}

// Equal says whether both ask for the same. No plans at all are others than all of them.
func (s Scenario) Equal(o Scenario) bool {
	return s.Name == o.Name && s.Hosts == o.Hosts && s.FailureDomains == o.FailureDomains && (s.Plans == nil) == (o.Plans == nil) && slices.Equal(s.Plans, o.Plans)
}

// Asked are the scenarios to prove.
func (s *Site) Asked() []Scenario {
	if len(s.Scenarios) > 0 {
		return s.Scenarios
	}
	return []Scenario{{Name: "all", Hosts: 1}}
}

// Weaken gives up so many of the losses that each scenario is to survive.
func Weaken(scenarios []Scenario, losses int) []Scenario {
	out := make([]Scenario, len(scenarios))
	for i, s := range scenarios {
		s.Hosts, s.FailureDomains = max(s.Hosts-losses, 0), max(s.FailureDomains-losses, 0)
		out[i] = s
	}
	return out
}

// Tolerance is the largest number of losses that a scenario is to survive.
func Tolerance(scenarios []Scenario) int {
	n := 0
	for _, s := range scenarios {
		n = max(n, s.Hosts, s.FailureDomains)
	}
	return n
}
