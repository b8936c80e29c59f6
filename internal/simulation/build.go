package simulation

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/storage"
)

const (
	poolAgent, gatewayAgent, oldAgent = "store1", "gw1", "east1"
	zoneName                          = "shop.example."
	gib                               = uint64(1) << 30
	overhead                          = gib / 4
)

// firstAddress is where the records point before anything happens.
const firstAddress = "198.51.100.1"

// layout is what was built.
type layout struct {
	hosts []string
	plans []*pb.Plan
}

// build makes the machines of both sites and the coordinators. Nothing has happened yet.
func (s *sim) build() {
	w := &world{
		s: s, hosts: map[string]*host{}, records: map[string]*pb.EndpointValue{}, fences: map[string]map[uint64]bool{},
		old: &oldSite{alive: true, reach: true, vms: map[string]*oldVM{}},
	}
	w.pool = &pool{w: w, volumes: map[string]*volume{}}
	w.home = &pool{w: w, volumes: map[string]*volume{}, site: true}
	s.world = w
	for i := range s.number(2, 4) {
		name := fmt.Sprintf("h%d", i+1)
		h := &host{w: w, name: name, domains: map[model.ObjectID]*domain{}, networks: map[string]*pb.NetworkSpec{}, capacity: &pb.Capacity{
			Vcpus: 32, MemoryBytes: uint64(s.number(12, 24)) * gib, OverheadBytes: overhead, DiskBytes: uint64(s.number(40, 200)) * gib,
			Devices: map[string]uint32{gpu: uint32(s.number(1, 2))}, LocalDisksBytes: map[string]uint64{ssd: uint64(s.number(10, 60)) * gib}, SaveBytesPerSecond: gib,
		}}
		w.hosts[name] = h
		s.site.hosts = append(s.site.hosts, name)
		s.addAgent(name, h, actuate.Drivers{Hypervisor: h, Networks: bridges{h}})
	}
	s.addAgent(poolAgent, nil, actuate.Drivers{Pools: map[string]storage.Driver{"west": w.pool}})
	s.addAgent(gatewayAgent, nil, actuate.Drivers{
		Zones: map[string]sdn.Endpoints{zoneName: &zone{w}}, Fence: fence.Driver(&switches{w}),
	})
	s.addAgent(oldAgent, nil, actuate.Drivers{Source: &oldDisks{w}, Pools: map[string]storage.Driver{"east": w.home}})
	for i := range 3 {
		s.members = append(s.members, &member{s: s, name: fmt.Sprintf("c%d", i+1), up: true, st: state.New(), sessions: map[string]*session{}})
	}
	for _, t := range []string{"east-a", "east-b"} {
		w.fences[t] = map[uint64]bool{}
	}
	s.site.plans = s.plans()
	for _, p := range s.site.plans {
		target := "east-a"
		for _, f := range p.GetSpec().GetFencing() {
			if f.GetPower() != nil {
				target = f.GetPower().GetTarget()
			}
		}
		for _, r := range model.Replicas(p) {
			w.old.vms[oldName(p.GetMetadata().GetName(), r.Name)] = &oldVM{running: true, target: target, holds: w.token()}
		}
		for _, e := range p.GetSpec().GetEndpoints() {
			w.records[recordKey(&pb.DnsRecord{Zone: zoneName, Name: e.GetDns().GetName(), Type: "A"})] = &pb.EndpointValue{
				Values: []string{firstAddress}, Ttl: durationpb.New(time.Minute),
			}
		}
	}
}

// oldName names a workload's VM at the protected site.
func oldName(plan, replica string) string { return plan + "-" + replica }

func (s *sim) addAgent(name string, h *host, d actuate.Drivers) {
	a := &agent{s: s, name: name, host: h, drivers: d, journal: newJournal("journal of " + name)}
	a.actuator = actuate.New(&a.drivers)
	s.agents = append(s.agents, a)
	s.links[name] = &link{}
}

func (s *sim) agentOf(name string) *agent {
	for _, a := range s.agents {
		if a.name == name {
			return a
		}
	}
	return nil
}

// The device and the local pool that hosts have beside their own disk.
const (
	gpu = "gpu"
	ssd = "ssd"
)

