package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
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
	w.Now = w.Now.Add(live.WarmUp - time.Second)
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
