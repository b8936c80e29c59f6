package failover_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// TestAnyCourseEnds drives runs through random orders of completion, failures, reboots, elections and
// operators. When the trouble ends every run comes to rest, and after the failback nothing is left of it.
func TestAnyCourseEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := fixture.New(t, second, vault)
		w.Replicates = true
		w.Join("east1", &pb.AgentOffer{ProtectedSite: true, Pools: []string{"east"}})
		w.Quiesce()
		w.Lease(uint32(rapid.IntRange(1, 3).Draw(t, "count")), 2, uint64(rapid.IntRange(1, 40).Draw(t, "GiB"))<<30)
		w.Strict = true
		c := &course{t: t, w: w, gone: map[string]bool{}}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			c.event()
			c.check()
		}
		clear(w.Mute)
		clear(w.Stuck)
		clear(w.Sick)
		w.Reconnect("boot-1")
		w.Quiesce()
		c.check()
		c.finish()
	})
}

// course is one random course of events.
type course struct {
	t     *rapid.T
	w     *fixture.World
	boots int
	// gone are the steps that were seen on their way back, by the run's name and their id.
	gone map[string]bool
}

func (c *course) open() []string {
	var out []string
	for f := range c.w.State.OpenFailovers() {
		out = append(out, f.GetName())
	}
	return out
}

func (c *course) event() {
	t, w := c.t, c.w
	switch rapid.SampledFrom([]string{
		"declare", "controllers", "settle", "settle", "stick", "unstick", "sick", "time", "operator", "operator", "elect", "reboot", "lease", "mirror dies", "old VM",
	}).Draw(t, "event") {
	case "declare":
		plan := rapid.SampledFrom([]string{"webshop", "billing", "vault", "vault"}).Draw(t, "plan")
		if w.State.OpenFailoverOf(plan) == nil {
			w.Declare(plan)
		}
	case "controllers":
		w.Controllers()
	case "settle":
		w.Controllers()
		w.Settle()
	case "stick":
		w.Stuck[c.object()] = true
	case "unstick":
		clear(w.Stuck)
		clear(w.Sick)
	case "sick":
		w.Sick[c.object()] = true
	case "time":
		w.Now = w.Now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
		w.Controllers()
	case "elect":
		w.Elect()
		w.Controllers()
		w.Reconnect("boot-1")
	case "reboot":
		c.boots++
		w.Reconnect("boot-" + string(rune('a'+c.boots%20)))
		w.Controllers()
	case "lease":
		c.lease()
	case "mirror dies":
		for _, f := range c.open() {
			for _, st := range w.State.Failover(f).GetSteps() {
				if v := st.GetSpec().GetVolume(); st.GetId() == mirrorBack {
					w.Dead[st.GetObject()] = v.GetResync()
				}
			}
		}
	case "old VM":
		w.Off[sourceDB] = !w.Off[sourceDB]
	default:
		c.operator()
	}
}

func (c *course) object() string {
	var ids []string
	for o := range c.w.State.Objects() {
		ids = append(ids, o.GetId())
	}
	return rapid.SampledFrom(ids).Draw(c.t, "object")
}

// lease ends one lease, or brings it back: whether that is allowed is not the question here.
func (c *course) lease() {
	for l := range c.w.State.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED {
			c.w.Do("carol", &pb.Command{Body: &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: l.GetName()}}})
		} else {
			c.w.Do("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: &pb.EndLease{Lease: l.GetName(), Reason: "released"}}})
		}
		return
	}
}

// operator does anything to any open run; refusals are part of it.
func (c *course) operator() {
	open := c.open()
	if len(open) == 0 {
		return
	}
	name := rapid.SampledFrom(open).Draw(c.t, "run")
	switch what := rapid.IntRange(0, 9).Draw(c.t, "control"); what {
	case 8, 9:
		_ = c.w.CarryBack(name)
	case 6:
		_ = c.w.Swear(name)
	case 7:
		_ = c.w.Failback(name)
	default:
		step := ""
		if steps := c.w.State.Failover(name).GetSteps(); what == int(pb.ControlAction_CONTROL_ACTION_SKIP) && len(steps) > 0 {
			step = steps[rapid.IntRange(0, len(steps)-1).Draw(c.t, "step")].GetId()
		}
		_ = c.w.Control(name, pb.ControlAction(what), step)
	}
	c.w.Controllers()
}

// check holds after every event.
func (c *course) check() {
	roomOK(c.t, c.w)
	for f := range c.w.State.OpenFailovers() {
		byID := map[string]*pb.Step{}
		for _, s := range f.GetSteps() {
			byID[s.GetId()] = s
		}
		for _, s := range f.GetSteps() {
			c.promotion(f, s, byID)
			c.standing(f, s, byID)
			c.carried(f, s, byID)
		}
	}
	for l := range c.w.State.Leases() {
		if (l.GetPreemptedAt() == nil) != (len(l.GetPreemptedBy()) == 0) {
			c.t.Fatalf("lease %s: preempted by %v since %v", l.GetName(), l.GetPreemptedBy(), l.GetPreemptedAt())
		}
	}
}