// plans draws the recovery plans.
func (s *sim) plans() []*pb.Plan {
	db := &pb.Workload{
		Name: "db", Resources: &pb.Resources{Vcpus: 4, MemoryBytes: uint64(s.number(3, 6)) * gib},
		Volumes: []*pb.WorkloadVolume{volumeOf("webshop-db", "webshop-db")},
		Nics:    []*pb.WorkloadNic{{Network: "prod", Mac: "52:54:00:aa:00:01", Address: "10.10.0.11/24"}},
		Healthy: &pb.WorkloadHealth{Tcp: "10.10.0.11:5432", Within: durationpb.New(time.Minute)},
	}
	web := &pb.Workload{
		Name: "web", Replicas: uint32(s.number(1, 2)), Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 2 * gib}, Image: "debian",
		Nics:      []*pb.WorkloadNic{{Network: "prod", Addresses: []string{"10.10.0.21/24", "10.10.0.22/24"}}},
		DependsOn: []string{"db"}, Healthy: &pb.WorkloadHealth{Http: "http://{address}/", Within: durationpb.New(time.Minute)},
		Optional: s.chance(0.2),
	}
	web.Nics[0].Addresses = web.Nics[0].Addresses[:web.Replicas]
	if s.chance(0.3) {
		web.AntiAffinity = "host"
	}
	app := &pb.Workload{
		Name: "app", Resources: &pb.Resources{Vcpus: 2, MemoryBytes: uint64(s.number(2, 5)) * gib},
		Volumes: []*pb.WorkloadVolume{volumeOf("billing-app", "billing-app")},
		Nics:    []*pb.WorkloadNic{{Network: "prod", Address: "10.10.0.31/24"}},
	}
	if s.chance(0.5) {
		app.DependsOn = []string{"webshop/db"}
	}
	if s.chance(0.2) {
		app.Resources.Devices = map[string]uint32{gpu: 1}
	}
	if s.chance(0.3) {
		db.Resources.LocalDiskBytes = uint64(s.number(1, 20)) * gib
	}
	if s.chance(0.2) {
		app.Resources.LocalDisksBytes = map[string]uint64{ssd: uint64(s.number(1, 10)) * gib}
	}
	target := "east-a"
	if s.chance(0.5) {
		target = "east-b"
	}
	plans := []*pb.Plan{
		{Metadata: &pb.Metadata{Name: "webshop"}, Spec: &pb.PlanSpec{
			Rank: 10, Fencing: s.fencing("east-a"), Workloads: []*pb.Workload{db, web}, Endpoints: []*pb.PlanEndpoint{endpointOf("www", "web")},
		}},
		{Metadata: &pb.Metadata{Name: "billing"}, Spec: &pb.PlanSpec{
			Rank: 20, Fencing: s.fencing(target), Workloads: []*pb.Workload{app}, Endpoints: []*pb.PlanEndpoint{endpointOf("pay", "app")},
		}},
	}
	for _, p := range plans {
		if s.chance(0.4) { // Budgets for reclaiming: of the target at first, then of what starts took.
			p.Spec.RtoTarget = durationpb.New(time.Duration(s.number(30, 240)) * time.Second)
		}
	}
	return plans
}

func volumeOf(replica, domain string) *pb.WorkloadVolume {
	return &pb.WorkloadVolume{
		Name: "root", Pool: "west", Replica: replica, SizeBytes: 10 * gib,
		Source: &pb.ReplicationSource{Agent: oldAgent, Domain: domain, Disk: "vda", Pool: "east"},
	}
}

func endpointOf(name, after string) *pb.PlanEndpoint {
	return &pb.PlanEndpoint{Dns: &pb.PlanDns{
		Zone: zoneName, Name: name, Type: "A", Values: []string{"203.0.113.10"}, Ttl: durationpb.New(30 * time.Second), After: []string{after},
	}}
}

func (s *sim) fencing(target string) []*pb.Fencing {
	power := &pb.Fencing{Power: &pb.PowerFencing{Target: target}, Timeout: durationpb.New(20 * time.Second)}
	oath := &pb.Fencing{Oath: &pb.OathFencing{}}
	switch s.number(0, 5) {
	case 0:
		return []*pb.Fencing{power}
	case 1:
		return []*pb.Fencing{oath}
	default:
		return []*pb.Fencing{power, oath}
	}
}

