package state

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// failback begins the way back of a run, or changes one that carries data back over to discarding.
func (t *tx) failback(c *pb.Failback) (string, error) {
	f, err := t.failover(c.GetFailover())
	if err != nil {
		return "", err
	}
	key := "failover/" + f.GetName()
	if !model.Allows(f.GetPhase(), "failback") {
		return "", model.Errorf(model.FaultPrecondition, key, "is %s: cannot fail back", model.PhaseName(f.GetPhase())).WithRemedy("%s", possible(f))
	}
	if err := t.closed(f); err != nil {
		return "", err
	}
	if f.GetPhase() == pb.RunPhase_RUN_PHASE_FAILING_BACK {
		err = t.discard(f, c)
	} else {
		err = t.beginBack(f, c)
	}
	if err != nil {
		return "", err
	}
	t.putFailover(f)
	t.record(&pb.Evidence{Action: "failback", Object: key, Reason: c.GetReason(), Epoch: f.GetEpoch()})
	return f.GetName(), nil
}

func (t *tx) beginBack(f *pb.Failover, c *pb.Failback) error {
	for _, o := range c.GetOrders() {
		if s := stepOf(f, o.GetStep()); s != nil {
			s.BackAfter = o.GetAfter()
		}
	}
	for _, s := range f.GetSteps() {
		if model.MayBeWritten(f, s) && len(s.GetBackAfter()) == 0 && !c.GetDiscardRecoveryData() {
			return model.Errorf(model.FaultPrecondition, "failover/"+f.GetName(),
				"%s was promoted and the protected site does not hold what was written here", s.GetObject()).
				WithRemedy("add --discard-recovery-data to throw that away")
		}
	}
	f.DiscardRecoveryData = c.GetDiscardRecoveryData()
	t.dropPending(f)
	for _, o := range c.GetObjects() {
		if t.Object(o.GetId()) == nil {
			t.putObject(edit(o))
		}
	}
	for _, s := range c.GetSteps() {
		s = edit(s)
		s.Phase = pb.StepPhase_STEP_PHASE_PENDING
		if len(s.GetGates()) == 0 {
			t.release(f, s)
		}
		f.Steps = append(f.Steps, s)
	}
	return t.changePhase(f, pb.RunPhase_RUN_PHASE_FAILING_BACK)
}

// discard gives up what was not handed over yet. What was is at the protected site, and goes on.
func (t *tx) discard(f *pb.Failover, c *pb.Failback) error {
	key := "failover/" + f.GetName()
	if !c.GetDiscardRecoveryData() {
		return model.Errorf(model.FaultPrecondition, key, "is failing back already").WithRemedy("%s", possible(f))
	}
	var given []string
	for _, s := range f.GetSteps() {
		if model.MayBeWritten(f, s) && len(s.GetBackAfter()) > 0 && !handedOver(f, s) {
			given = append(given, s.GetObject())
			s.BackAfter = nil
		}
	}
	if len(given) == 0 {
		return model.Errorf(model.FaultPrecondition, key, "nothing is left to discard: every volume was handed over to the protected site").
			WithRemedy("wait; see: hotspare failover watch %s", f.GetName())
	}
	f.DiscardRecoveryData = true
	var dropped []string
	for _, s := range f.GetSteps() {
		if s.GetWayBack() && (slices.Contains(given, s.GetObject()) || t.standsOn(f, s, dropped, given)) {
			dropped = append(dropped, s.GetId())
			s.BackAfter = nil
			if s.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING {
				s.Phase, s.Message = pb.StepPhase_STEP_PHASE_SKIPPED, "what was written here is discarded, by "+t.actor
			}
		}
	}
	for _, s := range f.GetSteps() {
		s.BackAfter = slices.DeleteFunc(s.BackAfter, func(id string) bool { return slices.Contains(dropped, id) })
	}
	return nil
}

// handedOver says whether the protected site may have the volume already.
func handedOver(f *pb.Failover, s *pb.Step) bool {
	return slices.ContainsFunc(s.GetBackAfter(), func(id string) bool { return stepOf(f, id).GetGeneration() > 0 })
}

// standsOn says whether a step of the way back is of no use without those that were dropped, or serves
// only them.
func (t *tx) standsOn(f *pb.Failover, s *pb.Step, dropped, given []string) bool {
	for _, g := range s.GetGates() {
		if slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return slices.Contains(dropped, c.GetStepDone()) }) {
			return true
		}
	}
	return slices.ContainsFunc(f.GetSteps(), func(o *pb.Step) bool {
		return o.GetWayBack() && slices.Contains(given, o.GetObject()) && slices.Contains(o.GetAfter(), s.GetId())
	})
}

// resync begins a synchronisation of the way back anew: each of its steps gets the number, and those
// whose order is in force are ordered again.
func (t *tx) resync(f *pb.Failover, s *pb.Step, ch *pb.StepChange) error {
	v := s.GetSpec().GetVolume()
	if !s.GetWayBack() || v.GetResync() >= ch.GetResync() {
		return model.Errorf(model.FaultStale, "failover/"+f.GetName(), "step %q carries synchronisation %d already", s.GetId(), v.GetResync())
	}
	v.Resync = ch.GetResync()
	if v.GetConverged() > 0 {
		v.Converged = ch.GetResync()
	}
	if ch.GetPhase() == pb.StepPhase_STEP_PHASE_RELEASED {
		t.release(f, s)
		s.Message = ch.GetMessage()
	}
	return nil
}
