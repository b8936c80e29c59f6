package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// forwardLimit is more than the longest chain of timeouts and retries of a run.
	forwardLimit = 40 * time.Minute
	backLimit    = 30 * time.Minute
)

// heal ends all faults, lets every run come to its end, and lets everything go back.
func (s *sim) heal() {
	s.logf("=== healing")
	s.healing, s.misbehave = true, 0
	for _, a := range s.agents {
		s.healLink(a)
		a.dieIn = 0
	}
	for _, m := range s.members {
		m.restart()
		m.cutOff = m.cutOff && m.leads // It learns soon that it does not lead any more.
	}
	s.world.old.reach = true
	s.run(s.now + 2*verifyLimit)
	for _, m := range s.members {
		m.cutOff = false
	}
	s.bringBack()
	retries := map[string]int{}
	s.await("every run to come to its end", forwardLimit, func() string { return s.forward(retries) })
	s.oldSiteReturns()
	s.bringBack()
	for _, name := range s.site.hosts {
		if len(s.state.Host(name).GetAnnounced()) > 0 {
			s.must(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: name, Action: "cancel-drain"}}})
		}
		if failover.DrainOf(s.state, name) != nil {
			s.must(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: name, Action: "uncordon"}}})
		}
	}
	s.await("every run to go back", backLimit, s.backward)
	s.world.startOld() // Nobody waits for a way back any more.
	for _, name := range s.site.hosts {
		if s.state.Host(name).GetCordoned() {
			s.must(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: name, Action: "uncordon"}}})
		}
	}
	s.await("everything to settle", 15*time.Minute, s.unsettled)
	// The call of an agent that died may take effect after another has read the object as settled: the
	// next reading finds it, and it is mended then.
	s.run(s.now + rereadAll)
	s.await("everything to be read again and to settle", 15*time.Minute, s.unsettled)
}

// rereadAll is longer than any object waits for its next reading.
const rereadAll = 90 * time.Second

// bringBack turns on what is off.
func (s *sim) bringBack() {
	for _, a := range s.agents {
		switch {
		case a.name == oldAgent && !s.world.old.alive:
		case !a.up:
			a.boot()
		default:
			a.start()
		}
	}
}

// forward does what operators do until no run moves any more, and says which one still does. A run
// that ends incomplete was tried again a few times.
func (s *sim) forward(retries map[string]int) string {
	const maxRetries = 3
	var busy []string
	for f := range s.state.OpenFailovers() {
		switch f.GetPhase() {
		case pb.RunPhase_RUN_PHASE_PAUSED:
			s.control(f, pb.ControlAction_CONTROL_ACTION_RESUME, "")
			busy = append(busy, f.GetName()+" is paused")
		case pb.RunPhase_RUN_PHASE_RUNNING:
			for _, p := range f.GetPlans() {
				if waitsForOath(f, p.GetPlan()) {
					s.swearDead(f, p.GetPlan())
				}
			}
			if !s.waitsForOther(f) {
				busy = append(busy, f.GetName()+": "+describeRun(f))
			}
		case pb.RunPhase_RUN_PHASE_INCOMPLETE:
			failed := slices.ContainsFunc(f.GetSteps(), func(st *pb.Step) bool { return st.GetPhase() == pb.StepPhase_STEP_PHASE_FAILED })
			if failed && retries[f.GetName()] < maxRetries {
				retries[f.GetName()]++
				s.control(f, pb.ControlAction_CONTROL_ACTION_RETRY, "")
				busy = append(busy, f.GetName()+" is tried again")
			}
		default:
		}
	}
	return strings.Join(busy, "; ")
}

// waitsForOath says whether a step of the plan could go on with an oath that nobody has sworn.
func waitsForOath(f *pb.Failover, plan string) bool {
	if slices.ContainsFunc(f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == plan }) {
		return false
	}
	return slices.ContainsFunc(f.GetSteps(), func(st *pb.Step) bool {
		return st.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING && slices.ContainsFunc(st.GetGates(), func(g *pb.Gate) bool {
			return slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return c.GetOath() == plan })
		})
	})
}

