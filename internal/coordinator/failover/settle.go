package failover

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// settle decides whether the run has ended, came to a stand, or goes on.
func (r *run) settle() {
	want := pb.RunPhase_RUN_PHASE_RUNNING
	switch {
	case r.complete():
		want = pb.RunPhase_RUN_PHASE_COMPLETED
	case r.stuck():
		want = pb.RunPhase_RUN_PHASE_INCOMPLETE
	}
	if want != r.f.GetPhase() && model.MayFollow(r.f.GetPhase(), want) {
		r.phase = want
	}
}

func (r *run) complete() bool {
	if len(r.f.GetUnplaced()) > 0 {
		return false
	}
	return !slices.ContainsFunc(r.f.GetSteps(), func(st *pb.Step) bool {
		switch {
		case r.superseded(st), r.passed(st) && r.phaseOf(st) != pb.StepPhase_STEP_PHASE_DONE:
			return false
		case r.phaseOf(st) != pb.StepPhase_STEP_PHASE_DONE:
			return true
		default:
			return st.GetSpec().GetInstance().GetHealth() != nil && !r.healthy(st)
		}
	})
}

// superseded says that a step is not needed: a fence whose plan was proven dead another way.
func (r *run) superseded(st *pb.Step) bool {
	if st.GetKind() != pb.Kind_KIND_FENCE {
		return false
	}
	for _, o := range r.f.GetSteps() {
		for _, g := range o.GetGates() {
			about := slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return c.GetStepDone() == st.GetId() })
			if about && len(g.GetAnyOf()) > 1 && slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool {
				return c.GetStepDone() != st.GetId() && r.holds(c)
			}) {
				return true
			}
		}
	}
	return false
}

// stuck says that nothing is under way and nothing pending can still be released without a person.
// A step that waits for an oath is not stuck: the run waits visibly.
func (r *run) stuck() bool {
	memo := map[string]bool{}
	for _, st := range r.f.GetSteps() {
		switch r.phaseOf(st) {
		case pb.StepPhase_STEP_PHASE_RELEASED:
			return false
		case pb.StepPhase_STEP_PHASE_DONE:
			if st.GetSpec().GetInstance().GetHealth() != nil && !r.healthy(st) {
				return false
			}
		case pb.StepPhase_STEP_PHASE_PENDING:
			if r.possible(st, memo) {
				return false
			}
		default:
		}
	}
	return true
}

// possible says whether every gate of a pending step can still open by itself or by an oath.
func (r *run) possible(st *pb.Step, memo map[string]bool) bool {
	if p, seen := memo[st.GetId()]; seen {
		return p
	}
	memo[st.GetId()] = false // A cycle cannot open itself; apply refuses them anyway.
	p := true
	for _, g := range st.GetGates() {
		p = p && slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return r.holds(c) || r.canHold(c, memo) })
	}
	memo[st.GetId()] = p
	return p
}

func (r *run) canHold(c *pb.Condition, memo map[string]bool) bool {
	id := c.GetStepDone()
	if id == "" {
		id = c.GetStepHealthy()
	}
	if failed := c.GetStepFailed(); failed != "" {
		st := r.step(failed)
		return st != nil && r.phaseOf(st) != pb.StepPhase_STEP_PHASE_DONE
	}
	if id == "" {
		return true // An oath, or the health of another run's workload.
	}
	st := r.step(id)
	if st == nil {
		return false
	}
	switch r.phaseOf(st) {
	case pb.StepPhase_STEP_PHASE_FAILED:
		return false
	case pb.StepPhase_STEP_PHASE_PENDING:
		return r.possible(st, memo)
	default:
		return true
	}
}

