package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

const (
	fence    = "fence east-bmc"
	fenceObj = "fence/east-bmc"
	promote  = "promote webshop-db-root"
	startDB  = "start webshop/db"
	startWeb = "start webshop/web-0"
	announce = "announce www.shop.example.A"

	pending  = pb.StepPhase_STEP_PHASE_PENDING
	released = pb.StepPhase_STEP_PHASE_RELEASED
	done     = pb.StepPhase_STEP_PHASE_DONE
	failed   = pb.StepPhase_STEP_PHASE_FAILED

	running    = pb.RunPhase_RUN_PHASE_RUNNING
	completed  = pb.RunPhase_RUN_PHASE_COMPLETED
	incomplete = pb.RunPhase_RUN_PHASE_INCOMPLETE
	failedBack = pb.RunPhase_RUN_PHASE_FAILED_BACK
)

// phases checks the phases of a run and of some of its steps.
func phases(t *testing.T, w *fixture.World, run string, want pb.RunPhase, steps map[string]pb.StepPhase) {
	t.Helper()
	if got := w.Phase(run); got != want {
		t.Errorf("run is %v, want %v", got, want)
	}
	for _, s := range w.State.Failover(run).GetSteps() {
		if p, ok := steps[s.GetId()]; ok && s.GetPhase() != p {
			t.Errorf("step %q is %v (%s), want %v", s.GetId(), s.GetPhase(), s.GetMessage(), p)
		}
	}
}

// nothingLeft checks invariant 5 of one epoch in the replicated state.
func nothingLeft(t fixture.T, s *state.State, epoch uint64) {
	t.Helper()
	for o := range s.Objects() {
		if o.GetMadeBy() == epoch {
			t.Fatalf("%s made by epoch %d is left", o.GetId(), epoch)
		}
		for _, v := range o.GetOverrides() {
			if v.GetEpoch() == epoch {
				t.Fatalf("%s still has an override of epoch %d", o.GetId(), epoch)
			}
		}
	}
	for l := range s.Leases() {
		if slices.Contains(l.GetPreemptedBy(), epoch) {
			t.Fatalf("lease %s is still preempted by epoch %d", l.GetName(), epoch)
		}
	}
}

func TestHappyPathAndBack(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released, promote: pending, startDB: pending})
	w.Quiesce()
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{fence: done, promote: done, startDB: done, startWeb: done, announce: done})
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	nothingLeft(t, w.State, f.GetEpoch())
}

func TestFenceFailsThenOath(t *testing.T) {
	w := fixture.New(t)
	w.Stuck[fenceObj] = true
	f := w.Declare("webshop")
	w.Quiesce()
	w.Wait(21 * time.Second)
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: failed, promote: pending})
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_SKIP, fence); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("skip of a fence: %v, want a refusal", err)
	}
	if err := w.Swear(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{fence: failed, announce: done})
	if by := w.Step(f.GetName(), promote).GetOpenedBy(); by != "oath webshop" {
		t.Errorf("the promotion was opened by %q", by)
	}
}

func TestNextFencingMethod(t *testing.T) {
	second := `
apiVersion: hotspare/v1
kind: FenceTarget
metadata: {name: east-pdu}
spec: {agent: gateway1}
---
` + strings.ReplaceAll(fixture.Example(t, "webshop.yaml"), "  - {oath: {}}", "  - {power: {target: east-pdu}, timeout: 20s}\n  - {oath: {}}")
	w := fixture.New(t)
	w.ApplyManifests(second)
	w.Quiesce()
	w.Stuck[fenceObj] = true
	f := w.Declare("webshop")
	w.Quiesce()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released, "fence east-pdu": pending, promote: pending})
	w.Wait(21 * time.Second)
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{fence: failed, "fence east-pdu": done})
}