// promotion is invariant 10: fenced or sworn before any volume of the plan is promoted.
func (c *course) promotion(f *pb.Failover, s *pb.Step, byID map[string]*pb.Step) {
	if s.GetKind() != pb.Kind_KIND_VOLUME || s.GetGeneration() == 0 {
		return
	}
	sworn := slices.ContainsFunc(f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == s.GetPlan() })
	if !sworn && byID[fence].GetDoneAt() == nil {
		c.t.Fatalf("%s: %q was released without fence or oath", f.GetName(), s.GetId())
	}
}

// carried: what was written here is dropped only after it was handed over, or by the word. What runs here
// begins to go only when every mirror is in sync; one that dies while it stops is begun anew.
func (c *course) carried(f *pb.Failover, s *pb.Step, byID map[string]*pb.Step) {
	gone := s.GetPhase() == reverting || s.GetPhase() == reverted
	if !gone || f.GetDiscardRecoveryData() || s.GetWayBack() || byID[mirrorBack] == nil {
		return
	}
	key := f.GetName() + " " + s.GetId()
	first := !c.gone[key]
	c.gone[key] = true
	for step, before := range map[string]string{promoteDB: handOver, startVault: mirrorBack} {
		if first && s.GetId() == step && byID[before].GetDoneAt() == nil {
			c.t.Fatalf("%s: %q went back before %q was done", f.GetName(), step, before)
		}
	}
	if s.GetId() == promoteDB && (byID[seal].GetDoneAt() == nil || byID[handOver].GetDoneAt().AsTime().Before(byID[seal].GetDoneAt().AsTime())) {
		c.t.Fatalf("%s: handed over before it was sealed", f.GetName())
	}
}

// standing: on the way back nothing goes before what stands on it.
func (c *course) standing(f *pb.Failover, s *pb.Step, byID map[string]*pb.Step) {
	if !model.Reverting(f.GetPhase()) || s.GetPhase() == pb.StepPhase_STEP_PHASE_REVERTED ||
		s.GetPhase() == pb.StepPhase_STEP_PHASE_SKIPPED && s.GetGeneration() == 0 {
		return
	}
	below := s.GetAfter()
	if !s.GetWayBack() {
		below = append(slices.Clone(below), gateSteps(s)...)
	}
	for _, below := range below {
		if p := byID[below].GetPhase(); p == pb.StepPhase_STEP_PHASE_REVERTING || p == pb.StepPhase_STEP_PHASE_REVERTED {
			c.t.Fatalf("%s: %q went back while %q stands on it (%v)", f.GetName(), below, s.GetId(), s.GetPhase())
		}
	}
}

// finish ends every run and checks that nothing of it is left.
func (c *course) finish() {
	w := c.w
	for _, name := range c.open() {
		if w.Phase(name) == pb.RunPhase_RUN_PHASE_PAUSED {
			if err := w.Control(name, pb.ControlAction_CONTROL_ACTION_RESUME, ""); err != nil {
				c.t.Fatalf("resume: %v", err)
			}
		}
		_ = w.Swear(name)
	}
	for range 4 {
		w.Wait(5 * time.Minute)
	}
	c.rest()
	w.Off[sourceDB] = true
	clear(w.Dead)
	for _, name := range c.open() {
		carry := rapid.Bool().Draw(c.t, "carry back")
		if carry && w.CarryBack(name) == nil || model.Reverting(w.Phase(name)) {
			continue
		}
		if err := w.Failback(name); err != nil {
			c.t.Fatalf("failback: %v", err)
		}
	}
	for range 4 {
		w.Wait(time.Minute)
	}
	if open := c.open(); len(open) > 0 {
		c.t.Fatalf("still open: %v\n%s", open, show(w.State.Failover(open[0])))
	}
	for f := range w.State.Failovers() {
		nothingLeft(c.t, w.State, f.GetEpoch())
	}
	roomOK(c.t, w)
	if cmds := failover.Advance(w.State, w.View, w.Now); len(cmds) > 0 {
		c.t.Fatalf("something is left to decide: %v", cmds)
	}
	w.CheckReplay()
}

// rest checks that every run came to rest, and is complete where nothing is in its way.
func (c *course) rest() {
	w := c.w
	for _, name := range c.open() {
		if p := w.Phase(name); p != completed && p != incomplete && p != failingBack {
			c.t.Fatalf("%s has not come to rest: %v\n%s", name, p, show(w.State.Failover(name)))
		}
		if p := w.Phase(name); p == incomplete && len(w.State.Failover(name).GetUnplaced()) == 0 {
			_ = w.Control(name, pb.ControlAction_CONTROL_ACTION_RETRY, "")
			w.Quiesce()
			if p := w.Phase(name); p != completed {
				c.t.Fatalf("%s is %v although nothing is in its way:\n%s", name, p, show(w.State.Failover(name)))
			}
		}
	}
}

func show(f *pb.Failover) string {
	out := ""
	for _, s := range f.GetSteps() {
		out += s.GetId() + " " + s.GetPhase().String() + " " + s.GetMessage() + "\n"
	}
	return out
}
