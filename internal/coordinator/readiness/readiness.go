// Package readiness says whether each plan could be run now, and what is missing, since when, and
// what to do. Pure; RPC handlers call it when somebody looks. It changes nothing.
package readiness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/coordinator/upkeep"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Guarantee names the site's state ("Proven(1)") and says why when it is not the best.
func Guarantee(s *state.State, v live.View) (word, reason string, d guarantee.Decision) {
	d = standing.Proof(s, v)
	return d.Word(), d.Reason, d
}

// Plan checks one plan.
func Plan(s *state.State, v live.View, p *pb.Plan, d guarantee.Decision) *pb.Readiness {
	c := &check{s: s, v: v, out: &pb.Readiness{Plan: p.GetMetadata().GetName()}}
	if f := s.OpenFailoverOf(c.out.GetPlan()); f != nil {
		// Promoted volumes and a fenced old side are what the run wants, not what is missing.
		c.out.Failover = f.GetName()
		c.obstacle("failover/"+f.GetName(), "is "+model.PhaseName(f.GetPhase())+"; the plan is judged again when it has ended",
			"see: hotspare failover describe "+f.GetName(), f.GetDeclaredAt())
		return c.out
	}
	if d.Lost() {
		c.obstacle("plan/"+c.out.GetPlan(), "does not fit: "+d.Reason, "add or uncordon hosts, or make the plan smaller", nil)
	}
	for _, r := range model.Replicas(p) {
		for _, vol := range r.Workload.GetVolumes() {
			c.volume(r.VolumeName(vol), vol)
		}
	}
	for _, f := range p.GetSpec().GetFencing() {
		if t := f.GetPower().GetTarget(); t != "" {
			c.object(string(model.NewObjectID(pb.Kind_KIND_FENCE, t)), "apply a FenceTarget manifest, and let the agent that it names join")
		}
	}
	if len(p.GetSpec().GetFencing()) == 0 && hasVolumes(p) {
		c.obstacle("plan/"+c.out.GetPlan(), "names no fencing: two masters would be possible", "add fencing to the plan", nil)
	}
	for _, e := range p.GetSpec().GetEndpoints() {
		if e.GetDns() != nil {
			c.object(string(runbook.EndpointObjectID(e.GetDns())), "add zone "+e.GetDns().GetZone()+" to an agent's configuration")
		}
	}
	c.out.Ready = len(c.out.GetObstacles()) == 0
	return c.out
}

func hasVolumes(p *pb.Plan) bool {
	return slices.ContainsFunc(p.GetSpec().GetWorkloads(), func(w *pb.Workload) bool { return len(w.GetVolumes()) > 0 })
}

type check struct {
	s   *state.State
	v   live.View
	out *pb.Readiness
}

func (c *check) obstacle(object, what, remedy string, since *timestamppb.Timestamp) {
	if slices.ContainsFunc(c.out.GetObstacles(), func(o *pb.Obstacle) bool { return o.GetObject() == object && o.GetWhat() == what }) {
		return
	}
	c.out.Obstacles = append(c.out.Obstacles, &pb.Obstacle{Object: object, What: what, Remedy: remedy, Since: since})
}

// object checks that an agent keeps the object and has settled it.
func (c *check) object(id, remedy string) bool {
	o := c.s.Object(id)
	if o == nil {
		c.obstacle(id, "is kept by no agent", remedy, nil)
		return false
	}
	if a := c.v.Agent(o.GetAgent()); !a.Connected {
		c.obstacle(id, "agent "+o.GetAgent()+" is not connected", "look at hotspare-agent on "+o.GetAgent(), timestamppb.New(a.Since))
		return false
	}
	if status := c.v.Current(o); status.GetPhase() != pb.Phase_PHASE_SETTLED {
		what := "is not settled yet"
		if status.GetMessage() != "" {
			what = status.GetMessage()
		}
		c.obstacle(id, what, "it is tried again by itself; see: hotspare objects list --agent "+o.GetAgent(), nil)
		return false
	}
	return true
}

// volume checks that a replica has a consistent point and that replication goes on.
func (c *check) volume(name string, w *pb.WorkloadVolume) {
	id := string(model.NewObjectID(pb.Kind_KIND_VOLUME, name))
	if !c.object(id, "apply a Pool manifest for "+w.GetPool()+", and let the agent that it names join") {
		return
	}
	o := c.s.Object(id)
	if c.v.Current(o).GetVolume().GetPoint() == nil && len(o.GetOverrides()) == 0 {
		c.obstacle(id, "has no consistent point yet", "wait until replication has converged", nil)
	}
	if w.GetSource() == nil {
		return
	}
	src := string(model.NewObjectID(pb.Kind_KIND_VOLUME, runbook.SourceName(name)))
	if !c.object(src, "check the agent of the protected site") {
		return
	}
	if vs := c.v.Current(c.s.Object(src)).GetVolume(); vs.GetDegradedSince() != nil && !vs.GetInSync() {
		c.obstacle(id, upkeep.Describe(vs), "it is synchronised again by itself once the protected site answers", vs.GetDegradedSince())
	}
}

// Risks says of hosts why their lent VMs might not be taken back in time. Nothing is preempted for it.
func Risks(s *state.State, v live.View) map[string]string {
	out := map[string]string{}
	for _, r := range admission.Risks(standing.Site(s, v)) {
		out[r.Host] = r.String()
	}
	return out
}

// Overlent says of hosts that leases keep more there than is lent.
func Overlent(s *state.State, v live.View) map[string]string {
	return admission.Overlent(demand.Site(s, v.Silent()))
}

