package state

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func (t *tx) failover(name string) (*pb.Failover, error) {
	f := t.Failover(name)
	if f == nil {
		return nil, model.Errorf(model.FaultNotFound, "failover/"+name, "no such failover").WithRemedy("see: hotspare failover list")
	}
	return edit(f), nil
}

func (t *tx) declare(c *pb.Declare) (string, error) {
	f := edit(c.GetFailover())
	if f.GetEpoch() != t.meta.GetLastEpoch()+1 || f.GetName() != FailoverName(f.GetEpoch()) {
		return "", model.Errorf(model.FaultStale, "failover/"+f.GetName(), "its epoch was taken meanwhile")
	}
	for _, p := range f.GetPlans() {
		if o := t.OpenFailoverOf(p.GetPlan()); o != nil {
			return "", model.Errorf(model.FaultStale, "plan/"+p.GetPlan(), "is in failover %s", o.GetName())
		}
		if rev := t.Plan(p.GetPlan()).GetMetadata().GetRevision(); rev != p.GetRevision() {
			return "", model.Errorf(model.FaultStale, "plan/"+p.GetPlan(), "is at revision %d, the decision used %d", rev, p.GetRevision())
		}
	}
	if (f.GetRun() == pb.RunKind_RUN_KIND_DRAIN) != (c.GetDrain() != nil) || c.GetDrain().GetName() != f.GetDrainedHost() {
		return "", model.Errorf(model.FaultInvalid, "failover/"+f.GetName(), "does not say which host it drains")
	}
	if c.GetDrain() != nil {
		if _, err := t.updateHost(c.GetDrain()); err != nil {
			return "", err
		}
	}
	t.meta.LastEpoch = f.GetEpoch()
	f.Phase, f.DeclaredAt = pb.RunPhase_RUN_PHASE_RUNNING, t.stamp()
	for _, o := range c.GetObjects() {
		if t.Object(o.GetId()) == nil {
			t.putObject(edit(o))
		}
	}
	for _, v := range f.GetVictims() {
		t.preempt(v.GetLease(), f.GetEpoch())
	}
	for _, s := range f.GetSteps() {
		s.Phase = pb.StepPhase_STEP_PHASE_PENDING
		if slices.Contains(c.GetRelease(), s.GetId()) {
			t.release(f, s)
		}
	}
	t.disarm(f)
	t.putFailover(f)
	t.touchPlacement()
	t.record(&pb.Evidence{Action: "declare", Object: "failover/" + f.GetName(), Reason: f.GetReason(), Epoch: f.GetEpoch()})
	return f.GetName(), nil
}

// disarm keeps a trigger from declaring a second time until an operator arms it again.
func (t *tx) disarm(f *pb.Failover) {
	r := t.Resource("trigger/" + f.GetTrigger())
	if f.GetTrigger() == "" || r == nil {
		return
	}
	r = edit(r)
	r.GetTrigger().Status = &pb.TriggerStatus{Disarmed: true, Reason: "declared " + f.GetName(), Since: t.stamp()}
	r.GetTrigger().GetMetadata().ResourceVersion = t.index
	t.resources.set(model.ResourceKey(r), r)
	t.changed[model.ResourceKey(r)] = true
}

// release sets the override of a step (R4).
func (t *tx) release(f *pb.Failover, s *pb.Step) {
	t.editObject(s.GetObject(), func(o *pb.Object) {
		o.Overrides = append(slices.DeleteFunc(o.Overrides, func(v *pb.Override) bool { return v.GetEpoch() == f.GetEpoch() }),
			&pb.Override{Epoch: f.GetEpoch(), Run: f.GetRun(), Step: s.GetId(), Spec: proto.CloneOf(s.GetSpec())})
	})
	s.Phase, s.Generation, s.ReleasedAt = pb.StepPhase_STEP_PHASE_RELEASED, t.Object(s.GetObject()).GetGeneration(), t.stamp()
	s.Message, s.DoneAt = "", nil // A retry has its whole time again, also to become healthy.
}

// revert removes the override of a step, so that the object's base is in force again.
func (t *tx) revert(f *pb.Failover, s *pb.Step) error {
	if missing := notDone(f, s); missing != "" {
		return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(), "step %q cannot go back before %q is done", s.GetId(), missing)
	}
	if model.MayBeWritten(f, s) && len(s.GetBackAfter()) == 0 && !f.GetDiscardRecoveryData() {
		return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(), "nothing carried back what was written to %s", s.GetObject())
	}
	t.editObject(s.GetObject(), func(o *pb.Object) {
		had := len(o.Overrides)
		o.Overrides = slices.DeleteFunc(o.Overrides, func(v *pb.Override) bool { return v.GetEpoch() == f.GetEpoch() })
		// What was written here may be dropped: the protected site has it, or somebody said so.
		if vol := o.GetBase().GetVolume(); vol != nil && vol.GetDomain() == "" && len(o.Overrides) == 0 && had > 0 {
			vol.DropPromoted = true
		}
	})
	s.Phase, s.Generation, s.RevertingAt = pb.StepPhase_STEP_PHASE_REVERTING, t.Object(s.GetObject()).GetGeneration(), t.stamp()
	if s.GetLease() != "" {
		t.giveBack(s.GetLease(), f.GetEpoch())
	}
	return nil
}

