package rpc

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
	"github.com/hotspare/hotspare/internal/trust/token"
)

// Session serves one agent's stream.
func (s *Server) Session(stream grpc.BidiStreamingServer[pb.SessionRequest, pb.SessionResponse]) error {
	id := actor(stream.Context())
	if id.Role != trust.RoleAgent {
		return model.Errorf(model.FaultDenied, "", "%s is not an agent", id)
	}
	return s.fleet.Serve(id.Name, stream)
}

// Enroll spends a join token and signs the agent's first certificate.
func (s *Server) Enroll(ctx context.Context, req *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	t, err := token.Parse(req.GetToken())
	if err != nil {
		return nil, err
	}
	// The certificate is made before the token is spent, so that a bad request does not cost the token.
	cert, authority, err := s.signAgent(req.GetAgent(), req.GetCsr())
	if err != nil {
		return nil, err
	}
	// The token is the proof; the log of evidence names who joined with it.
	ctx = context.WithValue(ctx, identityKey{}, trust.Identity{Role: trust.RoleAgent, Name: req.GetAgent()})
	if _, err := s.decide(ctx, func(*state.State) (*pb.Command, error) {
		return &pb.Command{Body: &pb.Command_JoinHost{JoinHost: &pb.JoinHost{Host: req.GetAgent(), TokenHash: t.Hash()}}}, nil
	}); err != nil {
		return nil, err
	}
	return &pb.EnrollResponse{Certificate: cert, Authority: authority}, nil
}

// Renew gives an agent with a valid certificate the next one.
func (s *Server) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	name := actor(ctx).Name
	if h := s.site.State().Host(name); h == nil || h.GetLostAt() != nil {
		return nil, model.Errorf(model.FaultDenied, "host/"+name, "was removed from the site, or declared lost").
			WithRemedy("join again with a new token: hotspare agent token create --host %s", name)
	}
	cert, authority, err := s.signAgent(name, req.GetCsr())
	return &pb.RenewResponse{Certificate: cert, Authority: authority}, err
}

func (s *Server) signAgent(name string, csr []byte) (cert, authority []byte, err error) {
	a, err := s.authority()
	if err != nil {
		return nil, nil, err
	}
	cert, err = a.Sign(trust.Order{
		Request: csr, Identity: trust.Identity{Role: trust.RoleAgent, Name: name}, Life: trust.DaemonLife, Now: s.site.Now(),
	})
	return cert, a.CertificatePEM(), err
}
