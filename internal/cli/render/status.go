package render

import (
	"fmt"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Status draws the site on one screen: the guarantee, capacity, plans, open runs, alarms.
func Status(s *pb.GetStatusResponse, width int, now time.Time) string {
	guarantee := s.GetGuarantee()
	if lasted := since(s.GetGuaranteeSince(), now); lasted != "" {
		guarantee += " for " + lasted
	}
	if s.GetGuaranteeReason() != "" {
		guarantee += ": " + s.GetGuaranteeReason()
	}
	view := fmt.Sprintf("verified, index %d", s.GetIndex())
	if s.GetAge().AsDuration() > 0 {
		view = fmt.Sprintf("STALE, up to %s old, index %d", Age(s.GetAge().AsDuration()), s.GetIndex())
	}
	hosts := fmt.Sprintf("%d of %d connected", s.GetHostsConnected(), s.GetHosts())
	if s.GetHostsConnected() < s.GetHosts() {
		hosts += fmt.Sprintf(", %d SILENT", s.GetHosts()-s.GetHostsConnected())
	}
	var b strings.Builder
	for line := range strings.Lines(fields(
		"guarantee", guarantee,
		"margin", marginText(s.GetMargins()),
		"weakest", s.GetWeakest(),
		"hosts", hosts,
		"lent", lentText(s.GetLent()),
		"members", membersText(s.GetMembers()),
		"view", view,
	)) {
		b.WriteString(fold(strings.TrimSuffix(line, "\n"), width, len("guarantee")+columnGap))
	}
	b.WriteString(section("PLANS", readinessTable(s.GetPlans(), inner(width), now)))
	if len(s.GetPlans()) == 0 {
		b.WriteString("\nPLANS\n  none: declare one with hotspare apply -f\n")
	}
	b.WriteString(section("OPEN RUNS", openTable(s.GetOpen(), inner(width), now)))
	var alarms strings.Builder
	for _, a := range s.GetAlarms() {
		alarms.WriteString(fold("! "+oneLine(a), inner(width), 2))
	}
	b.WriteString(section("ALARMS", alarms.String()))
	return b.String()
}

// inner is the width that a section's body may use; no limit stays no limit.
func inner(width int) int {
	if width == 0 {
		return 0
	}
	return max(1, width-2)
}

// fold breaks a line between words so that it fits; the following lines are indented.
func fold(s string, width, indent int) string {
	if width == 0 || len([]rune(s)) <= width {
		return s + "\n"
	}
	var b strings.Builder
	r := []rune(s)
	for len(r) > width {
		cut := width
		for i := width; i > indent+10 && i > width/2; i-- {
			if r[i] == ' ' {
				cut = i
				break
			}
		}
		b.WriteString(strings.TrimRight(string(r[:cut]), " ") + "\n")
		r = []rune(strings.Repeat(" ", min(indent, width/2)) + strings.TrimLeft(string(r[cut:]), " "))
	}
	b.WriteString(string(r) + "\n")
	return b.String()
}

func lentText(l *pb.Lent) string {
	s := fmt.Sprintf("%d of %d vCPU, %s of %s, %s", l.GetVcpus(), l.GetTotalVcpus(),
		model.ApproxBytes(l.GetMemoryBytes()), model.ApproxBytes(l.GetTotalMemoryBytes()), plural(int(l.GetInstances()), "instance"))
	if l.GetPreempted() > 0 {
		s += fmt.Sprintf(", %d preempted", l.GetPreempted())
	}
	if l.GetQueued() > 0 {
		s += fmt.Sprintf("; %s in the queue", plural(int(l.GetQueued()), "lease"))
	}
	return s
}

func membersText(ms []*pb.Member) string {
	leader := "NO LEADER"
	var names []string
	for _, m := range ms {
		names = append(names, m.GetName())
		if m.GetLeader() {
			leader = "leader " + m.GetName()
		}
	}
	return strings.Join(names, " ") + ", " + leader
}

func readinessTable(plans []*pb.Readiness, width int, now time.Time) string {
	if len(plans) == 0 {
		return ""
	}
	t := NewTable(2, "PLAN", "READY", "WHAT IS MISSING", "SINCE")
	for _, p := range plans {
		if len(p.GetObstacles()) == 0 {
			t.Row(p.GetPlan(), readyWord(p))
		}
		for i, o := range p.GetObstacles() {
			name, ready := p.GetPlan(), readyWord(p)
			if i > 0 {
				name, ready = " ", " "
			}
			t.Row(name, ready, obstacleText(o), since(o.GetSince(), now))
		}
	}
	return t.Text(width)
}

func readyWord(p *pb.Readiness) string {
	switch {
	case p.GetReady():
		return "yes"
	case p.GetFailover() != "":
		return "runs"
	default:
		return "NO"
	}
}

func obstacleText(o *pb.Obstacle) string {
	s := o.GetWhat()
	if o.GetObject() != "" {
		s = o.GetObject() + ": " + s
	}
	return s
}

func openTable(runs []*pb.Failover, width int, now time.Time) string {
	if len(runs) == 0 {
		return ""
	}
	t := NewTable(4, "NAME", "PHASE", "STEPS", "RUNNING", "PLANS", "NEXT")
	for _, f := range runs {
		t.Row(f.GetName(), Phase(f.GetPhase()), stepCount(f), since(f.GetDeclaredAt(), now), RunOf(f), nextVerb(f))
	}
	return t.Text(width)
}

// nextVerb names what an operator usually does next.
func nextVerb(f *pb.Failover) string {
	switch f.GetPhase() {
	case pb.RunPhase_RUN_PHASE_PAUSED:
		return "resume"
	case pb.RunPhase_RUN_PHASE_INCOMPLETE:
		return "retry or skip"
	case pb.RunPhase_RUN_PHASE_COMPLETED:
		if f.GetDrainedHost() != "" {
			return "host uncordon"
		}
		return "failback"
	default:
		return "watch"
	}
}

// Readiness draws what keeps a plan from being ready, with the remedies.
func Readiness(r *pb.Readiness, now time.Time) string {
	if r == nil {
		return ""
	}
	if r.GetReady() && len(r.GetObstacles()) == 0 {
		return "ready: this plan can be run now\n"
	}
	var b strings.Builder
	switch {
	case r.GetReady():
		b.WriteString("ready, but:\n")
	case r.GetFailover() != "":
		b.WriteString("RUNS HERE:\n")
	default:
		b.WriteString("NOT READY:\n")
	}
	for _, o := range r.GetObstacles() {
		line := "- " + oneLine(obstacleText(o))
		if s := since(o.GetSince(), now); s != "" {
			line += " (for " + s + ")"
		}
		b.WriteString(line + "\n")
		if o.GetRemedy() != "" {
			b.WriteString("  do: " + oneLine(o.GetRemedy()) + "\n")
		}
	}
	return b.String()
}
