package invariants_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/invariants"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// violated lists the numbers of those that do not hold.
func violated(w *fixture.World) (out []uint32) {
	for _, v := range invariants.Check(w.State, w.View) {
		if v.GetResult() != pb.InvariantResult_INVARIANT_RESULT_HOLDS {
			out = append(out, v.GetNumber())
		}
	}
	return out
}

// All ten hold through a failover and its way back.
func TestTheyHold(t *testing.T) {
	w := fixture.New(t)
	w.Lease(2, 16, 40<<30)
	w.Quiesce()
	look := func(when string) {
		t.Helper()
		vs := invariants.Check(w.State, w.View)
		for i, v := range vs {
			if v.GetNumber() != uint32(i+1) || v.GetResult() != pb.InvariantResult_INVARIANT_RESULT_HOLDS || len(v.GetDetails()) == 0 {
				t.Errorf("%s: %v", when, v)
			}
		}
		if len(vs) != 10 {
			t.Errorf("%s: %d verdicts", when, len(vs))
		}
	}
	look("on an ordinary day")
	f := w.Declare("webshop")
	w.Controllers()
	look("right after the declaration")
	w.Quiesce()
	look("while the plan runs")
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Controllers()
	look("on the way back")
	w.Quiesce()
	look("afterwards")
}

// Each is seen to be violated, and no other with it.
func TestTheyAreViolated(t *testing.T) {
	for name, c := range map[string]struct {
		number uint32
		spoil  func(w *fixture.World, f *pb.Failover)
		says   string
	}{
		"a workload runs twice": {1, func(w *fixture.World, f *pb.Failover) {
			p := proto.CloneOf(f.GetPlacements()[0])
			for _, other := range f.GetPlacements() {
				if other.GetWorkload() != p.GetWorkload() {
					p.Object = other.GetObject()
				}
			}
			f.Placements = append(f.Placements, p)
		}, "runs as"},
		"started without a fence": {1, func(_ *fixture.World, f *pb.Failover) {
			f.Oaths = nil
			for _, s := range f.GetSteps() {
				if s.GetKind() == pb.Kind_KIND_FENCE || s.GetKind() == pb.Kind_KIND_VOLUME {
					s.Phase = pb.StepPhase_STEP_PHASE_PENDING
				}
			}
		}, "neither fenced nor sworn dead"},
		"a forged certificate": {2, func(w *fixture.World, _ *pb.Failover) { clear(w.State.Guarantee().GetCertificate().GetObligations()) }, "does not hold"},
		"a host too small": {3, func(w *fixture.World, f *pb.Failover) {
			w.State.Object(f.GetPlacements()[0].GetObject()).Overrides[0].Spec.GetInstance().Vcpus = 1000
			w.State.Object(f.GetPlacements()[0].GetObject()).Base.GetInstance().Vcpus = 1000
		}, "is to run"},
		"an order that was never given": {4, func(w *fixture.World, f *pb.Failover) {
			st := proto.CloneOf(w.View.Raw(f.GetPlacements()[0].GetObject()))
			st.Generation += 1000
			w.View = w.View.WithStatus(st)
		}, "acts on order"},
		"left behind": {5, func(w *fixture.World, _ *pb.Failover) {
			w.State.Object("network/lent@h1").Overrides = []*pb.Override{{Epoch: 77, Spec: w.State.Object("network/lent@h1").GetBase()}}
		}, "which is over"},
		"a lease deleted": {6, func(w *fixture.World, _ *pb.Failover) {
			for l := range w.State.Leases() {
				o := w.State.Object(l.GetInstances()[0].GetObject())
				o.Base.State, o.Overrides = pb.State_STATE_ABSENT, nil
			}
		}, "is to be deleted"},
		"preempted twice": {7, func(w *fixture.World, f *pb.Failover) {
			for l := range w.State.Leases() {
				l.PreemptedBy = []uint64{f.GetEpoch(), f.GetEpoch()}
			}
		}, "twice"},
		"evidence changed": {8, func(w *fixture.World, _ *pb.Failover) {
			for e := range w.State.Evidence(0) {
				e.Reason = "another"
			}
		}, "was changed"},
		"a lent VM on a production network": {9, func(w *fixture.World, _ *pb.Failover) {
			for l := range w.State.Leases() {
				w.State.Object(l.GetInstances()[0].GetObject()).GetBase().GetInstance().GetNics()[0].Network = "prod-10"
			}
		}, "has a card"},
		"promoted without a fence": {10, func(_ *fixture.World, f *pb.Failover) {
			f.Oaths = nil
			for _, s := range f.GetSteps() {
				if s.GetKind() == pb.Kind_KIND_FENCE || s.GetKind() == pb.Kind_KIND_INSTANCE {
					s.Phase = pb.StepPhase_STEP_PHASE_PENDING
				}
			}
		}, "neither fenced nor sworn dead"},
	} {
		t.Run(name, func(t *testing.T) {
			w := fixture.New(t)
			w.Lease(1, 2, 4<<30)
			w.Quiesce()
			f := w.Declare("webshop")
			w.Quiesce()
			if len(violated(w)) > 0 {
				t.Fatalf("before: %v", violated(w))
			}
			c.spoil(w, w.State.Failover(f.GetName()))
			for _, v := range invariants.Check(w.State, w.View) {
				switch {
				case v.GetNumber() == c.number && (v.GetResult() != pb.InvariantResult_INVARIANT_RESULT_VIOLATED || !strings.Contains(v.GetDetails()[0], c.says)):
					t.Errorf("not seen: %v", v)
				case v.GetNumber() != c.number && v.GetResult() == pb.InvariantResult_INVARIANT_RESULT_VIOLATED:
					t.Errorf("also %v", v)
				}
			}
		})
	}
}