// notDone returns the first step of the way back that must be done before this one may go back, and is
// not; empty: there is none.
func notDone(f *pb.Failover, s *pb.Step) string {
	for _, id := range s.GetBackAfter() {
		if st := stepOf(f, id); st != nil && !model.StepWasDone(st.GetPhase()) {
			return id
		}
	}
	return ""
}

func stepOf(f *pb.Failover, id string) *pb.Step {
	i := slices.IndexFunc(f.GetSteps(), func(s *pb.Step) bool { return s.GetId() == id })
	if i < 0 {
		return nil
	}
	return f.GetSteps()[i]
}

func (t *tx) advanceRun(c *pb.AdvanceRun) (string, error) {
	f, err := t.failover(c.GetFailover())
	if err != nil {
		return "", err
	}
	for _, ch := range c.GetChanges() {
		i := slices.IndexFunc(f.Steps, func(s *pb.Step) bool { return s.GetId() == ch.GetStep() })
		if i < 0 {
			return "", model.Errorf(model.FaultNotFound, "failover/"+f.GetName(), "has no step %q", ch.GetStep())
		}
		if err := t.changeStep(f, f.Steps[i], ch); err != nil {
			return "", err
		}
	}
	if err := t.changePhase(f, c.GetPhase()); err != nil {
		return "", err
	}
	t.putFailover(f)
	return f.GetName(), nil
}

func (t *tx) changePhase(f *pb.Failover, to pb.RunPhase) error {
	if to == pb.RunPhase_RUN_PHASE_UNSPECIFIED || to == f.GetPhase() {
		return nil
	}
	if !model.MayFollow(f.GetPhase(), to) {
		return model.Errorf(model.FaultStale, "failover/"+f.GetName(), "cannot go from %v to %v", f.GetPhase(), to)
	}
	f.Phase = to
	switch to {
	case pb.RunPhase_RUN_PHASE_COMPLETED, pb.RunPhase_RUN_PHASE_INCOMPLETE:
		f.CompletedAt = t.stamp()
	case pb.RunPhase_RUN_PHASE_RUNNING:
		f.CompletedAt = nil
	case pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_ABORTED, pb.RunPhase_RUN_PHASE_KEPT:
		f.EndedAt = t.stamp()
		t.touchPlacement()
	case pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_ABORTING:
		f.FailbackAt = t.stamp()
	default:
	}
	t.record(&pb.Evidence{Action: "run phase", Object: "failover/" + f.GetName(), Reason: model.PhaseName(to), Epoch: f.GetEpoch()})
	return nil
}

func (t *tx) changeStep(f *pb.Failover, s *pb.Step, ch *pb.StepChange) error {
	to := ch.GetPhase()
	if ch.GetResync() > 0 {
		return t.resync(f, s, ch)
	}
	if to == pb.StepPhase_STEP_PHASE_UNSPECIFIED && ch.GetMessage() != "" {
		s.Message = ch.GetMessage()
	}
	if to != pb.StepPhase_STEP_PHASE_UNSPECIFIED && to != s.GetPhase() {
		if !model.StepMayFollow(s.GetPhase(), to) {
			return model.Errorf(model.FaultStale, "failover/"+f.GetName(), "step %q cannot go from %v to %v", s.GetId(), s.GetPhase(), to)
		}
		switch to {
		case pb.StepPhase_STEP_PHASE_RELEASED:
			t.release(f, s)
			s.OpenedBy = ch.GetOpenedBy()
		case pb.StepPhase_STEP_PHASE_REVERTING:
			if err := t.revert(f, s); err != nil {
				return err
			}
		case pb.StepPhase_STEP_PHASE_DONE:
			s.Phase, s.DoneAt = to, t.stamp()
			s.CallBegan, s.CallReturned = ch.GetCallBegan(), ch.GetCallReturned()
			if s.GetWayBack() {
				t.record(&pb.Evidence{Action: "way back", Object: s.GetObject(), Reason: s.GetId(), Epoch: f.GetEpoch()})
			}
		case pb.StepPhase_STEP_PHASE_REVERTED:
			s.Phase, s.RevertedAt = to, t.stamp()
		default:
			s.Phase = to
		}
		s.Message = ch.GetMessage()
	}
	if ch.GetHealthy() && s.GetHealthyAt() == nil {
		s.HealthyAt = t.stamp()
	}
	return nil
}

