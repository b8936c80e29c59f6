package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// defaultWithin is how long a started instance may take to become healthy when its plan does not say.
const defaultWithin = 2 * time.Minute

// Advance decides what is to be committed for every open run, at most one command for each.
func Advance(s *state.State, v live.View, now time.Time) []*pb.Command {
	var out []*pb.Command
	for f := range s.OpenFailovers() {
		if c := over(s, f); c != nil {
			out = append(out, c)
			continue
		}
		r := newRun(s, v, now, f)
		if model.Reverting(f.GetPhase()) {
			r.goBack()
		} else if f.GetPhase() != pb.RunPhase_RUN_PHASE_PROPOSED {
			r.goForward()
		}
		if c := r.command(); c != nil {
			out = append(out, c)
		}
	}
	return out
}

// run is one failover while its next command is decided. The steps' phases are read through it, so
// that what this command changes is already seen by the gates behind it.
type run struct {
	s   *state.State
	v   live.View
	now time.Time
	f   *pb.Failover
	// site is the time by which commands are stamped: it may be ahead of now, never behind.
	site time.Time
	// Index of each step, and what this command changes of it.
	index   map[string]int
	changes map[string]*pb.StepChange
	phase   pb.RunPhase
}

func newRun(s *state.State, v live.View, now time.Time, f *pb.Failover) *run {
	r := &run{s: s, v: v, now: now, site: now.Add(v.Clock.SiteAhead), f: f, index: map[string]int{}, changes: map[string]*pb.StepChange{}}
	for i, st := range f.GetSteps() {
		r.index[st.GetId()] = i
	}
	return r
}

// command returns what is to be committed, or nil when nothing changes.
func (r *run) command() *pb.Command {
	if len(r.changes) == 0 && r.phase == pb.RunPhase_RUN_PHASE_UNSPECIFIED {
		return nil
	}
	adv := &pb.AdvanceRun{Failover: r.f.GetName(), Phase: r.phase}
	for _, st := range r.f.GetSteps() { // In the order of the steps, not of the map.
		if c := r.changes[st.GetId()]; c != nil {
			adv.Changes = append(adv.Changes, c)
		}
	}
	return &pb.Command{
		Body:    &pb.Command_AdvanceRun{AdvanceRun: adv},
		Expects: []*pb.Expect{{Key: "failover/" + r.f.GetName(), Version: r.f.GetVersion()}},
	}
}

func (r *run) change(st *pb.Step) *pb.StepChange {
	c := r.changes[st.GetId()]
	if c == nil {
		c = &pb.StepChange{Step: st.GetId()}
		r.changes[st.GetId()] = c
	}
	return c
}

// phaseOf returns the phase that a step will have after this command.
func (r *run) phaseOf(st *pb.Step) pb.StepPhase {
	if c := r.changes[st.GetId()]; c.GetPhase() != pb.StepPhase_STEP_PHASE_UNSPECIFIED {
		return c.GetPhase()
	}
	return st.GetPhase()
}

func (r *run) healthy(st *pb.Step) bool {
	return st.GetHealthyAt() != nil || r.changes[st.GetId()].GetHealthy()
}

func (r *run) goForward() {
	for _, st := range r.f.GetSteps() {
		r.observe(st)
	}
	if r.f.GetPhase() != pb.RunPhase_RUN_PHASE_PAUSED {
		for _, st := range r.f.GetSteps() {
			if st.GetPhase() != pb.StepPhase_STEP_PHASE_PENDING && !r.again(st) {
				continue
			}
			if opener, open := r.gatesOpen(st); open && !occupied(r.s, st, r.f.GetEpoch()) {
				c := r.change(st)
				c.Phase, c.OpenedBy = pb.StepPhase_STEP_PHASE_RELEASED, opener
			}
		}
		r.settle()
	}
}

// observe takes what is seen of a released step: done, healthy, or too late.
func (r *run) observe(st *pb.Step) {
	switch st.GetPhase() {
	case pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_FAILED, pb.StepPhase_STEP_PHASE_DONE:
	default:
		return
	}
	r.judgeTime(st, r.see(st))
}

