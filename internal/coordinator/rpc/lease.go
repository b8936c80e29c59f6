package rpc

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// CreateLease admits and stores a lease; its VMs start as soon as their agents get the orders.
func (s *Server) CreateLease(ctx context.Context, req *pb.CreateLeaseRequest) (*pb.CreateLeaseResponse, error) {
	owner := actor(ctx).Name
	r, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		if name := s.remembered(st, req.GetRequestId()); name != "" {
			return &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_CreateLease{}}, nil
		}
		body, expects, err := lease.Create(st, s.site.Live(), s.site.Now(), req, owner)
		if err != nil {
			return nil, err
		}
		return &pb.Command{RequestId: req.GetRequestId(), Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}}, nil
	})
	if err != nil {
		if fault := model.FaultOf(err); fault != 0 {
			s.refused(fault)
		}
		return nil, err
	}
	return &pb.CreateLeaseResponse{Lease: s.placed(s.show(ctx, s.site.State().Lease(r.Name)))[0]}, nil
}

// show adds what is seen of a lease's instances now. User-data and keys are for those who may change the
// lease: user-data often holds secrets.
func (s *Server) show(ctx context.Context, l *pb.Lease) *pb.Lease {
	if l == nil {
		return nil
	}
	l = proto.CloneOf(l)
	v := s.site.Live()
	l.Preempting = lease.Preempting(s.site.State(), l)
	for _, i := range l.GetInstances() {
		if st := v.Raw(i.GetObject()); st != nil {
			l.Live = append(l.Live, st)
		}
	}
	if !s.mayChange(ctx, l) && l.GetSpec() != nil {
		l.Spec.UserData, l.Spec.SshKeys = nil, nil
	}
	return l
}

// placed says of those that wait where they stand in the queue.
func (s *Server) placed(ls ...*pb.Lease) []*pb.Lease {
	var places map[string]*pb.QueuePlace
	for _, l := range ls {
		if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_QUEUED {
			continue
		}
		if places == nil {
			places = lease.Queue(s.site.State(), s.site.Live(), s.site.Now())
		}
		l.Queue = places[l.GetName()]
	}
	return ls
}

// mine returns a lease that the caller may change: its own, or any for an operator.
func (s *Server) mine(ctx context.Context, st *state.State, name string) (*pb.Lease, error) {
	l := st.Lease(name)
	if l == nil {
		return nil, model.Errorf(model.FaultNotFound, "lease/"+name, "no such lease").WithRemedy("see: hotspare lease list")
	}
	if s.mayChange(ctx, l) {
		return l, nil
	}
	return nil, model.Errorf(model.FaultDenied, "lease/"+name, "belongs to %s of project %s", l.GetOwner(), l.GetProject()).
		WithRemedy("ask its owner or an operator")
}

// mayChange says whether the caller is the owner, a member of the project by name, or an operator.
func (s *Server) mayChange(ctx context.Context, l *pb.Lease) bool {
	who := actor(ctx)
	members := s.site.State().Resource("project/" + l.GetProject()).GetProject().GetSpec().GetMembers()
	return who.Role == trust.RoleOperator || who.Name == l.GetOwner() || slices.Contains(members, who.Name)
}

// GetLease returns one lease with what is seen of its VMs.
func (s *Server) GetLease(ctx context.Context, req *pb.GetLeaseRequest) (*pb.GetLeaseResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	l := st.Lease(req.GetName())
	if l == nil {
		return nil, model.Errorf(model.FaultNotFound, "lease/"+req.GetName(), "no such lease").WithRemedy("see: hotspare lease list")
	}
	out, risks := s.placed(s.show(ctx, l))[0], readiness.Risks(st, s.site.Live())
	for _, i := range out.GetInstances() {
		if risk := risks[i.GetHost()]; risk != "" && out.GetAtRisk() == "" {
			out.AtRisk = "on " + i.GetHost() + ": " + risk
		}
	}
	return &pb.GetLeaseResponse{Lease: out}, nil
}

