package failover

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Join returns the run that a declaration belongs to already: an open one that contains all its
// plans, or the one that answered the same trigger event before. Nil: it is a new one.
func Join(s *state.State, req *pb.DeclareRequest) *pb.Failover {
	if len(req.GetPlans()) > 0 {
		if f := s.OpenFailoverOf(req.GetPlans()[0]); f != nil && containsAll(f, req.GetPlans()) {
			return f
		}
	}
	if req.GetKey() == "" {
		return nil
	}
	for f := range s.Failovers() {
		if f.GetTrigger() == req.GetTrigger() && slices.Contains(f.GetKeys(), req.GetKey()) {
			return f
		}
	}
	return nil
}

func containsAll(f *pb.Failover, plans []string) bool {
	for _, p := range plans {
		if !slices.ContainsFunc(f.GetPlans(), func(r *pb.PlanRevision) bool { return r.GetPlan() == p }) {
			return false
		}
	}
	return true
}

// Declare decides a new run: who goes where, who is preempted, and the graph. Plans that are in an
// open run already are left to it. It is never refused for lack of room: what does not fit is
// committed as unplaced.
func Declare(s *state.State, v live.View, req *pb.DeclareRequest, by string) (*pb.Declare, []*pb.Expect, error) {
	plans, err := selectPlans(s, req)
	if err != nil {
		return nil, nil, err
	}
	epoch := s.Meta().GetLastEpoch() + 1
	f := &pb.Failover{
		Name: state.FailoverName(epoch), Epoch: epoch, Run: pb.RunKind_RUN_KIND_FAILOVER, Reason: req.GetReason(),
		DeclaredBy: by, Trigger: req.GetTrigger(),
	}
	if req.GetKey() != "" {
		f.Keys = []string{req.GetKey()}
	}
	for _, p := range plans {
		f.Plans = append(f.Plans, &pb.PlanRevision{Plan: p.GetMetadata().GetName(), Revision: p.GetMetadata().GetRevision()})
	}
	for _, r := range assign(s, v, f, replicas(plans)) {
		f.Unplaced = append(f.Unplaced, &pb.Unplaced{
			Plan: r.Plan, Workload: r.Name, Reason: fmt.Sprintf("%d vcpus, %s fit on no host, even with every lease preempted",
				r.Workload.GetResources().GetVcpus(), model.Bytes(r.Workload.GetResources().GetMemoryBytes())),
		})
	}
	losses(s, f, plans)
	graph, err := runbook.Compile(runbook.Input{
		Epoch: epoch, Run: f.GetRun(), Plans: plans, Placements: f.GetPlacements(), Victims: f.GetVictims(),
		Resource: s.Resource, Object: s.Object, HostNames: HostNames(s),
		Preemption: &pb.Preemption{Failover: f.GetName(), Reason: short(f.GetReason()), DeclaredBy: by},
	})
	if err != nil {
		return nil, nil, err
	}
	f.Steps = graph.Steps
	for _, u := range graph.Unplaced {
		f.Unplaced = append(f.Unplaced, u)
		f.Placements = slices.DeleteFunc(f.Placements, func(p *pb.Placement) bool {
			return p.GetPlan() == u.GetPlan() && p.GetWorkload() == u.GetWorkload()
		})
	}
	f.Waiting = waiting(plans, f.GetUnplaced())
	expects := []*pb.Expect{{Key: "placement", Version: s.Meta().GetPlacementVersion()}}
	return &pb.Declare{Failover: f, Objects: graph.Objects, Release: free(s, epoch, graph.Steps, graph.Release)}, expects, nil
}

// maxTold bounds the reason that guests are told: it is in the order of every victim (R7).
const maxTold = 200

func short(reason string) string {
	if r := []rune(reason); len(r) > maxTold {
		return string(r[:maxTold-1]) + "…"
	}
	return reason
}

// HostNames lists the hypervisor hosts of the recovery site in order.
func HostNames(s *state.State) []string {
	var out []string
	for h := range s.Hosts() {
		if h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite() {
			out = append(out, h.GetName())
		}
	}
	return out
}

func selectPlans(s *state.State, req *pb.DeclareRequest) ([]*pb.Plan, error) {
	if len(req.GetPlans()) == 0 {
		return nil, model.Errorf(model.FaultInvalid, "", "no plan named").WithRemedy("name at least one; see: hotspare get plan")
	}
	var out []*pb.Plan
	for _, name := range req.GetPlans() {
		p := s.Plan(name)
		if p == nil {
			return nil, model.Errorf(model.FaultNotFound, "plan/"+name, "no such plan").WithRemedy("see: hotspare get plan")
		}
		if s.OpenFailoverOf(name) == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, model.Errorf(model.FaultPrecondition, "plan/"+req.GetPlans()[0], "every plan named is in an open failover, but not all in one").
			WithRemedy("see: hotspare failover list")
	}
	return out, nil
}

// replicas lists the instances of all workloads of the plans.
func replicas(plans []*pb.Plan) []replica {
	var out []replica
	for _, p := range plans {
		for _, r := range model.Replicas(p) {
			out = append(out, replica{r, p})
		}
	}
	return out
}