// waitsForOther says whether all that is left of a run waits for the health of a workload in another
// run, which has come to rest without it. Somebody has to act there.
func (s *sim) waitsForOther(f *pb.Failover) bool {
	waits := false
	for _, st := range f.GetSteps() {
		if st.GetPhase() == pb.StepPhase_STEP_PHASE_RELEASED {
			return false
		}
		for _, g := range st.GetGates() {
			plan, _, _ := strings.Cut(g.GetAnyOf()[0].GetWorkloadHealthy(), "/")
			other := s.state.OpenFailoverOf(plan)
			// One that goes back may itself wait for this one, which holds the fence of its old side.
			waits = waits || other != nil && (other.GetPhase() == pb.RunPhase_RUN_PHASE_INCOMPLETE || model.Reverting(other.GetPhase()))
		}
	}
	return waits
}

// backward fails back what is open, and says what still is. An old VM that runs although its plan was
// sworn dead is turned off: its disk comes back.
func (s *sim) backward() string {
	var open strings.Builder
	for f := range s.state.OpenFailovers() {
		if !model.Reverting(f.GetPhase()) {
			s.failBack(f.GetName(), s.chance(0.2))
		}
		for _, st := range f.GetSteps() {
			domain := st.GetSpec().GetVolume().GetDomain()
			if vm := s.world.old.vms[domain]; vm != nil && vm.running && st.GetWayBack() && st.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING {
				s.logf("people turn old %s off", domain)
				s.world.stopOld(vm)
			}
		}
		open.WriteString(f.GetName() + ": " + describeRun(f) + s.describeObjects(f))
	}
	return open.String()
}

func describeRun(f *pb.Failover) string {
	var out strings.Builder
	out.WriteString(model.PhaseName(f.GetPhase()))
	for _, st := range f.GetSteps() {
		fmt.Fprintf(&out, " [%s %s %s]", st.GetId(), strings.TrimPrefix(st.GetPhase().String(), "STEP_PHASE_"), st.GetMessage())
	}
	return out.String()
}

func (s *sim) describeObjects(f *pb.Failover) string {
	var out strings.Builder
	for _, st := range f.GetSteps() {
		if o := s.state.Object(st.GetObject()); o != nil {
			out.WriteString("\n  " + s.describeObject(o))
		}
	}
	return out.String()
}

func (s *sim) describeObject(o *pb.Object) string {
	seen := "unseen"
	if m := s.raft.leader; m != nil {
		st := m.view.Raw(o.GetId())
		seen = fmt.Sprintf("seen gen %d %s %v %q", st.GetGeneration(), model.StateName(st.GetState()), st.GetPhase(), st.GetMessage())
	}
	return fmt.Sprintf("%s gen %d wants %s of %d overrides, %s", o.GetId(), o.GetGeneration(),
		model.StateName(model.Effective(o).GetState()), len(o.GetOverrides()), seen)
}

// unsettled names what is not as it should be yet.
func (s *sim) unsettled() string {
	m := s.raft.leader
	if m == nil || !m.leads {
		return "there is no leader"
	}
	n := 0
	for o := range m.st.Objects() {
		n++
		if !m.view.Agent(o.GetAgent()).Connected {
			return "agent " + o.GetAgent() + " is not connected"
		}
		if !m.view.Settled(o) {
			return s.describeObject(o)
		}
		if o.GetBase().GetState() == pb.State_STATE_ABSENT {
			return o.GetId() + " is not forgotten"
		}
		if st := m.view.Current(o); o.GetBase().GetVolume().GetMirrorTo() != "" && !st.GetVolume().GetInSync() {
			return o.GetId() + " is not in sync"
		}
		if o.GetBase().GetState() == pb.State_STATE_REPLICA && m.view.Current(o).GetVolume().GetPoint() == nil {
			return o.GetId() + " has no consistent point"
		}
	}
	for l := range m.st.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_RETURNING || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_PREEMPTED {
			return "lease " + l.GetName() + " is " + l.GetPhase().String()
		}
	}
	if n == 0 {
		return "there are no objects"
	}
	return ""
}
