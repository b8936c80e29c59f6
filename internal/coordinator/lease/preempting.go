package lease

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// Preempting says for each failover that has preempted a lease what its owner wants to know.
func Preempting(s *state.State, l *pb.Lease) []*pb.LeasePreemption {
	var out []*pb.LeasePreemption
	for _, epoch := range l.GetPreemptedBy() {
		f := s.Failover(state.FailoverName(epoch))
		if f == nil {
			continue
		}
		p := &pb.LeasePreemption{
			Failover: f.GetName(), Reason: f.GetReason(), DeclaredBy: f.GetDeclaredBy(), Since: f.GetDeclaredAt(),
			Action: l.GetSpec().GetOnPreempt(), FailoverPhase: model.PhaseName(f.GetPhase()), DrainedHost: f.GetDrainedHost(),
		}
		if g := l.GetSpec().GetGrace(); g != nil {
			p.Deadline = timestamppb.New(f.GetDeclaredAt().AsTime().Add(g.AsDuration()))
		}
		for _, v := range f.GetVictims() {
			if v.GetLease() == l.GetName() {
				p.Price += v.GetCost()
				if p.GetWhy() == "" || v.GetReason() != model.WholeLease {
					p.Why = v.GetReason()
				}
			}
		}
		out = append(out, p)
	}
	return out
}