// ListLeases lists leases by name.
func (s *Server) ListLeases(ctx context.Context, req *pb.ListLeasesRequest) (*pb.ListLeasesResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	var all []*pb.Lease
	for l := range st.Leases() {
		ended := l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING
		if (req.GetProject() == "" || l.GetProject() == req.GetProject()) && (req.GetAll() || !ended) {
			all = append(all, l)
		}
	}
	rows, next := page(all, (*pb.Lease).GetName, pageSize(req.GetPageSize()), req.GetPageToken())
	out := &pb.ListLeasesResponse{NextPageToken: next}
	for _, l := range rows {
		out.Leases = append(out.Leases, s.show(ctx, l))
	}
	s.placed(out.GetLeases()...)
	return out, nil
}

// change proposes a command about one lease that the caller may change.
func (s *Server) change(ctx context.Context, name, requestID string, body func(*pb.Lease) *pb.Command, checks ...func(*state.State, *pb.Command) error) (*pb.Lease, error) {
	r, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		l := st.Lease(name)
		if s.remembered(st, requestID) == "" { // A repeat may be about a lease that is gone since; apply knows who asked.
			var err error
			if l, err = s.mine(ctx, st, name); err != nil {
				return nil, err
			}
		}
		c := body(l)
		c.RequestId = requestID
		for _, check := range checks {
			if err := check(st, c); err != nil && s.remembered(st, requestID) == "" {
				return nil, err
			}
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return s.show(ctx, s.site.State().Lease(r.Name)), nil
}

// ExtendLease moves the end of a lease's term.
func (s *Server) ExtendLease(ctx context.Context, req *pb.ExtendLeaseRequest) (*pb.ExtendLeaseResponse, error) {
	if req.GetBy().AsDuration() <= 0 {
		return nil, model.Errorf(model.FaultInvalid, "lease/"+req.GetName(), "the extension must be longer than nothing").
			WithRemedy("for example --by 4h")
	}
	l, err := s.change(ctx, req.GetName(), req.GetRequestId(), func(*pb.Lease) *pb.Command {
		return &pb.Command{Body: &pb.Command_ExtendLease{ExtendLease: req}}
	})
	return &pb.ExtendLeaseResponse{Lease: l}, err
}

// ReleaseLease ends a lease now; its disks are kept for the retention time.
func (s *Server) ReleaseLease(ctx context.Context, req *pb.ReleaseLeaseRequest) (*pb.ReleaseLeaseResponse, error) {
	reason := "released by " + actor(ctx).Name
	l, err := s.change(ctx, req.GetName(), req.GetRequestId(), func(l *pb.Lease) *pb.Command {
		return &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(l, reason, s.site.Now())}}
	})
	if err == nil && l == nil { // It waited, so that nothing is kept of it.
		l = &pb.Lease{Name: req.GetName(), Phase: pb.LeasePhase_LEASE_PHASE_ENDED, Reason: reason}
	}
	return &pb.ReleaseLeaseResponse{Lease: l}, err
}

// UndeleteLease brings an ended lease back within its retention time.
func (s *Server) UndeleteLease(ctx context.Context, req *pb.UndeleteLeaseRequest) (*pb.UndeleteLeaseResponse, error) {
	l, err := s.change(ctx, req.GetName(), req.GetRequestId(), func(*pb.Lease) *pb.Command {
		return &pb.Command{Body: &pb.Command_UndeleteLease{UndeleteLease: req}}
	}, func(st *state.State, c *pb.Command) error {
		c.Expects = []*pb.Expect{{Key: "placement", Version: st.Meta().GetPlacementVersion()}}
		return s.admitsAgain(st, c, "lease/"+req.GetName())
	})
	return &pb.UndeleteLeaseResponse{Lease: l}, err
}

// admitsAgain refuses to bring a lease back where a new one would be refused: it makes the proof worse, or could not
// be taken back in time.
func (s *Server) admitsAgain(st *state.State, c *pb.Command, key string) error {
	if err := s.noWorse(st, c, "its disks are kept until it is deleted; try again later"); err != nil {
		return err
	}
	next, _ := s.tried(st, c)
	before := readiness.Risks(st, s.site.Live())
	for host, risk := range readiness.Risks(next, s.site.Live()) { // Any order: one is enough.
		if before[host] == "" {
			return model.Errorf(model.FaultNoFit, key, "on %s %s", host, risk).WithRemedy("its disks are kept until it is deleted; try again later")
		}
	}
	return nil
}