// Alarms lists what an operator should look at now, most urgent first.
func Alarms(s *state.State, v live.View) []string {
	out, risks := slices.Clone(v.Clock.Alarms), Risks(s, v)
	for a := range v.Agents() {
		if a.Held != "" {
			out = append(out, fmt.Sprintf("host %s gets no orders: %s", a.Name, a.Held))
		}
	}
	for h := range s.Hosts() {
		if h.GetLostAt() != nil {
			out = append(out, fmt.Sprintf("host %s is lost since %s: when it is repaired and wiped, hotspare host remove %s, then let it join",
				h.GetName(), h.GetLostAt().AsTime().Format("2006-01-02 15:04"), h.GetName()))
			continue
		}
		if a := v.Agent(h.GetName()); a.Name != "" && !a.Connected {
			out = append(out, fmt.Sprintf("agent %s is silent since %s", h.GetName(), a.Since.UTC().Format("15:04:05")))
		}
		if h.GetUsesTolerance() {
			out = append(out, fmt.Sprintf("host %s is cordoned until %s and uses up tolerance: hotspare host uncordon %s ends it earlier",
				h.GetName(), h.GetCordonedUntil().AsTime().Format("2006-01-02 15:04"), h.GetName()))
		}
		for _, d := range h.GetAnnounced() {
			if start := d.GetStart().AsTime(); s.Time().After(start) {
				out = append(out, fmt.Sprintf("host %s should be drained since %s: hotspare host list -o json says why not", h.GetName(), start.UTC().Format("2006-01-02 15:04")))
			}
		}
		if risk := risks[h.GetName()]; risk != "" {
			out = append(out, fmt.Sprintf("host %s is at risk: %s; nothing is preempted for it, and nothing more is lent there", h.GetName(), risk))
		}
		if h.GetQuarantined() {
			out = append(out, fmt.Sprintf("host %s is quarantined: look at it, then hotspare host readmit %s", h.GetName(), h.GetName()))
		}
	}
	for o := range s.Objects() {
		if st := v.Raw(o.GetId()); st.GetEndpoint().GetConflict() {
			out = append(out, fmt.Sprintf("%s was changed by somebody else: %s", o.GetId(), strings.Join(st.GetEndpoint().GetObserved().GetValues(), " ")))
		}
	}
	return out
}

// Margins says for each dimension what the usable hosts have, and what of it the proof may need. What is
// above that is no room for another plan for certain: it may be in pieces that are too small. Nil while
// nothing is proven.
func Margins(s *state.State, v live.View, d guarantee.Decision) (out []*pb.Margin) {
	if d.Certificate == nil {
		return nil
	}
	site, _ := demand.Base(s, v.Silent())
	for i, name := range site.Dimensions {
		m := &pb.Margin{Dimension: name}
		for h := range site.Hosts {
			if site.Hosts[h].State == guarantee.Usable {
				m.Total = guarantee.Add(m.Total, site.Hosts[h].Capacity.At(i))
				m.Obliged = guarantee.Add(m.Obliged, d.Certificate.Obligations[h].At(i))
			}
		}
		out = append(out, m)
	}
	return out
}

// maxWeakest bounds the sites for which the weakest plan is looked for whenever somebody looks at the status:
// it costs a second proof.
const maxWeakest = 5000

// Weakest says what would be short first if one host more were lost than is to be survived. Empty: the site
// is not proven, so that its reason says it, it has no plans, or it is too large.
func Weakest(s *state.State, v live.View, d guarantee.Decision) string {
	site, _ := demand.Base(s, v.Silent())
	if d.Answer != guarantee.Fits || len(site.Workloads) == 0 || len(site.Workloads) > maxWeakest {
		return ""
	}
	site.Scenarios = slices.Clone(site.Asked())
	for i := range site.Scenarios {
		site.Scenarios[i].Hosts++
	}
	harder := proof.Prove(site)
	switch {
	case harder.Answer == guarantee.Fits:
		return "none: one host more may be lost"
	case harder.Missing != nil:
		return "with one host more lost, " + harder.Missing.String()
	default:
		return "with one host more lost, " + harder.Reason
	}
}

// Seats says where the witness has the workloads of a plan, and where each would be once that host was lost.
// maxSeats hosts are looked at: each costs a proof.
func Seats(s *state.State, v live.View, plan string, d guarantee.Decision) (out []*pb.Seat) {
	if d.Certificate == nil {
		return nil
	}
	site, _ := demand.Base(s, v.Silent())
	serves := map[string]time.Duration{}
	after := demand.ServesAfter(s, s.Plan(plan))
	for _, r := range model.Replicas(s.Plan(plan)) {
		if t, known := after[r.Workload.GetName()]; known {
			serves[r.Key()] = t
		}
	}
	without := map[int32]guarantee.Decision{}
	for i, w := range site.Workloads {
		at := d.Certificate.Witness[i]
		if w.Plan != plan || at == guarantee.Nowhere {
			continue
		}
		seat := &pb.Seat{Workload: w.Name, Host: site.Hosts[at].Name}
		if w.Budget > 0 {
			seat.ReclaimBudget = durationpb.New(w.Budget)
		}
		if t, known := serves[w.Name]; known {
			seat.ServesAfter = durationpb.New(t)
		}
		out = append(out, seat)
		if _, known := without[at]; !known && len(without) < maxSeats && len(site.Workloads) <= maxWeakest {
			less := *site
			less.Hosts = slices.Clone(site.Hosts)
			less.Hosts[at].State = guarantee.Lost
			without[at] = proof.Prove(&less)
		}
		if c := without[at].Certificate; c != nil && c.Witness[i] != guarantee.Nowhere {
			seat.WhenLost = site.Hosts[c.Witness[i]].Name
		}
	}
	return out
}

const maxSeats = 8