// goBack carries what was written here to the protected site, if the way back has steps for it, and
// reverts steps in reverse order of the graph: a step goes back once everything that stood on it is
// back, and is back once its object is observed in what is then its effective spec.
func (r *run) goBack() {
	r.carryBack()
	for _, st := range r.f.GetSteps() {
		if st.GetPhase() == pb.StepPhase_STEP_PHASE_REVERTING && r.back(st) {
			r.change(st).Phase = pb.StepPhase_STEP_PHASE_REVERTED
		}
	}
	r.takeBack()
	if slices.ContainsFunc(r.f.GetSteps(), func(st *pb.Step) bool { return !r.clean(st) }) {
		return
	}
	r.phase = pb.RunPhase_RUN_PHASE_FAILED_BACK
	if r.f.GetPhase() == pb.RunPhase_RUN_PHASE_ABORTING {
		r.phase = pb.RunPhase_RUN_PHASE_ABORTED
	}
}

// takeBack reverts the steps that nothing stands on any more, and that wait for nothing.
func (r *run) takeBack() {
	dependents := r.dependents()
	burdened := func(st *pb.Step) bool {
		return slices.ContainsFunc(dependents[st.GetId()], func(o *pb.Step) bool { return !r.clean(o) })
	}
	// A lease returns as a unit: no instance before the room of its sisters is free too.
	waiting := map[string]bool{}
	for _, st := range r.f.GetSteps() {
		waiting[st.GetLease()] = waiting[st.GetLease()] || st.GetLease() != "" && burdened(st)
	}
	kept := r.keptFenced() != ""
	for _, st := range r.f.GetSteps() {
		stays := kept && len(st.GetBackAfter()) > 0 && !st.GetWayBack()
		if stays || !held(r.phaseOf(st), st) || burdened(st) || waiting[st.GetLease()] || !r.arrived(st) {
			continue
		}
		if first := r.promotionOf(st); first == nil || r.endsWith(first, burdened(first)) {
			r.change(st).Phase = pb.StepPhase_STEP_PHASE_REVERTING
		}
	}
}

// endsWith says whether a promotion may end, or has ended. The steps of the way back give the promoted
// volume other orders, and end with it.
func (r *run) endsWith(first *pb.Step, burdened bool) bool {
	return r.arrived(first) && (!burdened || !held(r.phaseOf(first), first))
}

// held says whether the step's override is in force.
func held(p pb.StepPhase, st *pb.Step) bool {
	switch p {
	case pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_DONE, pb.StepPhase_STEP_PHASE_FAILED:
		return true
	case pb.StepPhase_STEP_PHASE_SKIPPED:
		return st.GetGeneration() > 0
	default:
		return false
	}
}

// clean says whether nothing of the step is left, and nothing of it is still to come.
func (r *run) clean(st *pb.Step) bool {
	p := r.phaseOf(st)
	return p == pb.StepPhase_STEP_PHASE_REVERTED || p == pb.StepPhase_STEP_PHASE_SKIPPED && st.GetGeneration() == 0 ||
		p == pb.StepPhase_STEP_PHASE_PENDING && !st.GetWayBack()
}

// back says whether the object is observed in its base (or another run's override).
func (r *run) back(st *pb.Step) bool {
	o := r.s.Object(st.GetObject())
	if o == nil {
		return true // It was made by the run, seen ABSENT and forgotten.
	}
	if st.GetSpec().GetVolume().GetRunWriter() {
		// Its replication may need a new number, which it gets when the run has ended.
		return r.v.Current(o) != nil
	}
	return r.v.Settled(o)
}

// dependents maps each step to those that wait for it, by a gate or on the agent itself.
func (r *run) dependents() map[string][]*pb.Step {
	out := map[string][]*pb.Step{}
	for _, o := range r.f.GetSteps() {
		for _, id := range o.GetAfter() {
			out[id] = append(out[id], o)
		}
		if o.GetWayBack() {
			continue // Its gates order the way forward; what goes back before what is said by back_after.
		}
		for _, g := range o.GetGates() {
			for _, c := range g.GetAnyOf() {
				if id := c.GetStepDone() + c.GetStepHealthy(); id != "" { // A condition is only one of them.
					out[id] = append(out[id], o)
				}
			}
		}
	}
	return out
}
