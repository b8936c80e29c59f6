package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Bounds of one plan. They keep a failover's entry within 4 MiB (R7): each workload instance takes
// about six steps of some 500 bytes.
const (
	maxWorkloads = 200
	maxReplicas  = 100
	maxVolumes   = 16
	maxNics      = 8
	maxEndpoints = 100
	// MaxVCPUs of one VM: what QEMU's q35 accepts.
	MaxVCPUs = 288
	// MinMemoryBytes and MaxMemoryBytes bound the memory of one VM.
	MinMemoryBytes = 16 << 20
	MaxMemoryBytes = 16 << 40
)

// ordinalMark is replaced by the number of a replica, from 0.
const ordinalMark = "{ordinal}"

func (c *checker) plan(name string, s *pb.PlanSpec) {
	c.positive("spec.rtoTarget", s.GetRtoTarget())
	c.positive("spec.rpoTarget", s.GetRpoTarget())
	c.positive("spec.reclaimBudget", s.GetReclaimBudget())
	c.fencing(s.GetFencing())
	if len(s.GetWorkloads()) == 0 {
		c.add("spec.workloads", "a plan needs at least one workload")
	}
	if len(s.GetWorkloads()) > maxWorkloads {
		c.add("spec.workloads", "%d workloads, at most %d: split the plan", len(s.GetWorkloads()), maxWorkloads)
		return
	}
	seen := map[string]bool{}
	for i, w := range s.GetWorkloads() {
		path := fmt.Sprintf("spec.workloads[%d]", i)
		if c.name(path+".name", w.GetName(), "workload") && seen[w.GetName()] {
			c.add(path+".name", "workload %q is declared twice", w.GetName())
		}
		seen[w.GetName()] = true
		c.workload(path, w)
	}
	c.replicaNames(s.GetWorkloads())
	c.sharedNames(s.GetWorkloads())
	c.dependencies(name, s.GetWorkloads())
	c.endpoints(s)
}

func (c *checker) fencing(list []*pb.Fencing) {
	if len(list) == 0 {
		c.add("spec.fencing", "a plan needs at least one way to prove the old side dead, for example [{oath: {}}]")
	}
	for i, f := range list {
		path := fmt.Sprintf("spec.fencing[%d]", i)
		switch {
		case f.GetPower() != nil && f.GetOath() != nil:
			c.add(path, "power and oath are two ways: write two items")
		case f.GetPower() != nil:
			c.name(path+".power.target", f.GetPower().GetTarget(), "fence target")
		case f.GetOath() == nil:
			c.add(path, "names no way: write power or oath")
		}
		c.positive(path+".timeout", f.GetTimeout())
		if f.GetOath() != nil && i < len(list)-1 {
			c.add(path, "an oath waits for a person, so nothing after it would be tried: put it last")
		}
	}
}

func (c *checker) workload(path string, w *pb.Workload) {
	if w.GetReplicas() > maxReplicas {
		c.add(path+".replicas", "%d replicas, at most %d", w.GetReplicas(), maxReplicas)
		return
	}
	c.resources(path+".resources", w.GetResources())
	if len(w.GetVolumes()) == 0 && w.GetImage() == "" {
		c.add(path, "has neither a volume nor an image to boot from")
	}
	if w.GetImage() != "" {
		c.name(path+".image", w.GetImage(), "image")
	}
	c.volumes(path, w)
	if len(w.GetNics()) > maxNics {
		c.add(path+".nics", "%d network cards, at most %d", len(w.GetNics()), maxNics)
		return
	}
	for i, n := range w.GetNics() {
		c.nic(fmt.Sprintf("%s.nics[%d]", path, i), n, replicas(w))
	}
	if w.GetAntiAffinity() != "" {
		c.oneOf(path+".antiAffinity", w.GetAntiAffinity(), AntiAffinityHost, AntiAffinityDomain)
	}
	c.company(path, w)
	c.health(path+".healthy", w)
}

// What a workload's replicas may be spread over.
const (
	AntiAffinityHost   = "host"
	AntiAffinityDomain = "failureDomain"
)

// maxApart bounds the groups of one workload.
const maxApart = 16

