package render_test

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// zero is when the sample failover was declared.
func zero() time.Time { return time.Date(2026, 11, 20, 10, 3, 49, 0, time.UTC) }

// after returns a moment so many seconds after the declaration.
func after(seconds float64) *timestamppb.Timestamp {
	return timestamppb.New(zero().Add(time.Duration(seconds * float64(time.Second))))
}

// step makes a step that was released and done at these seconds; a negative time is not set.
func step(id string, released, done float64, openedBy string) *pb.Step {
	s := &pb.Step{Id: id, OpenedBy: openedBy, Phase: pb.StepPhase_STEP_PHASE_PENDING, Spec: &pb.Spec{}}
	if released >= 0 {
		s.ReleasedAt, s.Phase = after(released), pb.StepPhase_STEP_PHASE_RELEASED
	}
	if done >= 0 {
		s.DoneAt, s.Phase = after(done), pb.StepPhase_STEP_PHASE_DONE
	}
	return s
}

// probed gives a step a health probe that first succeeded at this second, or has not yet.
func probed(s *pb.Step, healthy float64) *pb.Step {
	s.Spec.Parameters = &pb.Spec_Instance{Instance: &pb.InstanceSpec{Health: &pb.Health{Tcp: "10.10.0.11:5432"}}}
	if healthy >= 0 {
		s.HealthyAt = after(healthy)
	}
	return s
}

// booting is halfway with the start of a VM that nobody hears of yet, and what its agent reports.
func booting() (*pb.Failover, []*pb.Status) {
	f := halfway()
	start := probed(step("start webshop/web-0", 1, 2, ""), -1)
	start.Object = "instance/webshop-web-0-e3"
	f.Steps = append(f.Steps, start)
	return f, []*pb.Status{{Object: start.GetObject(), State: pb.State_STATE_RUNNING, Phase: pb.Phase_PHASE_SETTLED, Details: &pb.Status_Instance{
		Instance: &pb.InstanceStatus{Health: pb.HealthState_HEALTH_STATE_PENDING, HealthMessage: "probe 10.10.0.12:80: connection refused"},
	}}}
}

// webshop is a failover that went well: the fence took longest, then the database, then the web servers.
func webshop() *pb.Failover {
	reclaim := step("reclaim web-3 web-3-0", 0, 2.4, "")
	startDB := probed(step("start webshop/db", 4.9, 7.3, "promote webshop/db root"), 15.2)
	startWeb0 := probed(step("start webshop/web-0", 15.2, 17.4, "start webshop/db"), 27.9)
	// The agent of web-1 had to wait for its victim's memory.
	slow := step("reclaim ci-7 ci-7-0", 0, 16.8, "")
	startWeb1 := probed(step("start webshop/web-1", 15.2, 19.0, "start webshop/db"), 29.6)
	startWeb1.After = []string{"reclaim ci-7 ci-7-0"}
	startWeb1.CallBegan = after(16.9)
	hook := step("hook webshop/tell-the-press", 0, -1, "")
	hook.Phase, hook.Optional, hook.Message = pb.StepPhase_STEP_PHASE_FAILED, true, "exit status 1"
	hook.CallReturned = after(3.1)
	return &pb.Failover{
		Name: "fo-3", Epoch: 3, Run: pb.RunKind_RUN_KIND_FAILOVER, Phase: pb.RunPhase_RUN_PHASE_COMPLETED,
		Plans: []*pb.PlanRevision{{Plan: "webshop", Revision: 4}}, Reason: "the site is flooded", DeclaredBy: "ann",
		DeclaredAt: after(0), CompletedAt: after(30.2),
		Placements: []*pb.Placement{
			{Plan: "webshop", Workload: "db", Host: "h1", Object: "instance/webshop-db-e3"},
			{Plan: "webshop", Workload: "web-0", Host: "h2", Object: "instance/webshop-web-0-e3"},
			{Plan: "webshop", Workload: "web-1", Host: "h3", Object: "instance/webshop-web-1-e3"},
		},
		Victims: []*pb.Victim{
			{Lease: "web-3", Object: "instance/web-3-0", Host: "h1", Action: pb.ReclaimAction_RECLAIM_ACTION_SAVE, Reason: "its memory is needed by webshop/db"},
			{Lease: "ci-7", Object: "instance/ci-7-0", Host: "h3", Action: pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, Reason: "its memory is needed by webshop/web-1"},
		},
		Losses: []*pb.DataLoss{{Volume: "volume/webshop-db-root", Point: after(-42)}, {Volume: "volume/webshop-web-0"}},
		Oaths:  []*pb.Oath{{Plan: "webshop", Person: "ann", Reason: "I saw the racks without power", At: after(3)}},
		Steps: []*pb.Step{
			step("fence webshop power east-bmc", 0, 4.1, ""), reclaim, slow, hook,
			step("promote webshop/db root", 4.1, 4.9, "fence webshop power east-bmc"),
			startDB, startWeb0, startWeb1,
			step("announce www.shop.example", 29.6, 30.2, "start webshop/web-1"),
		},
	}
}

// halfway is the same failover eleven seconds after the declaration, waiting for an oath.
func halfway() *pb.Failover {
	f := webshop()
	f.Phase, f.CompletedAt, f.Oaths = pb.RunPhase_RUN_PHASE_RUNNING, nil, nil
	fence := step("fence webshop power east-bmc", 0, -1, "")
	fence.Phase, fence.Timeout, fence.Message = pb.StepPhase_STEP_PHASE_FAILED, durationpb.New(10*time.Second), "no route to host"
	promote := step("promote webshop/db root", -1, -1, "")
	promote.Gates = []*pb.Gate{{AnyOf: []*pb.Condition{
		{Condition: &pb.Condition_StepDone{StepDone: "fence webshop power east-bmc"}},
		{Condition: &pb.Condition_Oath{Oath: "webshop"}},
	}}}
	start := probed(step("start webshop/db", -1, -1, ""), -1)
	start.Gates = []*pb.Gate{{AnyOf: []*pb.Condition{{Condition: &pb.Condition_StepDone{StepDone: "promote webshop/db root"}}}}}
	reclaim := step("reclaim ci-7 ci-7-0", 0, -1, "")
	reclaim.Object = "instance/ci-7-0"
	f.Steps = []*pb.Step{fence, step("reclaim web-3 web-3-0", 0, 2.4, ""), reclaim, promote, start}
	return f
}