func TestOldStatusOpensNoGate(t *testing.T) {
	for name, change := range map[string]func(*pb.Status){
		"old generation": func(s *pb.Status) { s.Generation-- },
		"old boot":       func(s *pb.Status) { s.BootId = "boot-0" },
		"still working":  func(s *pb.Status) { s.Phase = pb.Phase_PHASE_WORKING },
		"deadline":       func(s *pb.Status) { s.Phase = pb.Phase_PHASE_UNKNOWN },
	} {
		t.Run(name, func(t *testing.T) {
			w := fixture.New(t)
			f := w.Declare("webshop")
			w.Report(fenceObj, change)
			w.Controllers()
			phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released, promote: pending})
		})
	}
	t.Run("held agent", func(t *testing.T) {
		w := fixture.New(t)
		f := w.Declare("webshop")
		w.Report(fenceObj, nil)
		a := w.View.Agent("gateway1")
		a.Held = "knows a higher order"
		w.View = w.View.WithAgent(a)
		w.Controllers()
		phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released, promote: pending})
	})
}

func TestElectionIsNotFailure(t *testing.T) {
	w := fixture.New(t)
	w.Stuck[fenceObj] = true
	f := w.Declare("webshop")
	w.Now = w.Now.Add(time.Hour)
	w.Elect()
	w.Controllers()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released})
	w.Now = w.Now.Add(failover.WarmUp - time.Second)
	w.Controllers()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: released})
	w.Now = w.Now.Add(7 * time.Second) // 21 s of the fence's own time since the election, and the warm-up is over.
	w.Controllers()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{fence: failed})
	if m := w.Step(f.GetName(), fence).GetMessage(); !strings.Contains(m, "not connected") {
		t.Errorf("message %q does not say that the agent is not connected", m)
	}
}

func TestLateSuccess(t *testing.T) {
	w := fixture.New(t)
	w.Stuck["volume/webshop-db-root"] = true
	f := w.Declare("webshop")
	w.Quiesce()
	w.Wait(3 * time.Minute)
	phases(t, w, f.GetName(), incomplete, map[string]pb.StepPhase{
		promote: failed, startDB: pending, "promote webshop-web-0": done, startWeb: pending,
	})
	delete(w.Stuck, "volume/webshop-db-root")
	w.Quiesce()
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{promote: done, announce: done})
}

func TestUnhealthyThenHealthy(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	db := w.Step(f.GetName(), startDB).GetObject()
	w.Sick[db] = true
	w.Quiesce()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{startDB: done, startWeb: pending})
	w.Wait(61 * time.Second)
	phases(t, w, f.GetName(), incomplete, map[string]pb.StepPhase{startDB: failed, startWeb: pending})
	delete(w.Sick, db)
	w.Quiesce()
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{startDB: done, startWeb: done})
}

// A retry once kept the time of the first success, so the step failed again in the entry that saw it settle.
func TestRetryHasItsWholeTimeAgain(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	db := w.Step(f.GetName(), startDB).GetObject()
	w.Sick[db] = true
	w.Quiesce()
	w.Wait(2 * time.Minute)
	phases(t, w, f.GetName(), incomplete, map[string]pb.StepPhase{startDB: failed})
	before := w.State.Object(db).GetGeneration()
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""); err != nil {
		t.Fatal(err)
	}
	if w.State.Object(db).GetGeneration() <= before {
		t.Error("a retry must give a new generation")
	}
	w.Quiesce()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{startDB: done})
	w.Wait(59 * time.Second)
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{startDB: done})
	w.Wait(2 * time.Second)
	phases(t, w, f.GetName(), incomplete, map[string]pb.StepPhase{startDB: failed})
}

func TestSkip(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	w.Sick[w.Step(f.GetName(), startDB).GetObject()] = true
	w.Quiesce()
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_SKIP, startDB); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("skip of a step that has not failed: %v", err)
	}
	w.Wait(2 * time.Minute)
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_SKIP, startDB); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{startDB: pb.StepPhase_STEP_PHASE_SKIPPED, startWeb: done})
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	nothingLeft(t, w.State, f.GetEpoch())
}

func TestOptionalFailureIsPassed(t *testing.T) {
	w := fixture.New(t)
	w.ApplyManifests(strings.Replace(fixture.Example(t, "webshop.yaml"), "  - name: web\n", "  - name: web\n    optional: true\n", 1))
	w.Quiesce()
	f := w.Declare("webshop")
	w.Stuck[w.Step(f.GetName(), startWeb).GetObject()] = true
	w.Quiesce()
	w.Wait(4 * time.Minute)
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{startWeb: failed, announce: done})
}

