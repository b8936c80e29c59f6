package failover_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

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
	req := &pb.DeclareRequest{Plans: []string{"webshop"}, Trigger: "east-down", Key: "alert-1", Since: timestamppb.New(fixture.Start().Add(-time.Minute))}
	if err := failover.CheckTrigger(w.State, w.View, w.Now, req); err != nil {
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
	if err := failover.CheckTrigger(w.State, w.View, w.Now, req); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("the trigger is still armed: %v", err)
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_Arm{Arm: &pb.ArmRequest{Trigger: "east-down"}}})
	if err := failover.CheckTrigger(w.State, w.View, w.Now, req); err != nil {
		t.Error(err)
	}
	req.Plans = []string{"billing"}
	if err := failover.CheckTrigger(w.State, w.View, w.Now, req); model.FaultOf(err) != model.FaultDenied {
		t.Errorf("a plan that is not the trigger's: %v", err)
	}
}

func TestTriggerHoldsDown(t *testing.T) {
	w := fixture.New(t) // Its trigger holds down for 30 s.
	for name, c := range map[string]struct {
		since *timestamppb.Timestamp
		doubt string
		want  model.Fault
		text  string
	}{
		"long enough":                 {timestamppb.New(w.Now.Add(-30 * time.Second)), "", 0, ""},
		"too short":                   {timestamppb.New(w.Now.Add(-20 * time.Second)), "", model.FaultUnavailable, "held down for 10s more"},
		"a sender that is ahead":      {timestamppb.New(w.Now.Add(time.Hour)), "", model.FaultUnavailable, "held down for 30s more"},
		"it does not say":             {nil, "", model.FaultInvalid, "since when"},
		"by a clock that is in doubt": {timestamppb.New(w.Now.Add(-time.Hour)), "c1 is ahead", model.FaultUnavailable, "c1 is ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.View.WithClock(live.Clock{Doubt: c.doubt})
			err := failover.CheckTrigger(w.State, v, w.Now, &pb.DeclareRequest{Plans: []string{"webshop"}, Trigger: "east-down", Since: c.since})
			if model.FaultOf(err) != c.want || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
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