// resources is what an operator applies first.
func (s *sim) resources() []*pb.Resource {
	target := func(name string) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_FenceTarget{FenceTarget: &pb.FenceTarget{
			Metadata: &pb.Metadata{Name: name}, Spec: &pb.FenceTargetSpec{Agent: gatewayAgent},
		}}}
	}
	network := func(name string, d *pb.NetworkDecl) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Network{Network: &pb.Network{Metadata: &pb.Metadata{Name: name}, Spec: d}}}
	}
	out := []*pb.Resource{
		network("prod", &pb.NetworkDecl{Role: pb.NetworkRole_NETWORK_ROLE_PRODUCTION, Bridge: "br-prod", Uplink: "eth1"}),
		network("lent", &pb.NetworkDecl{Role: pb.NetworkRole_NETWORK_ROLE_LENT, Bridge: "br-lent", Subnet: "10.20.0.0/24", Gateway: "10.20.0.1"}),
		{Resource: &pb.Resource_Pool{Pool: &pb.Pool{
			Metadata: &pb.Metadata{Name: "west"}, Spec: &pb.PoolSpec{Agent: poolAgent, ExportAddress: "10.77.0.9:10809"},
		}}},
		{Resource: &pb.Resource_Pool{Pool: &pb.Pool{
			Metadata: &pb.Metadata{Name: "east"}, Spec: &pb.PoolSpec{Agent: oldAgent, ExportAddress: homeAddress},
		}}},
		{Resource: &pb.Resource_Image{Image: &pb.Image{Metadata: &pb.Metadata{Name: "debian"}, Spec: &pb.ImageSpec{Kernel: "/k", Disk: "/d"}}}},
		target("east-a"), target("east-b"),
		{Resource: &pb.Resource_Project{Project: &pb.Project{Metadata: &pb.Metadata{Name: "web"}, Spec: &pb.ProjectSpec{
			Network: "lent", Clones: []string{"webshop/db"}, Quota: &pb.Quota{Instances: 12},
		}}}},
		{Resource: &pb.Resource_Trigger{Trigger: &pb.Trigger{Metadata: &pb.Metadata{Name: "east-down"}, Spec: &pb.TriggerSpec{
			Plans: []string{"webshop", "billing"},
		}}}},
	}
	for _, p := range s.site.plans {
		out = append(out, &pb.Resource{Resource: &pb.Resource_Plan{Plan: p}})
	}
	for _, h := range s.site.hosts {
		if s.chance(0.5) {
			out = append(out, &pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{
				Metadata: &pb.Metadata{Name: h}, Spec: &pb.HostPolicySpec{Lending: &pb.Lending{Devices: map[string]uint32{gpu: 1}}},
			}}})
		}
	}
	return out
}

// settleIn elects a leader, lets the agents join, applies the resources, and waits until all is quiet.
func (s *sim) settleIn() {
	s.elect()
	for _, a := range s.agents {
		hash := []byte("token of " + a.name)
		s.must(&pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{
			TokenHash: hash, Host: a.name, ExpiresAt: stamp(s.wall().Add(time.Hour)),
		}}})
		s.must(&pb.Command{Body: &pb.Command_JoinHost{JoinHost: &pb.JoinHost{Host: a.name, TokenHash: hash}}})
		a.boot()
	}
	resources := s.resources()
	for _, r := range resources {
		if faults := model.ValidateResource(r); len(faults) > 0 {
			s.fail("setup", "%s: %v", model.ResourceKey(r), faults)
		}
	}
	s.must(&pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: resources}}})
	s.await("the site to settle in", 10*time.Minute, s.unsettled)
}

// must commits a command that cannot be refused.
func (s *sim) must(c *pb.Command) {
	const wait, limit = 10 * time.Millisecond, time.Minute
	end := s.now + limit
	for done := false; !done; s.run(s.now + wait) {
		answered := false
		s.ask("operator/ann", func(*member) (*pb.Command, error) { return c, nil }, func(_ state.Result, err error) {
			if err != nil && !errors.Is(err, errNotLeader) && !errors.Is(err, errUnknown) {
				s.fail("setup", "%s: %v", describe(c), err)
			}
			answered, done = true, err == nil
		})
		for !answered && s.now < end {
			s.run(s.now + wait)
		}
		if s.now >= end {
			s.fail("setup", "no answer to %s within %v", describe(c), limit)
		}
	}
}

// await lets time pass until nothing is missing any more.
func (s *sim) await(what string, limit time.Duration, missing func() string) {
	end := s.now + limit
	for {
		m := missing()
		if m == "" {
			s.logf("=== done: %s", what)
			return
		}
		if s.now >= end {
			s.fail("liveness", "waited %v for %s: %s", limit, what, m)
		}
		s.run(s.now + 2*time.Second)
	}
}
