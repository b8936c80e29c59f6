package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func stampOr(t *timestamppb.Timestamp, otherwise time.Time) time.Time {
	if t == nil {
		return otherwise
	}
	return t.AsTime()
}

// Resources draws the list of declared resources of one kind.
func Resources(kind model.ResourceKind, rs []*pb.Resource, width int, wide bool) string {
	if len(rs) == 0 {
		return fmt.Sprintf("no %ss\n", kind)
	}
	header := []string{"NAME", "WHAT"}
	if wide {
		header = append(header, "REVISION", "LABELS")
	}
	t := NewTable(1, header...)
	for _, r := range rs {
		m := model.MetadataOf(r)
		t.Row(m.GetName(), resourceText(r), fmt.Sprint(m.GetRevision()), labelText(m.GetLabels()))
	}
	return t.Text(width)
}

func labelText(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	return strings.Join(sorted(out), ",")
}

// resourceText says in a few words what a resource declares.
func resourceText(r *pb.Resource) string {
	switch v := r.GetResource().(type) {
	case *pb.Resource_Plan:
		return planText(v.Plan.GetSpec())
	case *pb.Resource_Project:
		s := v.Project.GetSpec()
		q := s.GetQuota()
		if q == nil {
			return "no quota, network " + s.GetNetwork()
		}
		return fmt.Sprintf("quota %s vCPU, %s, %s VMs, network %s", bound(uint64(q.GetVcpus())), boundBytes(q.GetMemoryBytes()), bound(uint64(q.GetInstances())), s.GetNetwork())
	case *pb.Resource_Network:
		s := v.Network.GetSpec()
		return strings.TrimSpace(fmt.Sprintf("%s, bridge %s %s", word(s.GetRole(), "NETWORK_ROLE_"), s.GetBridge(), s.GetSubnet()))
	case *pb.Resource_Pool:
		return fmt.Sprintf("agent %s, exports at %s", v.Pool.GetSpec().GetAgent(), v.Pool.GetSpec().GetExportAddress())
	case *pb.Resource_Image:
		return strings.TrimSpace(v.Image.GetSpec().GetKernel() + " " + v.Image.GetSpec().GetDisk())
	case *pb.Resource_FenceTarget:
		return "agent " + v.FenceTarget.GetSpec().GetAgent()
	case *pb.Resource_Trigger:
		return triggerText(v.Trigger)
	case *pb.Resource_Host:
		s := v.Host.GetSpec()
		return fmt.Sprintf("failure domain %s, overcommit %g, reserve %s", orDash(s.GetFailureDomain()), max(1, s.GetOvercommit()), model.FormatBytes(s.GetReserveMemoryBytes()))
	case *pb.Resource_RoleBinding:
		return v.RoleBinding.GetSpec().GetRole() + ": " + strings.Join(v.RoleBinding.GetSpec().GetUsers(), " ")
	case *pb.Resource_Scenario:
		return scenarioText(v.Scenario.GetSpec())
	default:
		return ""
	}
}

func scenarioText(s *pb.ScenarioSpec) string {
	plans := strings.Join(s.GetPlans(), " ")
	if len(s.GetSelector()) > 0 {
		plans = strings.TrimSpace(plans + " " + labelText(s.GetSelector()))
	}
	return fmt.Sprintf("plans %s, survives %d hosts, %d failure domains", orDash(plans), s.GetTolerate().GetHosts(), s.GetTolerate().GetFailureDomains())
}

func planText(s *pb.PlanSpec) string {
	instances := 0
	for _, w := range s.GetWorkloads() {
		instances += int(max(1, w.GetReplicas()))
	}
	text := fmt.Sprintf("rank %d, %s, %s", s.GetRank(), plural(len(s.GetWorkloads()), "workload"), plural(instances, "VM"))
	if s.GetRtoTarget() != nil {
		text += ", RTO target " + model.FormatDuration(s.GetRtoTarget().AsDuration())
	}
	if s.GetRpoTarget() != nil {
		text += ", RPO target " + model.FormatDuration(s.GetRpoTarget().AsDuration())
	}
	return text
}

func triggerText(t *pb.Trigger) string {
	s := "armed"
	if t.GetStatus().GetDisarmed() {
		s = "DISARMED"
		if t.GetStatus().GetReason() != "" {
			s += " (" + t.GetStatus().GetReason() + ")"
		}
	}
	return s + ", declares " + strings.Join(t.GetSpec().GetPlans(), " ")
}