// see takes what is seen of an ordered step: done, or healthy.
func (r *run) see(st *pb.Step) *pb.Status {
	o := r.s.Object(st.GetObject())
	status := r.v.Current(o)
	reached := status.GetGeneration() >= st.GetGeneration() && status.GetPhase() == pb.Phase_PHASE_SETTLED && ours(st, status)
	if reached && st.GetPhase() != pb.StepPhase_STEP_PHASE_DONE && !r.lateUnhealthy(st, status) {
		c := r.change(st)
		c.Phase, c.Message = pb.StepPhase_STEP_PHASE_DONE, status.GetNote()
		c.CallBegan, c.CallReturned = status.GetCallBegan(), status.GetCallReturned()
	}
	if st.GetSpec().GetInstance().GetHealth() != nil && reached && !r.healthy(st) &&
		status.GetInstance().GetHealth() == pb.HealthState_HEALTH_STATE_HEALTHY {
		r.change(st).Healthy = true
	}
	return status
}

// lateUnhealthy says that a step which failed for want of health is still unhealthy: running alone
// does not mend it.
func (r *run) lateUnhealthy(st *pb.Step, status *pb.Status) bool {
	return st.GetPhase() == pb.StepPhase_STEP_PHASE_FAILED && st.GetDoneAt() != nil &&
		status.GetInstance().GetHealth() != pb.HealthState_HEALTH_STATE_HEALTHY
}

// judgeTime fails a step whose time has passed. A step that may still succeed late stays ordered.
func (r *run) judgeTime(st *pb.Step, status *pb.Status) {
	if r.unknown(st.GetAgent()) {
		return
	}
	switch r.phaseOf(st) {
	case pb.StepPhase_STEP_PHASE_RELEASED:
		if waited := r.site.Sub(r.since(st.GetReleasedAt())); waited > st.GetTimeout().AsDuration() {
			c := r.change(st)
			c.Phase = pb.StepPhase_STEP_PHASE_FAILED
			c.Message = fmt.Sprintf("not %s after %s%s", model.StateName(st.GetSpec().GetState()),
				st.GetTimeout().AsDuration(), because(status, r.v.Agent(st.GetAgent())))
		}
	case pb.StepPhase_STEP_PHASE_DONE:
		h := st.GetSpec().GetInstance().GetHealth()
		if h == nil || r.healthy(st) || st.GetDoneAt() == nil {
			return
		}
		within := h.GetWithin().AsDuration()
		if within <= 0 {
			within = defaultWithin
		}
		if r.site.Sub(r.since(st.GetDoneAt())) > within {
			c := r.change(st)
			c.Phase = pb.StepPhase_STEP_PHASE_FAILED
			c.Message = fmt.Sprintf("not healthy within %s: %s", within, status.GetInstance().GetHealthMessage())
		}
	default:
	}
}

// since is when a wait began, but not before this leader could know.
func (r *run) since(t *timestamppb.Timestamp) time.Time {
	at := t.AsTime()
	for _, known := range []time.Time{r.v.LeaderSince, r.v.Clock.SiteSince} {
		if known.After(at) {
			at = known
		}
	}
	return at
}

// unknown says whether the leader has not had time to hear from the agent.
func (r *run) unknown(agent string) bool {
	return !r.v.Agent(agent).Full && r.now.Sub(r.v.LeaderSince) < live.WarmUp
}

func because(status *pb.Status, a live.Agent) string {
	switch {
	case !a.Connected:
		return ": its agent is not connected"
	case status.GetMessage() != "":
		return ": " + status.GetMessage()
	default:
		return ""
	}
}

// gatesOpen says whether all gates of a step are open, and which condition opened the last one.
func (r *run) gatesOpen(st *pb.Step) (opener string, open bool) {
	for _, g := range st.GetGates() {
		i := slices.IndexFunc(g.GetAnyOf(), r.holds)
		if i < 0 {
			return "", false
		}
		if name := conditionName(g.GetAnyOf()[i]); opener == "" || r.newer(name) {
			opener = name
		}
	}
	return opener, true
}

// newer says whether the step behind a condition changed in this very command: it opened the gate.
func (r *run) newer(step string) bool { return r.changes[step] != nil }

