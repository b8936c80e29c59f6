package model

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestFreeAddress(t *testing.T) {
	taken := map[string]bool{"10.0.0.2/29": true}
	var got []string
	for {
		a, ok := FreeAddress("10.0.0.0/29", "10.0.0.1", taken)
		if !ok {
			break
		}
		taken[a] = true
		got = append(got, a)
	}
	if want := []string{"10.0.0.3/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, ok := FreeAddress("nonsense", "", nil); ok {
		t.Error("an address in nonsense")
	}
}

func TestHostUse(t *testing.T) {
	h := &pb.Host{
		Capacity: &pb.Capacity{
			Vcpus: 8, MemoryBytes: 100, OverheadBytes: 1, ForeignVcpus: 2, ForeignMemoryBytes: 10, DiskBytes: 40, Devices: map[string]uint32{"gpu": 1},
			LocalDisksBytes: map[string]uint64{"ssd": 9},
		},
		Policy: &pb.HostPolicySpec{
			Overcommit: 2, ReserveMemoryBytes: 20, ReserveLocalDiskBytes: 10, ReserveLocalDisksBytes: map[string]uint64{"ssd": 2},
		},
	}
	instance := func(base, override pb.State) *pb.Object {
		params := &pb.Spec_Instance{Instance: &pb.InstanceSpec{
			Vcpus: 2, MemoryBytes: 9, Devices: map[string]uint32{"gpu": 1}, Disks: []*pb.Disk{
				{Source: &pb.Disk_BlankBytes{BlankBytes: 16}}, {LocalPool: "ssd", Source: &pb.Disk_BlankBytes{BlankBytes: 3}},
			},
		}}
		o := &pb.Object{Kind: pb.Kind_KIND_INSTANCE, Base: &pb.Spec{State: base, Parameters: params}}
		if override != 0 {
			o.Overrides = []*pb.Override{{Epoch: 1, Spec: &pb.Spec{State: override, Parameters: params}}}
		}
		return o
	}
	for _, c := range []struct {
		name string
		o    *pb.Object
		uses bool
	}{
		{"running", instance(pb.State_STATE_RUNNING, 0), true},
		{"made by a run", instance(pb.State_STATE_ABSENT, pb.State_STATE_RUNNING), true},
		{"a claim", instance(pb.State_STATE_RUNNING, pb.State_STATE_SAVED), true},
		{"ended", instance(pb.State_STATE_SAVED, 0), false},
		{"a volume", &pb.Object{Kind: pb.Kind_KIND_VOLUME, Base: &pb.Spec{State: pb.State_STATE_PRIMARY}}, false},
	} {
		want := Use{
			TotalVCPUs: 14, TotalMemoryBytes: 70, TotalLocalDisks: map[string]uint64{"local": 30, "ssd": 7}, TotalDevices: map[string]uint32{"gpu": 1},
		}
		if c.uses {
			want.VCPUs, want.MemoryBytes, want.Devices = 2, 10, map[string]uint32{"gpu": 1}
		}
		if c.o.GetKind() == pb.Kind_KIND_INSTANCE {
			want.LocalDisks = map[string]uint64{"local": 16, "ssd": 3}
		}
		got := HostUse(h, slices.Values([]*pb.Object{c.o}))
		if !cmp.Equal(got, want) {
			t.Errorf("%s: %s", c.name, cmp.Diff(want, got))
		}
		two := HostUse(h, slices.Values([]*pb.Object{c.o, c.o}))
		if !got.Fits() || two.Fits() != (c.o.GetKind() != pb.Kind_KIND_INSTANCE) {
			t.Errorf("%s: one fits: %v, two: %v", c.name, got.Fits(), two.Fits())
		}
	}
	h.Capacity.LocalDisksBytes["ssd"] = 4
	if full := HostUse(h, slices.Values([]*pb.Object{instance(pb.State_STATE_SAVED, 0)})); full.Fits() {
		t.Error("a disk fits in a local pool that is too small, less what is left alone there")
	}
	h.Capacity.ForeignMemoryBytes = 1000
	if HostTotal(h).TotalMemoryBytes != 0 {
		t.Error("a host that foreign domains fill has nothing")
	}
}

