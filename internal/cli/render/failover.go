package render

import (
	"fmt"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Phase writes where a run stands: "running", "failing back".
func Phase(p pb.RunPhase) string { return word(p, "RUN_PHASE_") }

// StepPhase writes where a step stands: "done".
func StepPhase(p pb.StepPhase) string { return word(p, "STEP_PHASE_") }

// RunOf names what a run is about: its plans, or the host that it drains.
func RunOf(f *pb.Failover) string {
	if h := f.GetDrainedHost(); h != "" {
		return "drain of " + h
	}
	var out []string
	for _, p := range f.GetPlans() {
		out = append(out, p.GetPlan())
	}
	return strings.Join(out, " ")
}

// stepCount writes how many steps of the present direction are through: "12/30".
func stepCount(f *pb.Failover) string {
	done, all := 0, 0
	back := goesBack(f.GetPhase())
	for _, s := range f.GetSteps() {
		switch p := s.GetPhase(); {
		case s.GetWayBack() && !back:
			continue
		case s.GetWayBack():
			if model.StepWasDone(p) || p == pb.StepPhase_STEP_PHASE_SKIPPED {
				done++
			}
		case back && s.GetRevertingAt() == nil && p != pb.StepPhase_STEP_PHASE_REVERTED:
			continue
		case back && p == pb.StepPhase_STEP_PHASE_REVERTED:
			done++
		case !back && (p == pb.StepPhase_STEP_PHASE_DONE || p == pb.StepPhase_STEP_PHASE_SKIPPED):
			done++
		}
		all++
	}
	return fmt.Sprintf("%d/%d", done, all)
}

func goesBack(p pb.RunPhase) bool {
	switch p {
	case pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_FAILED_BACK,
		pb.RunPhase_RUN_PHASE_ABORTING, pb.RunPhase_RUN_PHASE_ABORTED:
		return true
	default:
		return false
	}
}

// Failovers draws the list of runs.
func Failovers(fs []*pb.Failover, width int, now time.Time) string {
	if len(fs) == 0 {
		return "no failovers\n"
	}
	t := NewTable(5, "NAME", "PHASE", "STEPS", "AGE", "BY", "REASON", "PLANS")
	for _, f := range fs {
		t.Row(f.GetName(), Phase(f.GetPhase()), stepCount(f), since(f.GetDeclaredAt(), now), f.GetDeclaredBy(), f.GetReason(), RunOf(f))
	}
	return t.Text(width)
}

// Failover describes one run: what was decided, what it costs whom, where each step stands. live is what the agents report now.
func Failover(f *pb.Failover, live []*pb.Status, width int, now time.Time) string {
	var b strings.Builder
	b.WriteString(fields(
		"failover", f.GetName(),
		"phase", Phase(f.GetPhase()),
		"plans", revisions(f),
		"reason", f.GetReason(),
		"declared", declaredText(f),
		"completed", at(f.GetCompletedAt()),
		"failback", at(f.GetFailbackAt()),
		"ended", at(f.GetEndedAt()),
		"took", tookText(f),
	))
	b.WriteString(Decision(f, width, now))
	for i, o := range f.GetOaths() {
		if i == 0 {
			b.WriteString("\nOATHS\n")
		}
		b.WriteString(fold(oneLine(fmt.Sprintf("  %s swore at %s that the old side of %s is dead: %q",
			o.GetPerson(), at(o.GetAt()), o.GetPlan(), o.GetReason())), width, 4))
	}
	b.WriteString(section("STEPS", steps(f, live, inner(width), now)))
	return b.String()
}

func revisions(f *pb.Failover) string {
	var out []string
	for _, p := range f.GetPlans() {
		out = append(out, fmt.Sprintf("%s (revision %d)", p.GetPlan(), p.GetRevision()))
	}
	return strings.Join(out, ", ")
}

func declaredText(f *pb.Failover) string {
	if f.GetDeclaredAt() == nil {
		return ""
	}
	s := at(f.GetDeclaredAt())
	if f.GetDeclaredBy() != "" {
		s += " by " + f.GetDeclaredBy()
	}
	if f.GetTrigger() != "" {
		s += " through trigger " + f.GetTrigger()
	}
	return s
}

func tookText(f *pb.Failover) string {
	if f.GetCompletedAt() == nil {
		return ""
	}
	return Seconds(f.GetCompletedAt().AsTime().Sub(f.GetDeclaredAt().AsTime())) + " from declared to completed"
}

// Decision draws what a run decided: where workloads go, what has no room, who is preempted, and what
// promoting loses. It is what a dry run shows.
func Decision(f *pb.Failover, width int, now time.Time) string {
	var b strings.Builder
	if len(f.GetPlacements()) > 0 {
		t := NewTable(0, "WORKLOAD", "HOST")
		for _, p := range f.GetPlacements() {
			t.Row(p.GetPlan()+"/"+p.GetWorkload(), p.GetHost())
		}
		b.WriteString(section("WORKLOADS", t.Text(inner(width))))
	}
	if len(f.GetUnplaced()) > 0 {
		t := NewTable(1, "WORKLOAD", "WHY")
		for _, u := range f.GetUnplaced() {
			t.Row(u.GetPlan()+"/"+u.GetWorkload(), u.GetReason())
		}
		b.WriteString(section("NO ROOM FOR", t.Text(inner(width))))
	}
	if len(f.GetVictims()) > 0 {
		t := NewTable(4, "LEASE", "HOST", "ACTION", "PRICE", "WHY", "INSTANCE")
		for _, v := range f.GetVictims() {
			t.Row(v.GetLease(), v.GetHost(), model.ReclaimActionName(v.GetAction()), price(v.GetCost()), v.GetReason(), model.ObjectID(v.GetObject()).Name())
		}
		b.WriteString(section("PREEMPTED", t.Text(inner(width))))
	}
	if len(f.GetLosses()) > 0 {
		b.WriteString(section("DATA LOST BY PROMOTING", losses(f, inner(width), now)))
	}
	return b.String()
}

// price words what taking a victim costs, in minutes.
func price(cost uint64) string { return Age(time.Duration(min(cost, maxPrice)) * time.Minute) }

// maxPrice keeps a price that was never one from overflowing: 100 years in minutes.
const maxPrice = 100 * 366 * 24 * 60

func losses(f *pb.Failover, width int, now time.Time) string {
	reference := now
	if f.GetDeclaredAt() != nil {
		reference = f.GetDeclaredAt().AsTime()
	}
	t := NewTable(0, "VOLUME", "AT MOST", "LAST CONSISTENT POINT")
	for _, l := range f.GetLosses() {
		if l.GetPoint() == nil {
			t.Row(l.GetVolume(), "UNKNOWN", "none: cannot be promoted without an oath")
			continue
		}
		t.Row(l.GetVolume(), Seconds(reference.Sub(l.GetPoint().AsTime())), at(l.GetPoint()))
	}
	return t.Text(width)
}

func steps(f *pb.Failover, live []*pb.Status, width int, now time.Time) string {
	if len(f.GetSteps()) == 0 {
		return ""
	}
	reported := byObject(live)
	t := NewTable(4, "STEP", "PHASE", "BEGIN", "TOOK", "MESSAGE")
	for _, s := range timeLine(f, GanttOptions{Now: now, Back: goesBack(f.GetPhase())}) {
		begin, took := "", ""
		if s.begun {
			begin, took = Seconds(s.released), Seconds(s.end-s.released)
		}
		t.Row(s.step.GetId(), StepPhase(s.step.GetPhase()), begin, took, stepMessage(s.step, reported[s.step.GetObject()]))
	}
	return t.Text(width)
}

func byObject(live []*pb.Status) map[string]*pb.Status {
	reported := make(map[string]*pb.Status, len(live))
	for _, s := range live {
		reported[s.GetObject()] = s
	}
	return reported
}

// awaitsHealth says whether a step's VM runs and was not seen healthy yet.
func awaitsHealth(s *pb.Step) bool {
	return s.GetPhase() == pb.StepPhase_STEP_PHASE_DONE && s.GetSpec().GetInstance().GetHealth() != nil && s.GetHealthyAt() == nil
}

// healthText says what the probe of a VM sees that is not healthy yet: only the cause, which comes last, as lines are short.
func healthText(live *pb.Status) string {
	m := live.GetInstance().GetHealthMessage()
	switch {
	case live == nil:
		return "no report yet"
	case m == "":
		return "not healthy yet"
	}
	return "probe: " + m[strings.LastIndex(": "+m, ": "):]
}

// stepMessage says why a step stands where it stands.
func stepMessage(s *pb.Step, live *pb.Status) string {
	if awaitsHealth(s) {
		return healthText(live)
	}
	if s.GetMessage() != "" {
		return s.GetMessage()
	}
	if s.GetPhase() != pb.StepPhase_STEP_PHASE_PENDING {
		return ""
	}
	var gates []string
	for _, g := range s.GetGates() {
		var any []string
		for _, c := range g.GetAnyOf() {
			any = append(any, conditionText(c))
		}
		gates = append(gates, strings.Join(any, " or "))
	}
	if len(gates) == 0 {
		return ""
	}
	return "waits for " + strings.Join(gates, "; ")
}

func conditionText(c *pb.Condition) string {
	switch v := c.GetCondition().(type) {
	case *pb.Condition_StepDone:
		return v.StepDone
	case *pb.Condition_StepFailed:
		return v.StepFailed + " failed"
	case *pb.Condition_Oath:
		return "an oath for " + v.Oath
	case *pb.Condition_StepHealthy:
		return v.StepHealthy + " healthy"
	case *pb.Condition_WorkloadHealthy:
		return v.WorkloadHealthy + " healthy"
	case *pb.Condition_StepReverted:
		return v.StepReverted + " taken back"
	case *pb.Condition_WriterOff:
		return "the VM of " + v.WriterOff + " off"
	default:
		return "?"
	}
}

// maxProgressLines bounds the steps that a live view shows, so that it fits a small terminal.
const maxProgressLines = 14

// Progress draws a running failover for a terminal that is redrawn: one head line, what runs now, what
// failed.
func Progress(f *pb.Failover, live []*pb.Status, width int, now time.Time) string {
	var b strings.Builder
	clock := f.GetDeclaredAt()
	back := goesBack(f.GetPhase())
	if back && f.GetFailbackAt() != nil {
		clock = f.GetFailbackAt()
	}
	elapsed := time.Duration(0)
	if clock != nil {
		elapsed = now.Sub(clock.AsTime())
	}
	b.WriteString(fold(fmt.Sprintf("%s %s: %s, %s steps, %s", f.GetName(), RunOf(f), Phase(f.GetPhase()), stepCount(f), Seconds(elapsed)), width, 2))
	reported := byObject(live)
	t := NewTable(3, "STEP", "PHASE", "FOR", "NOW")
	hidden := 0
	for _, s := range timeLine(f, GanttOptions{Now: now, Back: back}) {
		p := s.step.GetPhase()
		if !s.begun || s.finished && p != pb.StepPhase_STEP_PHASE_FAILED {
			continue
		}
		if t.Len() >= maxProgressLines {
			hidden++
			continue
		}
		t.Row(s.step.GetId(), StepPhase(p), Seconds(s.end-s.released), liveText(s.step, reported[s.step.GetObject()]))
	}
	if t.Len() > 0 {
		b.WriteString(t.Text(width))
	}
	if hidden > 0 {
		fmt.Fprintf(&b, "and %s more\n", plural(hidden, "step"))
	}
	return b.String()
}

func liveText(st *pb.Step, s *pb.Status) string {
	switch {
	case awaitsHealth(st):
		return healthText(s)
	case st.GetMessage() != "":
		return st.GetMessage()
	case s == nil:
		return "no report yet"
	case s.GetMessage() != "":
		return s.GetMessage()
	default:
		return word(s.GetPhase(), "PHASE_")
	}
}

// StepLine says in one line how a step changed, for output that is not redrawn; nothing while a run goes
// back and the step does not yet.
func StepLine(f *pb.Failover, st *pb.Step, now time.Time) string {
	zero := f.GetDeclaredAt()
	if goesBack(f.GetPhase()) {
		begun := st.GetRevertingAt() != nil
		if st.GetWayBack() {
			begun = st.GetReleasedAt() != nil && !begun // That its order ends is no news.
		}
		if !begun && st.GetPhase() != pb.StepPhase_STEP_PHASE_FAILED {
			return ""
		}
		if f.GetFailbackAt() != nil {
			zero = f.GetFailbackAt()
		}
	}
	when, what := now, StepPhase(st.GetPhase())
	switch st.GetPhase() {
	case pb.StepPhase_STEP_PHASE_RELEASED:
		when = stampOr(st.GetReleasedAt(), now)
	case pb.StepPhase_STEP_PHASE_DONE:
		when = stampOr(st.GetDoneAt(), now)
		if st.GetHealthyAt() != nil {
			when, what = st.GetHealthyAt().AsTime(), "healthy"
		}
	case pb.StepPhase_STEP_PHASE_REVERTING:
		when = stampOr(st.GetRevertingAt(), now)
	case pb.StepPhase_STEP_PHASE_REVERTED:
		when = stampOr(st.GetRevertedAt(), now)
	default: // nothing is stamped: it was just seen
	}
	elapsed := time.Duration(0)
	if zero != nil {
		elapsed = when.Sub(zero.AsTime())
	}
	line := fmt.Sprintf("%8s  %-9s  %s", Seconds(elapsed), what, oneLine(st.GetId()))
	if st.GetMessage() != "" {
		line += ": " + oneLine(st.GetMessage())
	}
	return line + "\n"
}
