package model

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// runPhases says what may follow each phase of a run, and what an operator can do in it:
//
//	PROPOSED      -> REJECTED, EXPIRED, RUNNING
//	RUNNING       -> PAUSED, COMPLETED, INCOMPLETE, ABORTING, FAILING_BACK
//	PAUSED        -> RUNNING, ABORTING, FAILING_BACK
//	INCOMPLETE    -> RUNNING, COMPLETED, ABORTING, FAILING_BACK
//	COMPLETED     -> INCOMPLETE, FAILING_BACK, KEPT
//	FAILING_BACK  -> FAILED_BACK
//	ABORTING      -> ABORTED
var runPhases = map[pb.RunPhase]struct {
	next    []pb.RunPhase
	actions []string
}{
	pb.RunPhase_RUN_PHASE_PROPOSED: {
		[]pb.RunPhase{pb.RunPhase_RUN_PHASE_REJECTED, pb.RunPhase_RUN_PHASE_EXPIRED, pb.RunPhase_RUN_PHASE_RUNNING},
		[]string{"approve", "reject"},
	},
	pb.RunPhase_RUN_PHASE_RUNNING: {
		[]pb.RunPhase{
			pb.RunPhase_RUN_PHASE_PAUSED, pb.RunPhase_RUN_PHASE_COMPLETED, pb.RunPhase_RUN_PHASE_INCOMPLETE,
			pb.RunPhase_RUN_PHASE_ABORTING, pb.RunPhase_RUN_PHASE_FAILING_BACK,
		},
		[]string{"pause", "retry", "skip", "abort", "failback"},
	},
	pb.RunPhase_RUN_PHASE_PAUSED: {
		[]pb.RunPhase{pb.RunPhase_RUN_PHASE_RUNNING, pb.RunPhase_RUN_PHASE_ABORTING, pb.RunPhase_RUN_PHASE_FAILING_BACK},
		[]string{"resume", "abort", "failback"},
	},
	pb.RunPhase_RUN_PHASE_INCOMPLETE: {
		[]pb.RunPhase{
			pb.RunPhase_RUN_PHASE_RUNNING, pb.RunPhase_RUN_PHASE_COMPLETED, pb.RunPhase_RUN_PHASE_ABORTING,
			pb.RunPhase_RUN_PHASE_FAILING_BACK,
		},
		[]string{"retry", "skip", "abort", "failback"},
	},
	pb.RunPhase_RUN_PHASE_COMPLETED: {
		[]pb.RunPhase{pb.RunPhase_RUN_PHASE_INCOMPLETE, pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_KEPT},
		[]string{"failback"},
	},
	pb.RunPhase_RUN_PHASE_FAILING_BACK: {[]pb.RunPhase{pb.RunPhase_RUN_PHASE_FAILED_BACK}, []string{"retry", "failback"}},
	pb.RunPhase_RUN_PHASE_ABORTING:     {[]pb.RunPhase{pb.RunPhase_RUN_PHASE_ABORTED}, []string{"retry"}},
	pb.RunPhase_RUN_PHASE_REJECTED:     {},
	pb.RunPhase_RUN_PHASE_EXPIRED:      {},
	pb.RunPhase_RUN_PHASE_FAILED_BACK:  {},
	pb.RunPhase_RUN_PHASE_KEPT:         {},
	pb.RunPhase_RUN_PHASE_ABORTED:      {},
}

// MayFollow says whether a run may go from one phase to the other.
func MayFollow(from, to pb.RunPhase) bool { return slices.Contains(runPhases[from].next, to) }

// Allows says whether an operator may do the action ("pause", "failback") in the phase.
func Allows(p pb.RunPhase, action string) bool { return slices.Contains(runPhases[p].actions, action) }

// Actions lists what an operator can do in the phase.
func Actions(p pb.RunPhase) []string { return slices.Clone(runPhases[p].actions) }

// Open says whether the run holds overrides or may still set some: it has not ended.
func Open(p pb.RunPhase) bool { return len(runPhases[p].next) > 0 }

// Placing says whether the run takes in what it had to leave out, once there is room.
func Placing(p pb.RunPhase) bool {
	return p == pb.RunPhase_RUN_PHASE_RUNNING || p == pb.RunPhase_RUN_PHASE_INCOMPLETE
}

// Reverting says whether the run is on its way back.
func Reverting(p pb.RunPhase) bool {
	return p == pb.RunPhase_RUN_PHASE_FAILING_BACK || p == pb.RunPhase_RUN_PHASE_ABORTING
}

// stepPhases says what may follow each phase of a step.
var stepPhases = map[pb.StepPhase][]pb.StepPhase{
	pb.StepPhase_STEP_PHASE_PENDING: {pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_SKIPPED},
	pb.StepPhase_STEP_PHASE_RELEASED: {
		pb.StepPhase_STEP_PHASE_DONE, pb.StepPhase_STEP_PHASE_FAILED, pb.StepPhase_STEP_PHASE_REVERTING,
	},
	pb.StepPhase_STEP_PHASE_DONE: {pb.StepPhase_STEP_PHASE_FAILED, pb.StepPhase_STEP_PHASE_REVERTING},
	pb.StepPhase_STEP_PHASE_FAILED: {
		pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_DONE, pb.StepPhase_STEP_PHASE_SKIPPED,
		pb.StepPhase_STEP_PHASE_REVERTING,
	},
	pb.StepPhase_STEP_PHASE_SKIPPED:   {pb.StepPhase_STEP_PHASE_DONE, pb.StepPhase_STEP_PHASE_REVERTING},
	pb.StepPhase_STEP_PHASE_REVERTING: {pb.StepPhase_STEP_PHASE_REVERTED},
	pb.StepPhase_STEP_PHASE_REVERTED:  {},
}

// MayBeWritten says whether somebody may have written to the volume that a step of the way there promotes:
// it was seen promoted, or what starts from it was let go.
func MayBeWritten(f *pb.Failover, s *pb.Step) bool {
	if s.GetKind() != pb.Kind_KIND_VOLUME || s.GetGeneration() == 0 || s.GetWayBack() {
		return false
	}
	return s.GetDoneAt() != nil || slices.ContainsFunc(f.GetSteps(), func(o *pb.Step) bool {
		return o.GetGeneration() > 0 && slices.ContainsFunc(o.GetGates(), func(g *pb.Gate) bool {
			return slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return c.GetStepDone() == s.GetId() })
		})
	})
}

// StepWasDone says whether a step of the way back was done: it still is, or went back since.
func StepWasDone(p pb.StepPhase) bool {
	return p == pb.StepPhase_STEP_PHASE_DONE || p == pb.StepPhase_STEP_PHASE_REVERTING || p == pb.StepPhase_STEP_PHASE_REVERTED
}

// StepMayFollow says whether a step may go from one phase to the other.
func StepMayFollow(from, to pb.StepPhase) bool { return slices.Contains(stepPhases[from], to) }