func TestPauseResumeAbort(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_PAUSE, ""); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), pb.RunPhase_RUN_PHASE_PAUSED, map[string]pb.StepPhase{fence: done, promote: pending})
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RESUME, ""); err != nil {
		t.Fatal(err)
	}
	w.Controllers()
	phases(t, w, f.GetName(), running, map[string]pb.StepPhase{promote: released})
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_ABORT, ""); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("abort after a promotion: %v, want a refusal", err)
	}
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_PAUSE, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Failback(f.GetName()); err != nil {
		t.Errorf("failback of a paused run, which abort recommends: %v", err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	nothingLeft(t, w.State, f.GetEpoch())
}

func TestAbortBeforePromotion(t *testing.T) {
	w := fixture.New(t)
	w.Stuck[fenceObj] = true
	f := w.Declare("webshop")
	w.Quiesce()
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_ABORT, ""); err != nil {
		t.Fatal(err)
	}
	w.Controllers()
	phases(t, w, f.GetName(), pb.RunPhase_RUN_PHASE_ABORTING, map[string]pb.StepPhase{fence: pb.StepPhase_STEP_PHASE_REVERTING})
	before := w.State.Object(fenceObj).GetGeneration()
	if err := w.Control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""); err != nil {
		t.Fatal(err)
	}
	if w.State.Object(fenceObj).GetGeneration() <= before || len(w.State.Object(fenceObj).GetOverrides()) > 0 {
		t.Error("a retry on the way back must order the way back again, and nothing forward")
	}
	delete(w.Stuck, fenceObj)
	w.Quiesce()
	phases(t, w, f.GetName(), pb.RunPhase_RUN_PHASE_ABORTED, nil)
	nothingLeft(t, w.State, f.GetEpoch())
}

// watchReverse checks after every round that nothing went back before what stands on it.
func TestFailbackInReverseOrder(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	w.Quiesce()
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	order := []string{}
	for range 50 {
		w.Controllers()
		for _, s := range w.State.Failover(f.GetName()).GetSteps() {
			if s.GetPhase() == pb.StepPhase_STEP_PHASE_REVERTING && !slices.Contains(order, s.GetId()) {
				order = append(order, s.GetId())
			}
		}
		if !w.Settle() {
			break
		}
	}
	phases(t, w, f.GetName(), failedBack, nil)
	at := func(id string) int { return slices.Index(order, id) }
	for _, s := range f.GetSteps() {
		for _, below := range append(slices.Clone(s.GetAfter()), gateSteps(s)...) {
			if at(below) < at(s.GetId()) {
				t.Errorf("%q went back before %q, which stood on it: %q", below, s.GetId(), order)
			}
		}
	}
}

func gateSteps(s *pb.Step) []string {
	var out []string
	for _, g := range s.GetGates() {
		for _, c := range g.GetAnyOf() {
			if id := c.GetStepDone() + c.GetStepHealthy(); id != "" {
				out = append(out, id)
			}
		}
	}
	return out
}

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

func TestJoin(t *testing.T) {
	w := fixture.New(t, second)
	f := w.Declare("webshop")
	if got := failover.Join(w.State, &pb.DeclareRequest{Plans: []string{"webshop"}, Key: "any"}); got.GetName() != f.GetName() {
		t.Errorf("a declaration of the open run's plan joined %v", got.GetName())
	}
	if got := failover.Join(w.State, &pb.DeclareRequest{Plans: []string{"webshop", "billing"}}); got != nil {
		t.Errorf("a declaration with another plan joined %v", got.GetName())
	}
	body, _, err := failover.Declare(w.State, w.View, &pb.DeclareRequest{Plans: []string{"webshop", "billing"}}, "ann")
	if err != nil || len(body.GetFailover().GetPlans()) != 1 {
		t.Errorf("only billing is left to declare: %v, %v", body.GetFailover().GetPlans(), err)
	}
}

