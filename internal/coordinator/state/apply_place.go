package state

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// placeRun adds to an open run what it had left out. The steps that wait for it have been there from the
// start: they find it by its name.
func (t *tx) placeRun(c *pb.PlaceRun) (string, error) {
	f, err := t.failover(c.GetFailover())
	if err != nil {
		return "", err
	}
	key := "failover/" + f.GetName()
	if !model.Placing(f.GetPhase()) {
		return "", model.Errorf(model.FaultStale, key, "is %s: nothing is added to it", model.PhaseName(f.GetPhase()))
	}
	if err := t.addable(f, c); err != nil {
		return "", err
	}
	t.addPlaced(f, c)
	if err := t.changePhase(f, pb.RunPhase_RUN_PHASE_RUNNING); err != nil {
		return "", err
	}
	t.putFailover(f)
	t.touchPlacement()
	for _, p := range c.GetPlacements() {
		t.record(&pb.Evidence{Action: "place", Object: key, Reason: p.GetPlan() + "/" + p.GetWorkload() + " on " + p.GetHost(), Epoch: f.GetEpoch()})
	}
	return f.GetName(), nil
}

// addPlaced adds the objects, the leases that make room and the steps. A step that c releases starts at once.
func (t *tx) addPlaced(f *pb.Failover, c *pb.PlaceRun) {
	for _, o := range c.GetObjects() {
		if t.Object(o.GetId()) == nil {
			t.putObject(edit(o))
		}
	}
	for _, v := range c.GetVictims() {
		t.preempt(v.GetLease(), f.GetEpoch())
	}
	f.Placements = append(f.Placements, c.GetPlacements()...)
	f.Victims = append(f.Victims, c.GetVictims()...)
	f.Unplaced = c.GetUnplaced()
	f.Waiting = slices.DeleteFunc(f.Waiting, func(p *pb.Plan) bool {
		return !slices.ContainsFunc(f.GetUnplaced(), func(u *pb.Unplaced) bool { return u.GetPlan() == p.GetMetadata().GetName() })
	})
	for _, s := range c.GetSteps() {
		s = edit(s)
		s.Phase = pb.StepPhase_STEP_PHASE_PENDING
		if slices.Contains(c.GetRelease(), s.GetId()) {
			t.release(f, s)
		}
		f.Steps = append(f.Steps, s)
	}
}

// addable refuses what the run has already, placed or as a step.
func (t *tx) addable(f *pb.Failover, c *pb.PlaceRun) error {
	key := "failover/" + f.GetName()
	for _, p := range c.GetPlacements() {
		was := slices.ContainsFunc(f.GetUnplaced(), func(u *pb.Unplaced) bool {
			return u.GetPlan() == p.GetPlan() && u.GetWorkload() == p.GetWorkload()
		})
		if !was || t.Object(p.GetObject()) != nil {
			return model.Errorf(model.FaultStale, key, "%s/%s is placed already", p.GetPlan(), p.GetWorkload())
		}
	}
	for _, s := range c.GetSteps() {
		if slices.ContainsFunc(f.GetSteps(), func(o *pb.Step) bool { return o.GetId() == s.GetId() }) {
			return model.Errorf(model.FaultStale, key, "has the step %q already", s.GetId())
		}
	}
	return nil
}
