package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func TestVictimReturnsAndItsTermStoodStill(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(3, 4, 50<<30) // One on each host: the plan's 32 GiB need one of them, all go as a unit.
	w.Quiesce()
	ends := w.State.Lease(name).GetEndsAt().AsTime()
	f := w.Declare("webshop")
	if n := len(f.GetVictims()); n != 3 {
		t.Fatalf("%d victims, want the whole lease", n)
	}
	w.Quiesce()
	l := w.State.Lease(name)
	if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_PREEMPTED || l.GetPreemptions() != 1 {
		t.Errorf("lease is %v after %d preemptions", l.GetPhase(), l.GetPreemptions())
	}
	w.Wait(10 * time.Hour) // Longer than the term.
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		w.Controllers()
		for _, i := range w.State.Lease(name).GetInstances() {
			spec := model.Effective(w.State.Object(i.GetObject()))
			if spec.GetState() == pb.State_STATE_RUNNING && !spec.GetInstance().GetTermEnd().AsTime().After(w.Now) {
				t.Fatalf("%s is to run with the end of its term in the past", i.GetObject())
			}
		}
		if !w.Settle() {
			break
		}
	}
	l = w.State.Lease(name)
	if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE || !l.GetEndsAt().AsTime().Equal(ends.Add(10*time.Hour)) {
		t.Errorf("lease is %v and ends at %v, want %v", l.GetPhase(), l.GetEndsAt().AsTime(), ends.Add(10*time.Hour))
	}
	nothingLeft(t, w.State, f.GetEpoch())
}

const second = `
apiVersion: hotspare/v1
kind: Plan
metadata: {name: billing}
spec:
  rank: 20
  fencing: [{oath: {}}]
  workloads:
  - name: app
    resources: {vcpus: 2, memory: 20GiB}
    image: debian-12
    dependsOn: [webshop/db]
`

// one is a plan of one workload that needs 20 GiB and an oath.
func one(name string) string {
	return strings.NewReplacer("billing", name, "    dependsOn: [webshop/db]\n", "").Replace(second)
}

// oneHost returns a site with one usable host of 60 GiB, and two plans of 20 GiB each.
func oneHost(t fixture.T) *fixture.World {
	t.Helper()
	w := fixture.New(t)
	for _, key := range []string{"trigger/east-down", "project/web", "plan/webshop"} {
		kind, name, _ := strings.Cut(key, "/")
		w.Must("ann", &pb.Command{Body: &pb.Command_DeleteResource{DeleteResource: &pb.DeleteResourceRequest{Kind: kind, Name: name}}})
	}
	for _, h := range []string{"h2", "h3"} {
		w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: h, Action: "cordon"}}})
	}
	w.ApplyManifests(one("one"), one("two"), fixture.Example(t, "project.yaml"))
	w.Quiesce()
	return w
}

// The room that the first run's victim left must not be lost to it when the first run goes back.
func TestTwoRunsShareAVictim(t *testing.T) {
	w := oneHost(t)
	name := w.Lease(1, 4, 50<<30)
	w.Quiesce()
	a := w.Declare("one")
	b := w.Declare("two")
	if len(a.GetVictims()) != 1 || len(b.GetVictims()) != 1 {
		t.Fatalf("victims: %v and %v", a.GetVictims(), b.GetVictims())
	}
	for _, f := range []*pb.Failover{a, b} {
		if err := w.Swear(f.GetName()); err != nil {
			t.Fatal(err)
		}
	}
	w.Quiesce()
	phases(t, w, b.GetName(), completed, nil)
	if n := w.State.Lease(name).GetPreemptions(); n != 1 {
		t.Errorf("preempted %d times, want once", n)
	}
	if err := w.Failback(a.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, a.GetName(), failedBack, nil)
	if p := w.State.Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_PREEMPTED {
		t.Errorf("lease is %v while the second run has its room", p)
	}
	roomOK(t, w)
	if err := w.Failback(b.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	if p := w.State.Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ACTIVE {
		t.Errorf("lease is %v after both runs", p)
	}
	nothingLeft(t, w.State, a.GetEpoch())
	nothingLeft(t, w.State, b.GetEpoch())
}

// An ended lease must not be brought back into the room that a preempted one comes back to.
func TestUndeleteKeepsClaims(t *testing.T) {
	w := oneHost(t)
	ended := w.Lease(1, 1, 8<<30)
	w.Quiesce()
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: &pb.EndLease{Lease: ended, DeleteAfter: timestamppb.New(w.Now.Add(time.Hour))}}})
	w.Quiesce()
	w.Lease(1, 1, 55<<30)
	w.Quiesce()
	w.Declare("one")
	w.Quiesce()
	undelete := &pb.Command{Body: &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: ended}}}
	if err := w.Do("carol", undelete).Err; model.FaultOf(err) != model.FaultNoFit {
		t.Errorf("undelete into a claim: %v, want no room", err)
	}
}

// A host has no room for what a run has placed on it and not started yet.
func TestUndeleteKeepsPlacedRoom(t *testing.T) {
	w := oneHost(t)
	ended := w.Lease(1, 1, 45<<30)
	w.Quiesce()
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: &pb.EndLease{Lease: ended, DeleteAfter: timestamppb.New(w.Now.Add(time.Hour))}}})
	w.Quiesce()
	f := w.Declare("one")
	i := slices.IndexFunc(f.GetSteps(), func(s *pb.Step) bool { return s.GetKind() == pb.Kind_KIND_INSTANCE })
	if i < 0 || f.GetSteps()[i].GetPhase() != pb.StepPhase_STEP_PHASE_PENDING {
		t.Fatalf("the start must wait for something: %v", f.GetSteps())
	}
	undelete := &pb.Command{Body: &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: ended}}}
	if err := w.Do("carol", undelete).Err; model.FaultOf(err) != model.FaultNoFit {
		t.Errorf("undelete into the room of a workload: %v, want no room", err)
	}
}

// A lease whose term ends while it comes back ends; its agent holds it down and nobody would wait for more.
func TestTermEndsOnTheWayBack(t *testing.T) {
	w := oneHost(t)
	name := w.Lease(1, 1, 55<<30)
	w.Quiesce()
	f := w.Declare("one")
	w.Quiesce()
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	returning := func() bool { return w.State.Lease(name).GetPhase() == pb.LeasePhase_LEASE_PHASE_RETURNING }
	for range 100 {
		if w.Controllers(); returning() {
			break
		}
		w.Settle()
	}
	if !returning() {
		t.Fatalf("the lease is %v", w.State.Lease(name).GetPhase())
	}
	w.Now = w.Now.Add(9 * time.Hour)
	w.Controllers()
	if p := w.State.Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ENDED {
		t.Errorf("the lease is %v", p)
	}
	w.Quiesce()
	if p := w.Phase(f.GetName()); p != pb.RunPhase_RUN_PHASE_FAILED_BACK {
		t.Errorf("the run is %v", p)
	}
}

// roomOK checks invariant 3 on what is ordered to run.
func roomOK(t fixture.T, w *fixture.World) {
	t.Helper()
	for _, h := range fixture.Hosts() {
		var memory uint64
		for o := range w.State.ObjectsOf(h) {
			if s := model.Effective(o); s.GetState() == pb.State_STATE_RUNNING {
				memory += s.GetInstance().GetMemoryBytes()
			}
		}
		if total := model.HostTotal(w.State.Host(h)).TotalMemoryBytes; memory > total {
			t.Fatalf("%s is ordered to run %s, it has %s", h, model.Bytes(memory), model.Bytes(total))
		}
	}
}