// Trigger says in one line where a trigger stands.
func Trigger(t *pb.Trigger) string {
	return fmt.Sprintf("trigger %s: %s\n", t.GetMetadata().GetName(), oneLine(triggerText(t)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func bound(n uint64) string {
	if n == 0 {
		return "any"
	}
	return fmt.Sprint(n)
}

func boundBytes(n uint64) string {
	if n == 0 {
		return "any memory"
	}
	return model.FormatBytes(n)
}

// Hosts draws the list of hosts and agents.
func Hosts(hs []*pb.Host, width int, wide bool, now time.Time) string {
	if len(hs) == 0 {
		return "no hosts: enrol one with hotspare agent token create --host NAME\n"
	}
	header := []string{"NAME", "STATE", "FOR", "LENT+PROT", "VCPU", "MEMORY", "OFFERS"}
	if wide {
		header = append(header, "FAILURE DOMAIN", "DISK", "DEVICES", "JOINED")
	}
	t := NewTable(6, header...)
	for _, h := range hs {
		vcpus, memory, disk := "", "", ""
		if h.GetOffer().GetHypervisor() {
			vcpus, memory = fmt.Sprint(h.GetCapacity().GetVcpus()), model.ApproxBytes(h.GetCapacity().GetMemoryBytes())
			disk = strings.Join(append([]string{model.ApproxBytes(h.GetCapacity().GetDiskBytes())}, localPools(h.GetCapacity().GetLocalDisksBytes(), model.ApproxBytes)...), " ")
		}
		t.Row(h.GetName(), hostState(h), since(h.GetLive().GetSince(), now),
			fmt.Sprintf("%d+%d", h.GetLive().GetLentInstances(), h.GetLive().GetProtectedInstances()), vcpus, memory, offerText(h.GetOffer()),
			h.GetPolicy().GetFailureDomain(), disk, strings.Join(devices(h.GetCapacity().GetDevices()), " "), at(h.GetJoinedAt()))
	}
	return t.Text(width)
}

func hostState(h *pb.Host) string {
	s := h.GetLive().GetSession()
	if s == "" {
		s = "unknown"
	}
	if s == "silent" {
		s = "SILENT"
	}
	if h.GetQuarantined() {
		s += ",QUARANTINED"
	}
	switch l := h.GetLive(); {
	case l.GetDrained():
		s += ",drained"
	case l.GetDrain() != "":
		s += ",draining"
	case h.GetCordoned():
		s += ",cordoned"
	case l.GetOverdue() != "":
		s += ",drain OVERDUE"
	}
	if h.GetLive().GetAtRisk() != "" {
		s += ",AT RISK"
	}
	return s
}

// localPools lists disks in them with their sizes: "disk/ssd=1TiB".
func localPools(disks map[string]uint64, size func(uint64) string) (out []string) {
	for _, pool := range slices.Sorted(maps.Keys(disks)) {
		out = append(out, "disk/"+pool+"="+size(disks[pool]))
	}
	return out
}

// devices lists them with their numbers: "a100=2".
func devices(d map[string]uint32) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(d)) {
		out = append(out, fmt.Sprintf("%s=%d", name, d[name]))
	}
	return out
}

func offerText(o *pb.AgentOffer) string {
	var out []string
	if o.GetHypervisor() {
		out = append(out, "VMs")
	}
	for _, group := range []struct {
		word  string
		names []string
	}{{"pool", o.GetPools()}, {"zone", o.GetZones()}, {"fence", o.GetFenceTargets()}} {
		for _, n := range group.names {
			out = append(out, group.word+" "+n)
		}
	}
	if o.GetProtectedSite() {
		out = append(out, "protected site")
	}
	return strings.Join(out, ", ")
}

// HostChange says what became of a host, or with dryRun what would, and whose VMs are taken back for it.
func HostChange(r *pb.UpdateHostResponse, name, done string, dryRun bool, width int, now time.Time) string {
	f := &pb.Failover{Victims: r.GetVictims()}
	if dryRun {
		text := fmt.Sprintf("host %s would be %s; the guarantee is %s, and would be %s\n", name, done, Proof(r.GetBefore()), Proof(r.GetAfter()))
		return "dry run, nothing was changed\n" + fold(strings.TrimSuffix(text, "\n"), width, 0) + Decision(f, width, now)
	}
	text := fmt.Sprintf("host %s %s\n", name, done)
	if run := r.GetHost().GetLive().GetDrain(); run != "" && !r.GetHost().GetLive().GetDrained() {
		text = fmt.Sprintf("host %s is being %s; follow it with: hotspare failover watch %s\n", name, done, run)
	}
	if r.GetHost() != nil {
		text += Host(r.GetHost(), now)
	}
	return text + Decision(f, width, now)
}

// Host describes one host.
func Host(h *pb.Host, now time.Time) string {
	c := h.GetCapacity()
	capacity := ""
	if h.GetOffer().GetHypervisor() {
		capacity = fmt.Sprintf("%d vCPU, %s memory, %s disk", c.GetVcpus(), model.ApproxBytes(c.GetMemoryBytes()), model.ApproxBytes(c.GetDiskBytes()))
		if len(c.GetLocalDisksBytes()) > 0 {
			capacity += ", " + strings.Join(localPools(c.GetLocalDisksBytes(), model.ApproxBytes), " ")
		}
		if len(c.GetDevices()) > 0 {
			capacity += ", " + strings.Join(devices(c.GetDevices()), " ")
		}
		if n := c.GetSaveBytesPerSecond(); n > 0 {
			capacity += ", saves " + model.ApproxBytes(n) + " a second"
		}
		if c.GetForeignVcpus() > 0 || c.GetForeignMemoryBytes() > 0 {
			capacity += fmt.Sprintf("; others use %d vCPU, %s", c.GetForeignVcpus(), model.ApproxBytes(c.GetForeignMemoryBytes()))
		}
	}
	sinceText := since(h.GetLive().GetSince(), now)
	state := hostState(h)
	if sinceText != "" {
		state += " for " + sinceText
	}
	cordon := at(h.GetCordonedUntil())
	if h.GetUsesTolerance() {
		cordon += ", uses up tolerance"
	}
	var announced []string
	for _, d := range h.GetAnnounced() {
		announced = append(announced, at(d.GetStart())+" to "+at(d.GetEnd()))
	}
	return fields("host", h.GetName(), "state", state, "at risk", h.GetLive().GetAtRisk(), "drained by", h.GetLive().GetDrain(), "to be drained", strings.Join(announced, ", "), "overdue", h.GetLive().GetOverdue(), "cordoned until", cordon, "capacity", capacity, "cpu class", c.GetCpuClass(),
		"offers", offerText(h.GetOffer()), "joined", at(h.GetJoinedAt()), "journal", h.GetJournalId())
}

// Objects draws the objects of the site with what is seen of them.
func Objects(os []*pb.ObjectView, width int, wide bool) string {
	if len(os) == 0 {
		return "no objects\n"
	}
	header := []string{"OBJECT", "AGENT", "WANTED", "SEEN", "PHASE", "MESSAGE"}
	if wide {
		header = append(header, "GENERATION", "OVERRIDES")
	}
	t := NewTable(5, header...)
	for _, v := range os {
		o, s := v.GetObject(), v.GetStatus()
		seen, message := "unknown", s.GetMessage()
		if s != nil {
			seen = strings.ToLower(model.StateName(s.GetState()))
		}
		if message == "" {
			message = s.GetNote()
		}
		var epochs []string
		for _, ov := range o.GetOverrides() {
			epochs = append(epochs, fmt.Sprintf("epoch %d", ov.GetEpoch()))
		}
		t.Row(o.GetId(), o.GetAgent(), strings.ToLower(model.StateName(model.Effective(o).GetState())), seen,
			word(s.GetPhase(), "PHASE_"), message, fmt.Sprint(o.GetGeneration()), strings.Join(epochs, ","))
	}
	return t.Text(width)
}

// Evidence draws entries of the log of decisions.
func Evidence(es []*pb.Evidence, width int) string {
	if len(es) == 0 {
		return "no entries\n"
	}
	t := NewTable(5, "NO", "TIME", "WHO", "DID", "TO", "WHY")
	for _, e := range es {
		t.Row(fmt.Sprint(e.GetSequence()), at(e.GetTime()), e.GetActor(), e.GetAction(), e.GetObject(), e.GetReason())
	}
	return t.Text(width)
}
