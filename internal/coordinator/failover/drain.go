package failover

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Drain decides to take a host out of service: it gets nothing new, and what is lent on it is taken back, whole
// leases at a time, until it is opened again. Whether the plans fit without it is for the caller to find out. What
// cannot be taken back, firm leases and protected VMs, is in the way.
func Drain(s *state.State, req *pb.UpdateHostRequest, by string) (*pb.Declare, []*pb.Expect, error) {
	h, key := s.Host(req.GetName()), "host/"+req.GetName()
	switch {
	case h == nil:
		return nil, nil, model.Errorf(model.FaultNotFound, key, "no such host").WithRemedy("see: hotspare host list")
	case h.GetLostAt() != nil:
		return nil, nil, model.Errorf(model.FaultPrecondition, key, "is lost")
	case !h.GetOffer().GetHypervisor() || h.GetOffer().GetProtectedSite():
		return nil, nil, model.Errorf(model.FaultPrecondition, key, "runs no VMs of leases or plans: nothing there can be taken back").
			WithRemedy("hosts that run VMs offer them in: hotspare host list")
	}
	if f := DrainOf(s, h.GetName()); f != nil {
		return nil, nil, model.Errorf(model.FaultPrecondition, key, "is drained already, by %s", f.GetName()).WithRemedy("see: hotspare failover describe %s", f.GetName())
	}
	if stays := staying(s, h.GetName()); len(stays) > 0 {
		return nil, nil, model.Errorf(model.FaultPrecondition, key, "runs what is not taken back: %s", strings.Join(stays, ", ")).
			WithRemedy("fail back its failovers and release its firm leases first")
	}
	epoch := s.Meta().GetLastEpoch() + 1
	f := &pb.Failover{
		Name: state.FailoverName(epoch), Epoch: epoch, Run: pb.RunKind_RUN_KIND_DRAIN, DrainedHost: h.GetName(), DeclaredBy: by,
		Reason: short(strings.TrimSuffix("host "+h.GetName()+" is drained: "+req.GetReason(), ": ")),
	}
	for l := range s.Leases() {
		f.Victims = append(f.Victims, drained(s, l, h.GetName())...)
	}
	site := demand.Site(s, nil)
	for _, v := range f.GetVictims() {
		if i := slices.IndexFunc(site.Preemptible, func(p guarantee.Instance) bool { return p.Object == v.GetObject() }); i >= 0 {
			v.Cost = site.Preemptible[i].Cost
		}
	}
	graph, err := runbook.Compile(runbook.Input{
		Epoch: epoch, Run: f.GetRun(), Victims: f.GetVictims(), Resource: s.Resource, Object: s.Object, HostNames: HostNames(s),
		Preemption: &pb.Preemption{Failover: f.GetName(), Reason: f.GetReason(), DeclaredBy: by},
	})
	if err != nil {
		return nil, nil, err
	}
	f.Steps = graph.Steps
	expects := []*pb.Expect{{Key: "placement", Version: s.Meta().GetPlacementVersion()}}
	return &pb.Declare{Failover: f, Release: free(s, epoch, graph.Steps, graph.Release), Drain: req}, expects, nil
}

// DrainOf returns the open run that drains a host, or nil.
func DrainOf(s *state.State, host string) *pb.Failover {
	for f := range s.OpenFailovers() {
		if f.GetDrainedHost() == host {
			return f
		}
	}
	return nil
}

