package demand_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func apply(w *fixture.World, rs ...*pb.Resource) {
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: rs}}})
}

// What manifests say of scenarios, labels and groups reaches the proof.
func TestSite(t *testing.T) {
	w := fixture.New(t)
	plan := w.State.Plan("webshop")
	host := fixture.Hosts()[0]
	apply(w,
		&pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{
			Metadata: &pb.Metadata{Name: host, Labels: map[string]string{"gpu": "a100"}}, Spec: &pb.HostPolicySpec{FailureDomain: "rack1"},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "by-name"}, Spec: &pb.ScenarioSpec{Plans: []string{"webshop"}, Tolerate: &pb.Tolerate{Hosts: 1, FailureDomains: 1}},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "by-label"}, Spec: &pb.ScenarioSpec{Selector: map[string]string{"no": "such"}},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "everything"}, Spec: &pb.ScenarioSpec{Tolerate: &pb.Tolerate{Hosts: 2}},
		}}})
	plan.Spec.Workloads[0].Requires = map[string]string{"gpu": "a100"}
	plan.Spec.Workloads[0].AntiAffinity, plan.Spec.Workloads[0].Replicas = "failureDomain", 2
	plan.Spec.Workloads[0].Apart, plan.Spec.Workloads[0].Together = []string{"noisy"}, ""
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	s := demand.Site(w.State, w.View.Silent())
	if want := []guarantee.Scenario{
		{Name: "by-label", Plans: []string{}},
		{Name: "by-name", Plans: []string{"webshop"}, Hosts: 1, FailureDomains: 1},
		{Name: "everything", Hosts: 2},
	}; !cmp.Equal(s.Scenarios, want) {
		t.Error(cmp.Diff(want, s.Scenarios))
	}
	if h := s.Hosts[0]; h.Name != host || h.FailureDomain != "rack1" || !cmp.Equal(h.Labels, []string{"gpu=a100"}) {
		t.Errorf("%+v", h)
	}
	first := s.Workloads[0]
	if first.Budget != time.Minute { // Half of its rtoTarget.
		t.Errorf("its budget is %v", first.Budget)
	}
	groups := []guarantee.Apart{{Group: "webshop/" + plan.GetSpec().GetWorkloads()[0].GetName(), Domain: true}, {Group: "noisy"}}
	if !cmp.Equal(first.Labels, []string{"gpu=a100"}) || !cmp.Equal(first.Apart, groups) || first.Demand[0]%guarantee.Milli != 0 {
		t.Errorf("%+v, want groups %v", first, groups)
	}
}

// What hosts have on their disks and of devices, what of it is for leases, and what leases leave there.
func TestLocalDiskAndDevices(t *testing.T) {
	const gib = 1 << 30
	w := fixture.New(t)
	two := uint64(30 * gib)
	for i, h := range fixture.Hosts() {
		a := w.View.Agent(h)
		a.Capacity = proto.CloneOf(a.Capacity)
		a.Capacity.DiskBytes, a.Capacity.Devices = 100*gib, map[string]uint32{"gpu": uint32(i), "fpga": 1}
		w.View = w.View.WithAgent(a)
	}
	apply(w, &pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{Metadata: &pb.Metadata{Name: "h2"}, Spec: &pb.HostPolicySpec{
		ReserveLocalDiskBytes: 20 * gib, Lending: &pb.Lending{LocalDiskBytes: &two, Devices: map[string]uint32{"gpu": 3}},
	}}}}, &pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{Metadata: &pb.Metadata{Name: "h1"}, Spec: &pb.HostPolicySpec{}}}},
		&pb.Resource{Resource: &pb.Resource_Image{Image: &pb.Image{
			Metadata: &pb.Metadata{Name: "disked"}, Spec: &pb.ImageSpec{Disk: "/d", DiskSizeBytes: 8 * gib},
		}}})
	plan := w.State.Plan("webshop")
	plan.Spec.Workloads[0].Resources.LocalDiskBytes, plan.Spec.Workloads[0].Resources.Devices = 5*gib, map[string]uint32{"gpu": 1}
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	w.Quiesce()
	s := demand.Site(w.State, w.View.Silent())
	if want := []string{"vcpus", "memory", "disk/local", "device/fpga", "device/gpu"}; !cmp.Equal(s.Dimensions, want) {
		t.Fatal(s.Dimensions)
	}
	for i, want := range []struct{ capacity, lending guarantee.Vector }{
		{guarantee.Vector{100 * gib, 1, 0}, guarantee.Vector{50 * gib, 0, 0}},
		{guarantee.Vector{80 * gib, 1, 1}, guarantee.Vector{30 * gib, 0, 1}}, // No more is lent than is there.
	} {
		if h := s.Hosts[i]; !cmp.Equal(h.Capacity[2:], want.capacity) || !cmp.Equal(h.Lending[2:], want.lending) {
			t.Errorf("%s has %v and lends %v, want %+v", h.Name, h.Capacity[2:], h.Lending[2:], want)
		}
	}
	if v := s.Workloads[0].Demand[2:]; !cmp.Equal(v, guarantee.Vector{5 * gib, 0, 1}) {
		t.Errorf("the workload asks for %v", v)
	}
	r := demand.NewReader(w.State)
	spec := &pb.LeaseSpec{
		Image: "disked", OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE,
		Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 4 * gib, LocalDiskBytes: gib, Devices: map[string]uint32{"fpga": 1}},
	}
	vm := r.Instance("l", pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE, spec)
	if !cmp.Equal(vm.Demand[2:], guarantee.Vector{9 * gib, 1, 0}) || !cmp.Equal(vm.Residue, guarantee.Vector{0, 0, 13 * gib, 1, 0}) {
		t.Errorf("a lease asks for %v and leaves %v", vm.Demand, vm.Residue)
	}
	if firm := r.Instance("l", pb.LeaseClass_LEASE_CLASS_FIRM, spec); !cmp.Equal(firm.Demand[2:], guarantee.Vector{13 * gib, 1, 0}) {
		t.Errorf("a firm lease asks for %v", firm.Demand)
	}
	if lacks := r.Lacks(&pb.Resources{Devices: map[string]uint32{"fpga": 9, "tpu": 1}}); lacks != "device tpu" {
		t.Errorf("nobody has %q", lacks)
	}
}