func (t *tx) swear(c *pb.SwearRequest) (string, error) {
	f, err := t.failover(c.GetName())
	if err != nil {
		return "", err
	}
	key := "failover/" + f.GetName()
	if f.GetPhase() != pb.RunPhase_RUN_PHASE_RUNNING && f.GetPhase() != pb.RunPhase_RUN_PHASE_INCOMPLETE {
		return "", model.Errorf(model.FaultPrecondition, key, "is %s: an oath changes nothing now", model.PhaseName(f.GetPhase()))
	}
	sworn := 0
	for _, p := range f.GetPlans() {
		if c.GetPlan() != "" && c.GetPlan() != p.GetPlan() {
			continue
		}
		if !asksOath(f, p.GetPlan()) {
			continue
		}
		f.Oaths = append(f.Oaths, &pb.Oath{Plan: p.GetPlan(), Person: t.actor, Reason: c.GetReason(), At: t.stamp()})
		sworn++
	}
	if sworn == 0 {
		return "", model.Errorf(model.FaultPrecondition, key, "no step waits for an oath about plan %q", c.GetPlan()).
			WithRemedy("an oath counts for the plans of this failover whose fencing lists one")
	}
	t.putFailover(f)
	t.record(&pb.Evidence{Action: "swear", Object: key, Reason: c.GetReason(), Epoch: f.GetEpoch()})
	return f.GetName(), nil
}

// asksOath says whether any step has a gate that the oath about the plan opens.
func asksOath(f *pb.Failover, plan string) bool {
	for _, s := range f.GetSteps() {
		for _, g := range s.GetGates() {
			if slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return c.GetOath() == plan }) {
				return true
			}
		}
	}
	return false
}

var controlWords = map[pb.ControlAction]string{
	pb.ControlAction_CONTROL_ACTION_PAUSE: "pause", pb.ControlAction_CONTROL_ACTION_RESUME: "resume",
	pb.ControlAction_CONTROL_ACTION_RETRY: "retry", pb.ControlAction_CONTROL_ACTION_SKIP: "skip",
	pb.ControlAction_CONTROL_ACTION_ABORT: "abort",
}

func (t *tx) control(c *pb.ControlRequest) (string, error) {
	f, err := t.failover(c.GetName())
	if err != nil {
		return "", err
	}
	word, key := controlWords[c.GetAction()], "failover/"+f.GetName()
	if word == "" {
		return "", model.Errorf(model.FaultInvalid, key, "no action given").WithRemedy("use pause, resume, retry, skip or abort")
	}
	if !model.Allows(f.GetPhase(), word) {
		return "", model.Errorf(model.FaultPrecondition, key, "is %s: cannot %s", model.PhaseName(f.GetPhase()), word).WithRemedy("%s", possible(f))
	}
	if err := t.closed(f); err != nil && c.GetAction() == pb.ControlAction_CONTROL_ACTION_ABORT {
		return "", err
	}
	switch c.GetAction() {
	case pb.ControlAction_CONTROL_ACTION_PAUSE:
		err = t.changePhase(f, pb.RunPhase_RUN_PHASE_PAUSED)
	case pb.ControlAction_CONTROL_ACTION_RESUME:
		err = t.changePhase(f, pb.RunPhase_RUN_PHASE_RUNNING)
	case pb.ControlAction_CONTROL_ACTION_ABORT:
		err = t.abort(f)
	case pb.ControlAction_CONTROL_ACTION_RETRY:
		err = t.retry(f, c.GetStep())
	default:
		err = t.skip(f, c)
	}
	if err != nil {
		return "", err
	}
	t.putFailover(f)
	t.record(&pb.Evidence{Action: word, Object: key, Reason: c.GetReason(), Epoch: f.GetEpoch()})
	return f.GetName(), nil
}

// closed says that a run drains a host which is still closed: what it took back cannot return there.
func (t *tx) closed(f *pb.Failover) error {
	if h := f.GetDrainedHost(); h != "" && t.Host(h).GetCordoned() && t.Host(h).GetLostAt() == nil {
		return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(), "drains host %s, which is closed", h).
			WithRemedy("open it with: hotspare host uncordon %s", h)
	}
	return nil
}

// abort begins the way back; what was not released yet never will be.
func (t *tx) abort(f *pb.Failover) error {
	for _, s := range f.Steps {
		if s.GetKind() == pb.Kind_KIND_VOLUME && s.GetGeneration() > 0 {
			return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(),
				"%s was promoted: data may have been written here", s.GetObject()).
				WithRemedy("use failback, which asks what becomes of that data")
		}
	}
	t.dropPending(f)
	return t.changePhase(f, pb.RunPhase_RUN_PHASE_ABORTING)
}