// company checks what a workload asks of its host and of the others there.
func (c *checker) company(path string, w *pb.Workload) {
	if len(w.GetRequires()) > maxLabels {
		c.add(path+".requires", "%d labels, at most %d", len(w.GetRequires()), maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(w.GetRequires())) {
		if !labelKey(k) {
			c.add(path+".requires."+k, "a label's key has 1 to 63 letters, digits, '.', '_', '/' and '-'")
		}
	}
	if len(w.GetApart()) > maxApart {
		c.add(path+".apart", "%d groups, at most %d", len(w.GetApart()), maxApart)
	}
	for i, g := range w.GetApart() {
		c.name(fmt.Sprintf("%s.apart[%d]", path, i), g, "group")
	}
	if w.GetTogether() == "" {
		return
	}
	c.name(path+".together", w.GetTogether(), "group")
	if replicas(w) > 1 && (w.GetAntiAffinity() != "" || len(w.GetApart()) > 0) {
		c.add(path+".together", "the replicas of a workload that keeps apart cannot keep together")
	}
}

func replicas(w *pb.Workload) int { return int(max(1, w.GetReplicas())) }

func (c *checker) resources(path string, r *pb.Resources) {
	if r == nil {
		c.add(path, "is missing: write for example {vcpus: 4, memory: 8GiB}")
		return
	}
	if r.GetVcpus() < 1 || r.GetVcpus() > MaxVCPUs {
		c.add(path+".vcpus", "is %d, want 1 to %d", r.GetVcpus(), MaxVCPUs)
	}
	if m := r.GetMemoryBytes(); m < MinMemoryBytes || m > MaxMemoryBytes {
		c.add(path+".memory", "is %s, want %s to %s", FormatBytes(m), FormatBytes(MinMemoryBytes), FormatBytes(MaxMemoryBytes))
	}
	c.localDisk(path+".localDisk", r.GetLocalDiskBytes())
	c.localDisks(path+".localDisks", r.GetLocalDisksBytes(), MinLocalDiskBytes)
	c.devices(path+".devices", r.GetDevices())
}

// Bounds of what a VM is given on its host beside processors and memory.
const (
	// MinLocalDiskBytes is the smallest disk that is made; less is none.
	MinLocalDiskBytes = 1 << 20
	// MaxLocalDiskBytes of one VM.
	MaxLocalDiskBytes = 64 << 40
	// MaxLocalPools that one host has beside its own disk, or VM uses.
	MaxLocalPools = 8
	// MaxDevices of one name.
	MaxDevices = 1024
	// MaxDeviceNames that one host or VM has.
	MaxDeviceNames = 16
)

func (c *checker) localDisk(path string, n uint64) {
	if n > 0 && (n < MinLocalDiskBytes || n > MaxLocalDiskBytes) {
		c.add(path, "is %s, want %s to %s", FormatBytes(n), FormatBytes(MinLocalDiskBytes), FormatBytes(MaxLocalDiskBytes))
	}
}

// localDisks checks what is said of local pools by name; each is at least so much.
func (c *checker) localDisks(path string, disks map[string]uint64, least uint64) {
	if len(disks) > MaxLocalPools {
		c.add(path, "%d names, at most %d", len(disks), MaxLocalPools)
	}
	for _, pool := range slices.Sorted(maps.Keys(disks)) {
		switch at, n := path+"."+pool, disks[pool]; {
		case pool == LocalDisk:
			c.add(at, "is the host's own disk: write %s", strings.TrimSuffix(path, "s"))
		case !ValidLocalPool(pool):
			c.add(at, "local pool %q is not a name of at most 32 of a-z, 0-9 and '-', not at the ends", pool)
		case n < least || n > MaxLocalDiskBytes:
			c.add(at, "is %s, want %s to %s", FormatBytes(n), FormatBytes(least), FormatBytes(MaxLocalDiskBytes))
		}
	}
}

func (c *checker) devices(path string, devices map[string]uint32) {
	if len(devices) > MaxDeviceNames {
		c.add(path, "%d names, at most %d", len(devices), MaxDeviceNames)
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if c.name(path+"."+name, name, "device") && (devices[name] < 1 || devices[name] > MaxDevices) {
			c.add(path+"."+name, "is %d, want 1 to %d", devices[name], MaxDevices)
		}
	}
}

func (c *checker) volumes(path string, w *pb.Workload) {
	if len(w.GetVolumes()) > maxVolumes {
		c.add(path+".volumes", "%d volumes, at most %d", len(w.GetVolumes()), maxVolumes)
		return
	}
	seen := map[string]bool{}
	for i, v := range w.GetVolumes() {
		at := fmt.Sprintf("%s.volumes[%d]", path, i)
		if c.name(at+".name", v.GetName(), "volume") && seen[v.GetName()] {
			c.add(at+".name", "volume %q is declared twice", v.GetName())
		}
		seen[v.GetName()] = true
		if v.GetName() == LocalDisk && w.GetResources().GetLocalDiskBytes() > 0 {
			c.add(at+".name", "%q is the name of the disk that resources.localDisk gives: choose another", LocalDisk)
		}
		if pool, is := strings.CutPrefix(v.GetName(), LocalDiskName("")); is && w.GetResources().GetLocalDisksBytes()[pool] > 0 {
			c.add(at+".name", "%q is the name of the disk that resources.localDisks.%s gives: choose another", v.GetName(), pool)
		}
		c.name(at+".pool", v.GetPool(), "pool")
		c.replica(at+".replica", v.GetReplica(), replicas(w))
		if src := v.GetSource(); src != nil {
			c.name(at+".source.agent", src.GetAgent(), "agent")
			c.required(at+".source.domain", src.GetDomain(), "domain")
			c.required(at+".source.disk", src.GetDisk(), "disk")
			if src.GetPool() != "" {
				c.name(at+".source.pool", src.GetPool(), "pool")
			}
		}
	}
}

func (c *checker) replica(path, s string, n int) {
	if s == "" {
		c.add(path, "the name of the replica in the pool is missing")
		return
	}
	if plain := strings.Replace(s, ordinalMark, "0", 1); !ValidName(plain) {
		c.add(path, "replica %q is not a name: 1 to 63 of a-z, 0-9 and '-', and once %s", s, ordinalMark)
	}
	if n > 1 && !strings.Contains(s, ordinalMark) {
		c.add(path, "%d replicas would share one volume: put %s into its name", n, ordinalMark)
	}
}

func (c *checker) nic(path string, n *pb.WorkloadNic, count int) {
	c.name(path+".network", n.GetNetwork(), "network")
	if n.GetMac() != "" {
		c.mac(path+".mac", n.GetMac())
		if count > 1 {
			c.add(path+".mac", "%d replicas cannot share one MAC address: leave it out", count)
		}
	}
	if n.GetAddress() != "" && len(n.GetAddresses()) > 0 {
		c.add(path+".address", "give address or addresses, not both")
		return
	}
	var in []netip.Prefix
	switch {
	case n.GetAddress() != "":
		if count > 1 {
			c.add(path+".address", "%d replicas need addresses, one for each", count)
		}
		if p, ok := c.hostAddress(path+".address", n.GetAddress()); ok {
			in = append(in, p)
		}
	case len(n.GetAddresses()) > 0:
		if len(n.GetAddresses()) != count {
			c.add(path+".addresses", "%d addresses for %d replicas", len(n.GetAddresses()), count)
		}
		for i, a := range n.GetAddresses() {
			if p, ok := c.hostAddress(fmt.Sprintf("%s.addresses[%d]", path, i), a); ok {
				in = append(in, p)
			}
		}
	}
	c.gateway(path+".gateway", n.GetGateway(), in...)
}

func (c *checker) health(path string, w *pb.Workload) {
	h := w.GetHealthy()
	if h == nil {
		return
	}
	if (h.GetHttp() == "") == (h.GetTcp() == "") {
		c.add(path, "needs http or tcp, and only one of them")
	}
	if h.GetHttp() != "" {
		c.probeURL(path+".http", h.GetHttp())
	}
	if h.GetTcp() != "" {
		c.hostPort(path+".tcp", strings.Replace(h.GetTcp(), "{address}", "192.0.2.1", 1))
	}
	if replicas(w) > 1 && !strings.Contains(h.GetHttp()+h.GetTcp(), "{address}") {
		c.add(path, "%d replicas need {address}, or only one of them would be probed", replicas(w))
	}
	if strings.Contains(h.GetHttp()+h.GetTcp(), "{address}") && !hasAddress(w) {
		c.add(path, "uses {address}, but no network card has one")
	}
	if len(w.GetNics()) == 0 {
		c.add(path, "cannot be probed without a network card")
	}
	c.positive(path+".within", h.GetWithin())
}

func hasAddress(w *pb.Workload) bool {
	return slices.ContainsFunc(w.GetNics(), func(n *pb.WorkloadNic) bool {
		return n.GetAddress() != "" || len(n.GetAddresses()) > 0
	})
}

// sharedNames refuses two instances of one plan with the same replica, MAC or address.
func (c *checker) sharedNames(ws []*pb.Workload) {
	used := map[string]string{}
	claim := func(path, key, what string) {
		if before, ok := used[key]; ok {
			c.add(path, "%s is used twice, first at %s", what, before)
			return
		}
		used[key] = path
	}
	for i, w := range ws {
		for j, v := range w.GetVolumes() {
			path := fmt.Sprintf("spec.workloads[%d].volumes[%d].replica", i, j)
			claim(path, "volume "+v.GetPool()+" "+v.GetReplica(), "replica "+v.GetReplica())
		}
		for j, n := range w.GetNics() {
			path := fmt.Sprintf("spec.workloads[%d].nics[%d]", i, j)
			if n.GetMac() != "" {
				claim(path+".mac", "mac "+strings.ToLower(n.GetMac()), "MAC address "+n.GetMac())
			}
			if n.GetAddress() != "" {
				claim(path+".address", "address "+n.GetNetwork()+" "+bareAddress(n.GetAddress()), "address "+n.GetAddress())
			}
			for k, a := range n.GetAddresses() {
				claim(fmt.Sprintf("%s.addresses[%d]", path, k), "address "+n.GetNetwork()+" "+bareAddress(a), "address "+a)
			}
		}
	}
}

// replicaNames refuses a workload named as a replica of another one is: "web-1" beside two of "web".
func (c *checker) replicaNames(ws []*pb.Workload) {
	replicas := map[string]uint32{}
	for _, w := range ws {
		replicas[w.GetName()] = w.GetReplicas()
	}
	for i, w := range ws {
		at := strings.LastIndex(w.GetName(), "-")
		if at < 0 || w.GetReplicas() > 1 {
			continue
		}
		of := w.GetName()[:at]
		if n, err := strconv.ParseUint(w.GetName()[at+1:], 10, 32); err == nil && replicas[of] > 1 && n < uint64(replicas[of]) {
			c.add(fmt.Sprintf("spec.workloads[%d].name", i), "%q is also the name of a replica of workload %q: rename one of them", w.GetName(), of)
		}
	}
}

func bareAddress(cidr string) string {
	a, _, _ := strings.Cut(cidr, "/")
	return a
}

func (c *checker) endpoints(s *pb.PlanSpec) {
	if len(s.GetEndpoints()) > maxEndpoints {
		c.add("spec.endpoints", "%d endpoints, at most %d", len(s.GetEndpoints()), maxEndpoints)
		return
	}
	names := workloadNames(s.GetWorkloads())
	seen := map[string]bool{}
	for i, e := range s.GetEndpoints() {
		path := fmt.Sprintf("spec.endpoints[%d]", i)
		d := e.GetDns()
		if d == nil {
			c.add(path, "names no endpoint: write dns")
			continue
		}
		c.dns(path+".dns", d)
		c.known(path+".dns.after", d.GetAfter(), names)
		key := strings.ToLower(d.GetName() + " " + d.GetZone() + " " + d.GetType())
		if seen[key] {
			c.add(path+".dns", "%s %s in %s is declared twice", d.GetType(), d.GetName(), d.GetZone())
		}
		seen[key] = true
	}
}

func (c *checker) dns(path string, d *pb.PlanDns) {
	if !strings.HasSuffix(d.GetZone(), ".") || !dnsName(strings.TrimSuffix(d.GetZone(), ".")) {
		c.add(path+".zone", "%q is not a zone, for example shop.example. with the final dot", d.GetZone())
	}
	if d.GetName() != "@" && !dnsName(d.GetName()) {
		c.add(path+".name", "%q is not a name within the zone, for example www, or @ for the zone itself", d.GetName())
	}
	c.oneOf(path+".type", d.GetType(), "A", "AAAA", "CNAME")
	if len(d.GetValues()) == 0 {
		c.add(path+".values", "needs at least one value")
	}
	for i, v := range d.GetValues() {
		c.dnsValue(fmt.Sprintf("%s.values[%d]", path, i), d, v)
	}
	c.positive(path+".ttl", d.GetTtl())
}

// dnsValue checks one value against the type of its record set.
func (c *checker) dnsValue(at string, d *pb.PlanDns, v string) {
	a, err := netip.ParseAddr(v)
	switch d.GetType() {
	case "A":
		if err != nil || !a.Is4() {
			c.add(at, "%q is not an IPv4 address", v)
		}
	case "AAAA":
		if err != nil || !a.Is6() {
			c.add(at, "%q is not an IPv6 address", v)
		}
	case "CNAME":
		if !strings.HasSuffix(v, ".") || !dnsName(strings.TrimSuffix(v, ".")) || len(d.GetValues()) > 1 {
			c.add(at, "a CNAME has one value, a full name with the final dot")
		}
	}
}

// dnsName checks a relative or absolute name without its final dot; '_' and '*' occur in practice.
func dnsName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label != "*" && !ValidName(strings.ToLower(strings.TrimPrefix(label, "_"))) {
			return false
		}
	}
	return true
}