// staying lists what runs on a host, or comes back to it, and is not taken back.
func staying(s *state.State, host string) (out []string) {
	for o := range s.ObjectsOf(host) {
		if o.GetKind() != pb.Kind_KIND_INSTANCE {
			continue
		}
		l := s.Lease(o.GetLease())
		runs := model.Effective(o).GetState() == pb.State_STATE_RUNNING
		comesBack := o.GetBase().GetState() == pb.State_STATE_RUNNING
		switch firm := l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM; {
		case l == nil && runs:
			out = append(out, o.GetPlan()+"/"+o.GetWorkload())
		case firm && (runs || comesBack):
			out = append(out, "firm lease "+l.GetName())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// drained lists the VMs of a lease that go when a host is drained: all of them if one of them is there, also one
// that another run holds down and would bring back.
func drained(s *state.State, l *pb.Lease, host string) (out []*pb.Victim) {
	if !slices.ContainsFunc(l.GetInstances(), func(i *pb.LeaseInstance) bool { return i.GetHost() == host }) {
		return nil
	}
	for _, i := range l.GetInstances() {
		if s.Object(i.GetObject()).GetBase().GetState() != pb.State_STATE_RUNNING {
			continue
		}
		why := model.WholeLease
		if i.GetHost() == host {
			why = "its host " + host + " is drained"
		}
		out = append(out, &pb.Victim{Lease: l.GetName(), Object: i.GetObject(), Host: i.GetHost(), Action: l.GetSpec().GetOnPreempt(), Reason: why})
	}
	return out
}

// over returns the command that ends a drain whose host was opened again, or is lost, or nil.
func over(s *state.State, f *pb.Failover) *pb.Command {
	h := s.Host(f.GetDrainedHost())
	if f.GetRun() != pb.RunKind_RUN_KIND_DRAIN || h.GetCordoned() && h.GetLostAt() == nil || model.Reverting(f.GetPhase()) {
		return nil
	}
	return &pb.Command{
		Body: &pb.Command_Failback{Failback: &pb.Failback{
			Failover: f.GetName(), Reason: "host " + f.GetDrainedHost() + " is not drained any more", DiscardRecoveryData: true,
		}},
		Expects: []*pb.Expect{{Key: "failover/" + f.GetName(), Version: f.GetVersion()}},
	}
}

// Due returns the command that begins an announced drain whose time has come, or forgets one whose time is over. A
// drain that may not begin is tried again until then.
func Due(s *state.State, v live.View, now time.Time) *pb.Command {
	if v.Clock.Doubt != "" {
		return nil
	}
	for h := range s.Hosts() {
		for _, d := range h.GetAnnounced() {
			if !now.Before(d.GetEnd().AsTime()) {
				return &pb.Command{
					Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{
						Name: h.GetName(), Action: "cancel-drain", StartAt: d.GetStart(), Reason: "its time is over",
					}},
					Expects: []*pb.Expect{{Key: "host-state/" + h.GetName(), Version: h.GetVersion()}},
				}
			}
			if c, err := Begin(s, v, now, h, d); err == nil && c != nil {
				return c
			}
		}
	}
	return nil
}

// Begin returns the command that begins an announced drain, nil while its time has not come, and an error that says
// why it may not begin.
func Begin(s *state.State, v live.View, now time.Time, h *pb.Host, d *pb.AnnouncedDrain) (*pb.Command, error) {
	if now.Before(d.GetStart().AsTime()) {
		return nil, nil
	}
	req := &pb.UpdateHostRequest{
		Name: h.GetName(), Action: "drain", Reason: d.GetReason(), UseTolerance: d.GetUseTolerance(), Lasts: durationpb.New(d.GetEnd().AsTime().Sub(now)),
	}
	body, expects, err := Drain(s, req, d.GetAnnouncedBy())
	if err != nil {
		return nil, err
	}
	c := &pb.Command{Body: &pb.Command_Declare{Declare: body}, Expects: expects}
	trial := proto.CloneOf(c)
	trial.Time, trial.Level = timestamppb.New(now), state.SupportedLevel
	next, res := s.Apply(s.Index()+1, s.Meta().GetTerm(), trial)
	if res.Err != nil {
		return nil, res.Err
	}
	if out := standing.Look(s, next, v); out.Worse() && (out.After.Lost() || !d.GetUseTolerance()) {
		return nil, model.Errorf(model.FaultNoFit, "host/"+h.GetName(), "without it the site would be %s", out)
	}
	return c, nil
}