// replica is one instance of a workload and the plan that says what it needs.
type replica struct {
	model.Replica
	of *pb.Plan
}

// assign adds to the run where each of the replicas goes and who is preempted for it, and returns those
// that fit nowhere, by rank.
func assign(s *state.State, v live.View, f *pb.Failover, want []replica) (left []replica) {
	site, proven := standing.Site(s, v)
	reader := demand.NewReader(s)
	byName := map[string]replica{}
	var run []guarantee.Workload
	for _, r := range want {
		run = append(run, reader.Workload(r.of, r.Replica))
		byName[r.Key()] = r
	}
	a := proof.Assign(site, proven, run)
	for _, w := range run {
		r := byName[w.Name]
		if host, ok := a.Hosts[w.Name]; ok {
			name := fmt.Sprintf("%s-%s%s-e%d", r.Plan, r.Name, anew(f), f.GetEpoch())
			f.Placements = append(f.Placements, &pb.Placement{
				Plan: r.Plan, Workload: r.Name, Host: host, Object: string(model.NewObjectID(pb.Kind_KIND_INSTANCE, name)),
			})
		}
	}
	for _, vm := range a.Victims {
		if slices.ContainsFunc(f.GetVictims(), func(v *pb.Victim) bool { return v.GetObject() == vm.Object }) {
			continue // It was preempted by this run before.
		}
		f.Victims = append(f.Victims, &pb.Victim{
			Lease: vm.Lease, Object: vm.Object, Host: vm.Host, Action: s.Lease(vm.Lease).GetSpec().GetOnPreempt(),
			Reason: whyVictim(f, vm), Cost: vm.Cost,
		})
	}
	for _, vm := range a.Unplaced {
		left = append(left, byName[vm.Name])
	}
	return left
}

// anew tells an instance's name from that of one that was lost with its host: an object belongs to one agent
// for its whole life (R9).
func anew(f *pb.Failover) string {
	if n := len(f.GetLostHosts()); n > 0 {
		return fmt.Sprintf("-again%d", n)
	}
	return ""
}

// whyVictim says why an instance is preempted: a lease goes as a whole, also from hosts that nothing is placed on.
func whyVictim(f *pb.Failover, vm guarantee.Instance) string {
	if slices.ContainsFunc(f.GetPlacements(), func(p *pb.Placement) bool { return p.GetHost() == vm.Host }) {
		return fmt.Sprintf("its room on %s is needed", vm.Host)
	}
	return model.WholeLease
}

// losses notes for each volume the newest consistent point that is known: what promoting it would lose.
func losses(s *state.State, f *pb.Failover, plans []*pb.Plan) {
	for _, p := range plans {
		for _, r := range model.Replicas(p) {
			for _, vol := range r.Workload.GetVolumes() {
				id := model.NewObjectID(pb.Kind_KIND_VOLUME, r.VolumeName(vol))
				f.Losses = append(f.Losses, &pb.DataLoss{Volume: string(id), Point: s.Object(string(id)).GetConfirmedPoint()})
			}
		}
	}
}

// CheckTrigger refuses a trigger's declaration that it may not make: unknown, disarmed, of plans that are
// not its own, or held down.
func CheckTrigger(s *state.State, v live.View, now time.Time, req *pb.DeclareRequest) error {
	if req.GetTrigger() == "" {
		return nil
	}
	key := "trigger/" + req.GetTrigger()
	t := s.Resource(key).GetTrigger()
	if t == nil {
		return model.Errorf(model.FaultNotFound, key, "no such trigger").WithRemedy("see: hotspare get trigger")
	}
	if t.GetStatus().GetDisarmed() {
		return model.Errorf(model.FaultPrecondition, key, "is not armed: %s", t.GetStatus().GetReason()).
			WithRemedy("arm it with: hotspare trigger arm %s", req.GetTrigger())
	}
	for _, p := range req.GetPlans() {
		if !slices.Contains(t.GetSpec().GetPlans(), p) {
			return model.Errorf(model.FaultDenied, key, "may not declare plan %s", p)
		}
	}
	return holdDown(v, now, t, req)
}

// holdDown makes a trigger wait until its event has lasted. Asking again later is what helps.
func holdDown(v live.View, now time.Time, t *pb.Trigger, req *pb.DeclareRequest) error {
	key, hold := "trigger/"+req.GetTrigger(), t.GetSpec().GetHoldDown().AsDuration()
	switch lasted := now.Sub(req.GetSince().AsTime()); {
	case hold <= 0:
		return nil
	case req.GetSince() == nil:
		return model.Errorf(model.FaultInvalid, key, "holds down for %s, and the request does not say since when its event lasts", hold).
			WithRemedy("set since")
	case v.Clock.Doubt != "":
		return model.Errorf(model.FaultUnavailable, key, "holds down for %s, which cannot be judged: %s", hold, v.Clock.Doubt).
			WithRemedy("set the clocks right, or let an operator declare")
	case lasted < hold:
		// A sender whose clock is ahead must not be held down for longer than others.
		return model.Errorf(model.FaultUnavailable, key, "held down for %s more", min(hold, hold-lasted).Round(time.Second))
	default:
		return nil
	}
}