func TestTriggerDisarmsAfterDeclare(t *testing.T) {
	w := fixture.New(t)
	req := &pb.DeclareRequest{Plans: []string{"webshop"}, Trigger: "east-down", Key: "alert-1"}
	if err := failover.CheckTrigger(w.State, req); err != nil {
		t.Fatal(err)
	}
	body, _, err := failover.Declare(w.State, w.View, req, "monitor")
	if err != nil {
		t.Fatal(err)
	}
	f := w.Must("monitor", &pb.Command{Body: &pb.Command_Declare{Declare: body}})
	w.Quiesce()
	if err := w.Failback(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	if got := failover.Join(w.State, req); got.GetName() != f {
		t.Errorf("a repeat after the failback is answered with %q, want %q", got.GetName(), f)
	}
	req.Key = "alert-2"
	if got := failover.Join(w.State, req); got != nil {
		t.Errorf("another alert joined %s", got.GetName())
	}
	if err := failover.CheckTrigger(w.State, req); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("the trigger is still armed: %v", err)
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_Arm{Arm: &pb.ArmRequest{Trigger: "east-down"}}})
	if err := failover.CheckTrigger(w.State, req); err != nil {
		t.Error(err)
	}
	req.Plans = []string{"billing"}
	if err := failover.CheckTrigger(w.State, req); model.FaultOf(err) != model.FaultDenied {
		t.Errorf("a plan that is not the trigger's: %v", err)
	}
}

func TestUnplacedIsIncompleteAndBlocksDependents(t *testing.T) {
	w := fixture.New(t, second)
	w.ApplyManifests(strings.Replace(fixture.Example(t, "webshop.yaml"), "memory: 32GiB", "memory: 100GiB", 1))
	w.Quiesce()
	f := w.Declare("webshop")
	if len(f.GetUnplaced()) != 1 || f.GetUnplaced()[0].GetWorkload() != "db" {
		t.Fatalf("unplaced: %v", f.GetUnplaced())
	}
	w.Quiesce()
	phases(t, w, f.GetName(), incomplete, map[string]pb.StepPhase{startWeb: pending, announce: pending})
	// Another run that depends on the workload without room waits too.
	b := w.Declare("billing")
	if err := w.Swear(b.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, b.GetName(), running, map[string]pb.StepPhase{"start billing/app": pending})
}

func TestOathWithoutAGate(t *testing.T) {
	w := fixture.New(t)
	w.ApplyManifests(strings.Replace(fixture.Example(t, "webshop.yaml"), "  - {oath: {}}\n", "", 1))
	w.Quiesce()
	f := w.Declare("webshop")
	if err := w.Swear(f.GetName()); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("an oath that opens nothing was taken: %v", err)
	}
}

// An edited plan takes effect after the failback: neither volumes nor room are given away before.
func TestEditDuringARun(t *testing.T) {
	w := fixture.New(t)
	w.Stuck[fenceObj] = true
	f := w.Declare("webshop")
	w.ApplyManifests(strings.NewReplacer(
		"replica: webshop-db-root", "replica: webshop-db-new", "memory: 32GiB", "memory: 1GiB",
	).Replace(fixture.Example(t, "webshop.yaml")))
	w.Quiesce()
	if s := w.State.Object("volume/webshop-db-root").GetBase().GetState(); s != pb.State_STATE_REPLICA {
		t.Errorf("the volume that is still to be promoted became %v", s)
	}
	delete(w.Stuck, fenceObj)
	w.Quiesce()
	phases(t, w, f.GetName(), completed, nil)
	host := w.State.Object(w.Step(f.GetName(), startDB).GetObject()).GetAgent()
	if use := model.HostUse(w.State.Host(host), w.State.ObjectsOf(host)); use.MemoryBytes < 32<<30 {
		t.Errorf("%s counts %s", host, model.Bytes(use.MemoryBytes))
	}
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	nothingLeft(t, w.State, f.GetEpoch())
	if o := w.State.Object("volume/webshop-db-root"); o != nil {
		t.Errorf("after the failback the edit takes effect; left: %v", o.GetBase().GetState())
	}
}

func TestCurrentOfNothing(t *testing.T) {
	v := live.New(time.Time{}).WithStatus(&pb.Status{Phase: pb.Phase_PHASE_SETTLED, CallBegan: timestamppb.Now()})
	if v.Settled(nil) {
		t.Error("an object that does not exist is settled")
	}
}