func conditionName(c *pb.Condition) string {
	switch v := c.GetCondition().(type) {
	case *pb.Condition_StepDone:
		return v.StepDone
	case *pb.Condition_StepHealthy:
		return v.StepHealthy
	case *pb.Condition_StepFailed:
		return v.StepFailed
	case *pb.Condition_Oath:
		return "oath " + v.Oath
	case *pb.Condition_StepReverted:
		return v.StepReverted
	case *pb.Condition_WriterOff:
		return v.WriterOff
	default:
		return c.GetWorkloadHealthy()
	}
}

func (r *run) step(id string) *pb.Step {
	if i, ok := r.index[id]; ok {
		return r.f.GetSteps()[i]
	}
	return nil
}

// passed says whether a step counts as done for those behind it: done, skipped with a reason, or
// optional and failed. A fence is never passed but by being done.
func (r *run) passed(st *pb.Step) bool {
	switch r.phaseOf(st) {
	case pb.StepPhase_STEP_PHASE_DONE:
		return true
	case pb.StepPhase_STEP_PHASE_SKIPPED:
		return st.GetKind() != pb.Kind_KIND_FENCE
	case pb.StepPhase_STEP_PHASE_FAILED:
		return st.GetOptional() && st.GetKind() != pb.Kind_KIND_FENCE
	default:
		return false
	}
}

// serves says whether those that depend on an instance may start: it is healthy, or passed without
// being there.
func (r *run) serves(st *pb.Step) bool {
	if r.phaseOf(st) == pb.StepPhase_STEP_PHASE_DONE {
		return r.healthy(st) || st.GetSpec().GetInstance().GetHealth() == nil
	}
	return r.passed(st)
}

func (r *run) holds(c *pb.Condition) bool {
	switch v := c.GetCondition().(type) {
	case *pb.Condition_StepDone:
		st := r.step(v.StepDone)
		return st != nil && r.passed(st)
	case *pb.Condition_StepHealthy:
		st := r.step(v.StepHealthy)
		return st != nil && r.serves(st)
	case *pb.Condition_StepFailed:
		st := r.step(v.StepFailed)
		return st != nil && r.phaseOf(st) == pb.StepPhase_STEP_PHASE_FAILED
	case *pb.Condition_Oath:
		return slices.ContainsFunc(r.f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == v.Oath })
	case *pb.Condition_StepReverted:
		return r.gone(r.step(v.StepReverted))
	case *pb.Condition_WriterOff:
		status := r.v.Current(r.s.Object(v.WriterOff))
		return status.GetVolume() != nil && r.v.Agent(r.s.Object(v.WriterOff).GetAgent()).Connected && !status.GetVolume().GetWriterRunning()
	default:
		return r.otherHealthy(c.GetWorkloadHealthy())
	}
}

// gone says whether nothing of a step is in force: of a fence also nothing of any other run.
func (r *run) gone(st *pb.Step) bool {
	if st == nil || !r.clean(st) {
		return st == nil
	}
	o := r.s.Object(st.GetObject())
	return st.GetKind() != pb.Kind_KIND_FENCE || o == nil || model.Effective(o).GetState() == pb.State_STATE_OPEN && r.v.Settled(o)
}

// otherHealthy looks at the workload of another plan: in its own open run it must have been seen
// healthy; a plan that is in no run serves from where it always does.
func (r *run) otherHealthy(key string) bool {
	plan, workload, _ := strings.Cut(key, "/")
	f := r.s.OpenFailoverOf(plan)
	if f == nil {
		return true
	}
	if slices.ContainsFunc(f.GetUnplaced(), func(u *pb.Unplaced) bool {
		return u.GetPlan() == plan && model.IsReplicaOf(u.GetWorkload(), workload)
	}) {
		return false
	}
	other := newRun(r.s, r.v, r.now, f)
	for _, st := range f.GetSteps() {
		mine := st.GetPlan() == plan && st.GetKind() == pb.Kind_KIND_INSTANCE && model.IsReplicaOf(st.GetWorkload(), workload)
		if mine && !other.serves(st) {
			return false
		}
	}
	return true
}