func (t *tx) dropPending(f *pb.Failover) {
	for _, s := range f.Steps {
		if s.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING {
			s.Phase = pb.StepPhase_STEP_PHASE_SKIPPED
		}
	}
}

// retry releases failed steps again, with a new generation, so that the agent tries at once.
func (t *tx) retry(f *pb.Failover, step string) error {
	if model.Reverting(f.GetPhase()) {
		return t.retryBack(f, step)
	}
	n := 0
	for _, s := range f.Steps {
		if s.GetPhase() != pb.StepPhase_STEP_PHASE_FAILED || step != "" && s.GetId() != step {
			continue
		}
		t.release(f, s)
		t.reissue(s.GetObject())
		s.Generation, s.Retried = t.index, true
		n++
	}
	if n == 0 {
		return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(), "has no failed step%s", named(step))
	}
	if f.GetPhase() == pb.RunPhase_RUN_PHASE_INCOMPLETE {
		return t.changePhase(f, pb.RunPhase_RUN_PHASE_RUNNING)
	}
	return nil
}

// retryBack orders what is on its way back once more. On the way back nothing goes forward again.
func (t *tx) retryBack(f *pb.Failover, step string) error {
	n := 0
	for _, s := range f.Steps {
		ordered := s.GetPhase() == pb.StepPhase_STEP_PHASE_REVERTING || s.GetWayBack() && s.GetPhase() == pb.StepPhase_STEP_PHASE_RELEASED
		if !ordered || step != "" && s.GetId() != step {
			continue
		}
		t.reissue(s.GetObject())
		s.Generation = t.index
		n++
	}
	if n == 0 {
		return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(), "no step%s is on its way back", named(step))
	}
	return nil
}

// skip passes a failed step. A fence is never skipped: an oath is the way to vouch for it.
func (t *tx) skip(f *pb.Failover, c *pb.ControlRequest) error {
	key := "failover/" + f.GetName()
	i := slices.IndexFunc(f.Steps, func(s *pb.Step) bool { return s.GetId() == c.GetStep() })
	if i < 0 {
		return model.Errorf(model.FaultNotFound, key, "has no step %q", c.GetStep())
	}
	s := f.Steps[i]
	switch {
	case s.GetKind() == pb.Kind_KIND_FENCE:
		return model.Errorf(model.FaultPrecondition, key, "a fence cannot be skipped").
			WithRemedy("if the old side is dead, say so with: hotspare failover swear %s --reason ...", f.GetName())
	case s.GetPhase() != pb.StepPhase_STEP_PHASE_FAILED:
		return model.Errorf(model.FaultPrecondition, key, "step %q has not failed", s.GetId())
	case c.GetReason() == "":
		return model.Errorf(model.FaultInvalid, key, "skipping needs a reason").WithRemedy("add --reason")
	}
	s.Phase, s.Message = pb.StepPhase_STEP_PHASE_SKIPPED, "skipped by "+t.actor+": "+c.GetReason()
	if f.GetPhase() == pb.RunPhase_RUN_PHASE_INCOMPLETE {
		return t.changePhase(f, pb.RunPhase_RUN_PHASE_RUNNING)
	}
	return nil
}

func (t *tx) arm(c *pb.ArmRequest) (string, error) {
	key := "trigger/" + c.GetTrigger()
	r := t.Resource(key)
	if r == nil {
		return "", model.Errorf(model.FaultNotFound, key, "no such trigger").WithRemedy("see: hotspare get trigger")
	}
	r = edit(r)
	r.GetTrigger().Status = &pb.TriggerStatus{Disarmed: c.GetDisarm(), Reason: c.GetReason(), Since: t.stamp()}
	r.GetTrigger().GetMetadata().ResourceVersion = t.index
	t.resources.set(key, r)
	t.changed[key] = true
	action := "arm"
	if c.GetDisarm() {
		action = "disarm"
	}
	t.record(&pb.Evidence{Action: action, Object: key, Reason: c.GetReason()})
	return c.GetTrigger(), nil
}

// possible says what an operator can do with a run now.
func possible(f *pb.Failover) string {
	if actions := model.Actions(f.GetPhase()); len(actions) > 0 {
		return "possible now: " + strings.Join(actions, ", ")
	}
	return "it has ended: nothing can be done with it any more"
}

// named returns a step's name as the end of a sentence, or nothing.
func named(step string) string {
	if step == "" {
		return ""
	}
	return fmt.Sprintf(" %q", step)
}