// What hosts have in other local pools, what of it is for leases, and what leases leave there.
func TestLocalPools(t *testing.T) {
	const gib = 1 << 30
	w := fixture.New(t)
	for _, h := range fixture.Hosts() {
		a := w.View.Agent(h)
		a.Capacity = proto.CloneOf(a.Capacity)
		a.Capacity.DiskBytes, a.Capacity.LocalDisksBytes = 100*gib, map[string]uint64{"ssd": 40 * gib, "hdd": 90 * gib}
		w.View = w.View.WithAgent(a)
	}
	apply(w, &pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{Metadata: &pb.Metadata{Name: "h2"}, Spec: &pb.HostPolicySpec{
		ReserveLocalDisksBytes: map[string]uint64{"hdd": 10 * gib, "gone": gib}, Lending: &pb.Lending{LocalDisksBytes: map[string]uint64{"ssd": 5 * gib, "gone": gib}},
	}}}})
	plan := w.State.Plan("webshop")
	plan.Spec.Workloads[0].Resources.LocalDisksBytes = map[string]uint64{"ssd": 3 * gib}
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	w.Quiesce()
	s := demand.Site(w.State, w.View.Silent())
	if want := []string{"vcpus", "memory", "disk/local", "disk/hdd", "disk/ssd"}; !cmp.Equal(s.Dimensions, want) {
		t.Fatal(s.Dimensions)
	}
	for i, want := range []struct{ capacity, lending guarantee.Vector }{
		{guarantee.Vector{100 * gib, 80 * gib, 40 * gib}, guarantee.Vector{50 * gib, 40 * gib, 5 * gib}},
		{guarantee.Vector{100 * gib, 90 * gib, 40 * gib}, guarantee.Vector{50 * gib, 45 * gib, 20 * gib}},
	} {
		if h := s.Hosts[1+i]; !cmp.Equal(h.Capacity[2:], want.capacity) || !cmp.Equal(h.Lending[2:], want.lending) {
			t.Errorf("%s has %v and lends %v, want %+v", h.Name, h.Capacity[2:], h.Lending[2:], want)
		}
	}
	if v := s.Workloads[0].Demand[2:]; !cmp.Equal(v, guarantee.Vector{0, 0, 3 * gib}) {
		t.Errorf("the workload asks for %v", v)
	}
	spec := &pb.LeaseSpec{
		Image: "debian-12", OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE,
		Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 4 * gib, LocalDisksBytes: map[string]uint64{"hdd": 7 * gib}},
	}
	vm := demand.NewReader(w.State).Instance("l", pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE, spec)
	if !cmp.Equal(vm.Demand[2:], guarantee.Vector{0, 7 * gib, 0}) || !cmp.Equal(vm.Residue, guarantee.Vector{0, 0, 4 * gib, 7 * gib, 0}) {
		t.Errorf("a lease asks for %v and leaves %v", vm.Demand, vm.Residue)
	}
	name := w.Must("carol", func() *pb.Command {
		body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{Project: "web", Spec: spec}, "carol")
		if err != nil {
			t.Fatal(err)
		}
		return &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}}
	}())
	w.Quiesce()
	disks := w.State.Object(w.State.Lease(name).GetInstances()[0].GetObject()).GetBase().GetInstance().GetDisks()
	if d := disks[len(disks)-1]; d.GetName() != "local-hdd" || d.GetLocalPool() != "hdd" || d.GetBlankBytes() != 7*gib {
		t.Errorf("it has %v", disks)
	}
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(w.State.Lease(name), "released", w.Now)}})
	w.Quiesce()
	if kept := demand.Site(w.State, w.View.Silent()).Kept; len(kept) != 1 || !cmp.Equal(kept[0].Disks, guarantee.Vector{0, 0, 4 * gib, 7 * gib, 0}) {
		t.Errorf("kept %v", kept)
	}
}

