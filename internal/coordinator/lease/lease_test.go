package lease_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func request(change func(*pb.CreateLeaseRequest)) *pb.CreateLeaseRequest {
	r := &pb.CreateLeaseRequest{Project: "web", Spec: &pb.LeaseSpec{Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 4 << 30}, Image: "debian-12"}}
	change(r)
	return r
}

func TestRefusals(t *testing.T) {
	w := fixture.New(t)
	for name, c := range map[string]struct {
		change func(*pb.CreateLeaseRequest)
		owner  string
		want   model.Fault
	}{
		"fine":              {func(*pb.CreateLeaseRequest) {}, "carol", 0},
		"no project":        {func(r *pb.CreateLeaseRequest) { r.Project = "x" }, "carol", model.FaultNotFound},
		"no image":          {func(r *pb.CreateLeaseRequest) { r.Spec.Image = "x" }, "carol", model.FaultNotFound},
		"not a member":      {func(*pb.CreateLeaseRequest) {}, "mallory", model.FaultDenied},
		"no memory":         {func(r *pb.CreateLeaseRequest) { r.Spec.Resources.MemoryBytes = 0 }, "carol", model.FaultInvalid},
		"absurd memory":     {func(r *pb.CreateLeaseRequest) { r.Spec.Count, r.Spec.Resources.MemoryBytes = 2, 1<<63 }, "carol", model.FaultInvalid},
		"too many":          {func(r *pb.CreateLeaseRequest) { r.Spec.Count = 101 }, "carol", model.FaultInvalid},
		"quota":             {func(r *pb.CreateLeaseRequest) { r.Spec.Count = 21 }, "carol", model.FaultQuota},
		"term":              {func(r *pb.CreateLeaseRequest) { r.Spec.Term = durationpb.New(1000 * time.Hour) }, "carol", model.FaultQuota},
		"action":            {func(r *pb.CreateLeaseRequest) { r.Spec.OnPreempt = pb.ReclaimAction_RECLAIM_ACTION_DISCARD }, "carol", model.FaultQuota},
		"clone":             {func(r *pb.CreateLeaseRequest) { r.Spec.CloneOf = "webshop/web" }, "carol", model.FaultDenied},
		"user-data":         {func(r *pb.CreateLeaseRequest) { r.Spec.UserData = make([]byte, 64<<10) }, "carol", 0},
		"one byte over":     {func(r *pb.CreateLeaseRequest) { r.Spec.UserData = make([]byte, 64<<10+1) }, "carol", model.FaultInvalid},
		"no ssh key":        {func(r *pb.CreateLeaseRequest) { r.Spec.SshKeys = []string{"hello"} }, "carol", model.FaultInvalid},
		"clone only":        {func(r *pb.CreateLeaseRequest) { r.Spec.Image, r.Spec.CloneOf = "", "webshop/db" }, "carol", 0},
		"nothing":           {func(r *pb.CreateLeaseRequest) { r.Spec.Image = "" }, "carol", model.FaultNotFound},
		"no image, no room": {func(r *pb.CreateLeaseRequest) { r.Spec.Image, r.Spec.Resources.MemoryBytes = "x", 70<<30 }, "carol", model.FaultNotFound},
		"no room":           {func(r *pb.CreateLeaseRequest) { r.Spec.Resources.MemoryBytes = 70 << 30 }, "carol", model.FaultNoFit},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := lease.Create(w.State, w.View, w.Now, request(c.change), c.owner); model.FaultOf(err) != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestTermEndsAndRetentionPasses(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(2, 2, 4<<30)
	w.Quiesce()
	i := w.State.Lease(name).GetInstances()
	if i[0].GetAddress() == i[1].GetAddress() || i[0].GetMac() == i[1].GetMac() {
		t.Errorf("instances %v", i)
	}
	w.Wait(8*time.Hour - time.Second)
	if p := w.State.Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ACTIVE {
		t.Errorf("ended early: %v", p)
	}
	w.Wait(time.Second)
	if p := w.State.Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ENDED {
		t.Errorf("its term has passed: %v", p)
	}
	if s := w.State.Object(i[0].GetObject()).GetBase().GetState(); s != pb.State_STATE_SAVED {
		t.Errorf("an ended instance that saves is to be %v", s)
	}
	w.Wait(lease.Retention - time.Second)
	if w.State.Lease(name) == nil {
		t.Fatal("deleted before its retention time")
	}
	w.Wait(time.Second)
	if w.State.Lease(name) != nil || w.State.Object(i[0].GetObject()) != nil {
		t.Error("something of a deleted lease is left")
	}
}

func TestNewLeaderWaitsForTheAgents(t *testing.T) {
	w := fixture.New(t)
	w.Lease(1, 2, 4<<30)
	w.Quiesce()
	w.Now = w.Now.Add(9 * time.Hour)
	w.Elect()
	if cmds := lease.Advance(w.State, w.View, w.Now); len(cmds) > 0 {
		t.Errorf("ended before its agent could report: %v", cmds)
	}
	w.Now = w.Now.Add(time.Minute)
	if cmds := lease.Advance(w.State, w.View, w.Now); len(cmds) != 1 {
		t.Errorf("%v", cmds)
	}
}

// A lease with a copy goes to a host that reaches the pool of the copy.
func TestCopyIsWithinReach(t *testing.T) {
	w := fixture.New(t)
	host := func() string {
		c, _, err := lease.Create(w.State, w.View, w.Now, request(func(r *pb.CreateLeaseRequest) { r.Spec.CloneOf = "webshop/db" }), "carol")
		if err != nil {
			t.Fatal(err)
		}
		return c.GetLease().GetInstances()[0].GetHost()
	}
	first := host()
	pool := proto.CloneOf(w.State.Resource("pool/west").GetPool())
	pool.Spec.Hosts = slices.DeleteFunc(fixture.Hosts(), func(h string) bool { return h == first })
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{
		Resources: []*pb.Resource{{Resource: &pb.Resource_Pool{Pool: pool}}},
	}}})
	if h := host(); h == first {
		t.Errorf("on %s, which does not reach the pool", h)
	}
}

// The owner is told why this lease, and at what price.
func TestOwnerIsToldThePrice(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(3, 2, 60<<30)
	w.Quiesce()
	w.Wait(3 * time.Hour)
	w.Must("ann", &pb.Command{Body: &pb.Command_Arm{Arm: &pb.ArmRequest{Trigger: "east-down"}}}) // The state's time goes with its commands.
	w.Declare("webshop")
	told := lease.Preempting(w.State, w.State.Lease(name))
	if len(told) != 1 || !strings.Contains(told[0].GetWhy(), "is needed") || told[0].GetPrice() == 0 {
		t.Errorf("told %v", told)
	}
}
