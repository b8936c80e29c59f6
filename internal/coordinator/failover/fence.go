package failover

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// Runs that share a fence target each fence it anew: evidence is valid for one epoch only. The object is
// fenced for one of them at a time, which is the one that was released last; the others' evidence stands
// meanwhile, and the fence is lifted when the last of them has gone back.

// ours says whether a fence's status is evidence for the step's own run.
func ours(st *pb.Step, status *pb.Status) bool {
	return st.GetKind() != pb.Kind_KIND_FENCE || status.GetFence().GetEpoch() == st.GetSpec().GetFence().GetEpoch()
}

// fencing returns the step of another open run that an object is fenced for now, or nil.
func fencing(s *state.State, object string, epoch uint64) *pb.Step {
	win := model.Winner(s.Object(object))
	if win == nil || win.GetEpoch() == epoch {
		return nil
	}
	for _, st := range s.Failover(state.FailoverName(win.GetEpoch())).GetSteps() {
		if st.GetObject() == object {
			return st
		}
	}
	return nil
}

// occupied says whether a fence is on its way for another run: it is left to that until it is done or has
// failed.
func occupied(s *state.State, st *pb.Step, epoch uint64) bool {
	return st.GetKind() == pb.Kind_KIND_FENCE && fencing(s, st.GetObject(), epoch).GetPhase() == pb.StepPhase_STEP_PHASE_RELEASED
}

// free drops from what an entry is to release the fences that are on their way for another run.
func free(s *state.State, epoch uint64, steps []*pb.Step, release []string) []string {
	return slices.DeleteFunc(slices.Clone(release), func(id string) bool {
		return slices.ContainsFunc(steps, func(st *pb.Step) bool { return st.GetId() == id && occupied(s, st, epoch) })
	})
}

// again says whether a fence that failed, and that another run has set for itself since, gets another
// turn: it was done for the other, so it can be done for this one.
func (r *run) again(st *pb.Step) bool {
	return st.GetKind() == pb.Kind_KIND_FENCE && st.GetPhase() == pb.StepPhase_STEP_PHASE_FAILED &&
		fencing(r.s, st.GetObject(), r.f.GetEpoch()).GetPhase() == pb.StepPhase_STEP_PHASE_DONE
}