// Disks and saved RAM of an ended lease stay, and count, until they are deleted.
func TestKeptDisks(t *testing.T) {
	w := fixture.New(t)
	w.Quiesce()
	body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{Project: "web", Spec: &pb.LeaseSpec{
		Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30, LocalDiskBytes: 7 << 30},
	}}, "carol")
	if err != nil {
		t.Fatal(err)
	}
	name := w.Must("carol", &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}})
	w.Quiesce()
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(w.State.Lease(name), "released", w.Now)}})
	w.Quiesce()
	host := body.GetLease().GetInstances()[0].GetHost()
	s := demand.Site(w.State, w.View.Silent())
	if want := []guarantee.Kept{{Host: host, Disks: guarantee.Vector{0, 0, 8 << 30}}}; len(s.Preemptible) > 0 || !cmp.Equal(s.Kept, want) {
		t.Errorf("kept %v, lent %v", s.Kept, s.Preemptible)
	}
	w.Wait(lease.Retention + time.Hour)
	if s := demand.Site(w.State, w.View.Silent()); len(s.Kept) > 0 {
		t.Errorf("deleted, and kept %v", s.Kept)
	}
}

// The price of a victim counts from its last preemption: what was done before is saved, or lost already.
func TestPrice(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(3, 2, 60<<30)
	w.Quiesce()
	price := func() uint64 { return demand.Site(w.State, w.View.Silent()).Preemptible[0].Cost }
	touch := func() { // The state's clock goes with its entries.
		w.Must("ann", &pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{TokenHash: []byte("t"), Host: "h1", ExpiresAt: timestamppb.New(w.Now)}}})
	}
	w.Wait(2 * time.Hour)
	touch()
	if p := price(); p != 120 {
		t.Errorf("after two hours it costs %d minutes", p)
	}
	heavy := proto.CloneOf(w.State.Resource("project/web").GetProject())
	heavy.Spec.Weight = 3
	apply(w, &pb.Resource{Resource: &pb.Resource_Project{Project: heavy}})
	if p := price(); p != 360 {
		t.Errorf("of a project that weighs three times as much it costs %d minutes", p)
	}
	heavy.Spec.Weight = 0
	apply(w, &pb.Resource{Resource: &pb.Resource_Project{Project: heavy}})
	f := w.Declare("webshop")
	if len(f.GetVictims()) == 0 || f.GetVictims()[0].GetCost() != 120 {
		t.Fatalf("victims %v", f.GetVictims())
	}
	w.Quiesce()
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	if l := w.State.Lease(name); l.GetPreemptions() != 1 || price() != 120 {
		t.Errorf("back from %d preemptions it costs %d minutes", l.GetPreemptions(), price())
	}
	w.Wait(4 * time.Hour)
	touch()
	if p := price(); p != 60+50+4*60 {
		t.Errorf("four hours later it costs %d minutes", p)
	}
}

// What runs keeps its budget when its plan has it no more.
func TestBudgetOfWhatAPlanHasNoMore(t *testing.T) {
	w := fixture.New(t)
	w.Declare("webshop")
	w.Quiesce()
	plan := proto.CloneOf(w.State.Plan("webshop"))
	plan.Spec.Workloads, plan.Spec.Endpoints = plan.Spec.Workloads[:1], nil
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	site, _ := demand.Base(w.State, nil)
	if len(site.Workloads) < 3 {
		t.Fatalf("%d workloads: what runs is not counted", len(site.Workloads))
	}
	for _, v := range site.Workloads {
		if v.Plan == "webshop" && v.Budget != time.Minute {
			t.Errorf("%s has the budget %v", v.Name, v.Budget)
		}
	}
}