func TestCheckQuota(t *testing.T) {
	p := &pb.Project{Metadata: &pb.Metadata{Name: "web"}, Spec: &pb.ProjectSpec{Quota: &pb.Quota{Instances: 3, Vcpus: 8, MemoryBytes: 100}}}
	lease := func(project string, phase pb.LeasePhase) *pb.Lease {
		return &pb.Lease{
			Project: project, Phase: phase, Instances: []*pb.LeaseInstance{{}, {}},
			Spec: &pb.LeaseSpec{Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 20}},
		}
	}
	spec := func(n, vcpus uint32, memory uint64) *pb.LeaseSpec {
		return &pb.LeaseSpec{Count: n, Resources: &pb.Resources{Vcpus: vcpus, MemoryBytes: memory}}
	}
	active, preempted := pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_PREEMPTED
	for _, c := range []struct {
		name string
		have *pb.Lease
		want *pb.LeaseSpec
		ok   bool
	}{
		{"just fits", lease("web", active), spec(1, 4, 60), true},
		{"instances", lease("web", active), spec(2, 1, 1), false},
		{"vcpus", lease("web", active), spec(1, 5, 1), false},
		{"memory", lease("web", active), spec(1, 1, 61), false},
		{"preempted costs nothing", lease("web", preempted), spec(3, 2, 33), true},
		{"another project's", lease("shop", active), spec(3, 2, 33), true},
	} {
		err := CheckQuota(p, slices.Values([]*pb.Lease{c.have}), c.want)
		if (err == nil) != c.ok || err != nil && FaultOf(err) != FaultQuota {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestGrace(t *testing.T) {
	p := &pb.Project{Spec: &pb.ProjectSpec{LongestGrace: durationpb.New(20 * time.Second)}}
	for _, c := range []struct {
		asked *durationpb.Duration
		want  time.Duration
	}{{nil, 10 * time.Second}, {durationpb.New(time.Minute), 20 * time.Second}, {durationpb.New(-time.Second), 0}} {
		if got := Grace(p, &pb.LeaseSpec{Grace: c.asked}).AsDuration(); got != c.want {
			t.Errorf("asked %v: %v, want %v", c.asked, got, c.want)
		}
	}
}

func TestReplicas(t *testing.T) {
	p := &pb.Plan{Metadata: &pb.Metadata{Name: "shop"}, Spec: &pb.PlanSpec{Workloads: []*pb.Workload{
		{Name: "db", Nics: []*pb.WorkloadNic{{Mac: "52:54:00:aa:00:01", Address: "10.0.0.1/24"}}},
		{Name: "web", Replicas: 2, Nics: []*pb.WorkloadNic{{Mac: "52:54:00:aa:00:02", Addresses: []string{"10.0.0.2/24", "10.0.0.3/24"}}}},
	}}}
	rs := Replicas(p)
	if len(rs) != 3 || rs[0].Key() != "shop/db" || rs[2].Key() != "shop/web-1" {
		t.Fatalf("%v", rs)
	}
	if rs[0].MAC(0) != "52:54:00:aa:00:01" || rs[1].MAC(0) == rs[2].MAC(0) || rs[1].MAC(0) != Replicas(p)[1].MAC(0) {
		t.Errorf("hardware addresses: %s, %s, %s", rs[0].MAC(0), rs[1].MAC(0), rs[2].MAC(0))
	}
	if a := rs[2].Address(p.GetSpec().GetWorkloads()[1].GetNics()[0]); a != "10.0.0.3/24" {
		t.Errorf("address %s", a)
	}
	if v := rs[2].VolumeName(&pb.WorkloadVolume{Replica: "web-{ordinal}-root"}); v != "web-1-root" {
		t.Errorf("volume %s", v)
	}
	for name, want := range map[string]bool{"web": true, "web-0": true, "web-12": true, "web-x": false, "webs": false, "web-": false, "web-0-1": false} { // Any order.
		if IsReplicaOf(name, "web") != want {
			t.Errorf("IsReplicaOf(%q) is not %v", name, want)
		}
	}
}

// A volume needs no way back only while nobody can have written to it.
func TestMayBeWritten(t *testing.T) {
	start := &pb.Step{Id: "start", Gates: []*pb.Gate{{AnyOf: []*pb.Condition{{Condition: &pb.Condition_StepDone{StepDone: "promote"}}}}}}
	for name, c := range map[string]struct {
		promote *pb.Step
		started uint64
		want    bool
	}{
		"not ordered":                    {&pb.Step{Kind: pb.Kind_KIND_VOLUME}, 0, false},
		"ordered":                        {&pb.Step{Kind: pb.Kind_KIND_VOLUME, Generation: 7}, 0, false},
		"seen promoted":                  {&pb.Step{Kind: pb.Kind_KIND_VOLUME, Generation: 7, DoneAt: timestamppb.Now()}, 0, true},
		"passed over, and the VM let go": {&pb.Step{Kind: pb.Kind_KIND_VOLUME, Generation: 7}, 9, true},
		"of the way back":                {&pb.Step{Kind: pb.Kind_KIND_VOLUME, Generation: 7, DoneAt: timestamppb.Now(), WayBack: true}, 9, false},
	} {
		c.promote.Id, start.Generation = "promote", c.started
		if got := MayBeWritten(&pb.Failover{Steps: []*pb.Step{c.promote, start}}, c.promote); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
